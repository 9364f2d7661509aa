"""Reflection over real channels, in raw messages, by both versions of the service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_reflection.v1alpha.reflection_pb2 import (
    ErrorResponse,
    ExtensionNumberResponse,
    ExtensionRequest,
    FileDescriptorResponse,
    ListServiceResponse,
    ServiceResponse,
)
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest as Request
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionResponse as Response

from dynserve import App
from tests.running import HEALTH_METHODS

Serve: TypeAlias = Callable[..., Any]

V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
V1ALPHA = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
NOT_FOUND, INVALID_ARGUMENT = 5, 3
BUILTIN = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)

SOURCES = {
    "shop/notes.proto": """
        edition = "2023";
        package shop;
        import "google/protobuf/descriptor.proto";

        // A note on a method.
        extend google.protobuf.MethodOptions { string note = 50001; }
    """,
    "shop/base.proto": """
        syntax = "proto2";
        package shop;
        import "google/protobuf/timestamp.proto";

        // Something to sell.
        message Item {
            // What it is called.
            optional string name = 1;
            oneof price { int32 cents = 2; int32 points = 3; }
            map<string, int32> stock = 4;
            optional google.protobuf.Timestamp since = 5;
            optional group Box = 6 { optional int32 width = 1; }
            extensions 100 to 199;
            message Part {
                enum Grade { ROUGH = 0; FINE = 1; }
                extend Item { optional int32 parts = 101; }
            }
        }
        extend Item { optional string tag = 100; }
        enum Size { SMALL = 0; LARGE = 1; }
    """,
    "shop/shop.proto": """
        edition = "2024";
        package shop;
        import "shop/base.proto";
        import option "shop/notes.proto";

        // A corner shop.
        service Shop {
            // Sells one.
            rpc Buy(Item) returns (Item) { option (note) = "paid at once"; }
        }
    """,
    "shop/more.proto": """
        syntax = "proto2";
        package shop;
        import "shop/base.proto";
        extend Item { optional string late = 150; }
    """,
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sources."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop").mkdir()
    for name, text in SOURCES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def compiled(shop: Path) -> dict[str, bytes]:
    """What protoc itself makes of each file, comments included."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{shop}", "--include_imports"]
    out = ["--include_source_info", "--retain_options", f"--descriptor_set_out={shop}/set.binpb"]
    subprocess.run([*command, *out, *SOURCES], check=True, timeout=60)
    data = (shop / "set.binpb").read_bytes()
    files = {
        file.name: file.SerializeToString() for file in FileDescriptorSet.FromString(data).file
    }
    assert all(file in data for file in files.values())
    return files


@pytest.fixture(scope="module")
def channel(shop: Path, engine: str) -> Iterator[grpc.Channel]:
    """To a server of the sources."""
    app = App(shop)
    app.add(lambda request: request, "shop.Shop/Buy")
    with (
        app.server("127.0.0.1:0").in_thread() as server,
        grpc.insecure_channel(server.addresses[0]) as channel,
    ):
        yield channel


def ask(channel: grpc.Channel, *requests: Request) -> list[Response]:
    """What one stream answers; it is the same, to the byte, in both versions."""
    data = [request.SerializeToString() for request in requests]
    answers: list[list[bytes]] = []
    for path in (V1, V1ALPHA):
        call: Any = channel.stream_stream(path)
        answers.append(list(call(iter(data), timeout=30)))
    v1, v1alpha = answers
    assert v1 == v1alpha
    return [Response.FromString(data) for data in v1]


def names(response: Response) -> list[str]:
    """The names of the files in a response."""
    return [file.name for file in files(response)]


def files(response: Response) -> list[FileDescriptorProto]:
    """The files in a response."""
    data = response.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(one) for one in data]


def test_list_services(channel: grpc.Channel) -> None:
    """All services are listed, sorted, health and reflection itself included."""
    request = Request(list_services="*")
    assert ask(channel, request) == [
        Response(
            original_request=request,
            list_services_response=ListServiceResponse(
                service=[ServiceResponse(name=name) for name in (*BUILTIN, "shop.Shop")]
            ),
        )
    ]


def test_files_are_what_protoc_made(channel: grpc.Channel, compiled: dict[str, bytes]) -> None:
    """Every file comes to the byte as protoc compiled it: comments, custom options and all."""
    for name, data in compiled.items():
        (response,) = ask(channel, Request(file_by_filename=name))
        assert response.file_descriptor_response.file_descriptor_proto[0] == data


def test_comments_and_options_are_kept(channel: grpc.Channel) -> None:
    """Comments and the bytes of custom options are in what is sent."""
    (response,) = ask(channel, Request(file_containing_symbol="shop.Shop"))
    file = files(response)[0]
    comments = [one.leading_comments for one in file.source_code_info.location]
    assert [text for text in comments if text] == [" A corner shop.\n", " Sells one.\n"]
    options = file.service[0].method[0].options.SerializeToString()
    assert options == b"\x8a\xb5\x18\x0cpaid at once"  # field 50001, length-delimited


def test_a_file_comes_with_all_it_imports(
    channel: grpc.Channel, compiled: dict[str, bytes]
) -> None:
    """Imports of imports and edition 2024's option imports come along, each once."""
    request = Request(host="shop.test", file_by_filename="shop/shop.proto")
    expected = (
        "shop/shop.proto",
        "shop/base.proto",
        "shop/notes.proto",
        "google/protobuf/timestamp.proto",
        "google/protobuf/descriptor.proto",
    )
    assert ask(channel, request) == [
        Response(
            valid_host="shop.test",
            original_request=request,
            file_descriptor_response=FileDescriptorResponse(
                file_descriptor_proto=[compiled[name] for name in expected]
            ),
        )
    ]


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("shop.Item", "shop/base.proto"),
        ("shop.Item.Part", "shop/base.proto"),
        ("shop.Item.StockEntry", "shop/base.proto"),
        ("shop.Item.Box", "shop/base.proto"),
        ("shop.Item.Box.width", "shop/base.proto"),
        ("shop.Item.name", "shop/base.proto"),
        ("shop.Item.price", "shop/base.proto"),
        ("shop.Item.cents", "shop/base.proto"),
        ("shop.Size", "shop/base.proto"),
        ("shop.LARGE", "shop/base.proto"),
        ("shop.Size.LARGE", "shop/base.proto"),
        ("shop.Item.Part.Grade", "shop/base.proto"),
        ("shop.Item.Part.FINE", "shop/base.proto"),
        ("shop.tag", "shop/base.proto"),
        ("shop.Item.Part.parts", "shop/base.proto"),
        ("shop.late", "shop/more.proto"),
        ("shop.note", "shop/notes.proto"),
        ("shop.Shop", "shop/shop.proto"),
        ("shop.Shop.Buy", "shop/shop.proto"),
        ("google.protobuf.Timestamp", "google/protobuf/timestamp.proto"),
        ("google.protobuf.Timestamp.seconds", "google/protobuf/timestamp.proto"),
        ("grpc.health.v1.Health.Watch", "grpc_health/v1/health.proto"),
        ("grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto"),
        ("grpc.reflection.v1alpha.ErrorResponse", "grpc_reflection/v1alpha/reflection.proto"),
    ],
)
def test_file_containing_symbol(channel: grpc.Channel, symbol: str, file: str) -> None:
    """Every kind of symbol leads to the file that defines it, as its first file."""
    (response,) = ask(channel, Request(file_containing_symbol=symbol))
    assert names(response)[0] == file


@pytest.mark.parametrize(
    "symbol", ["", "shop", "Item", ".shop.Item", "shop.Nope", "shop.Item.nope", "shop.Shop.Sell"]
)
def test_unknown_symbol(channel: grpc.Channel, symbol: str) -> None:
    """What is not defined is NOT_FOUND in the response, and the stream goes on."""
    request = Request(host="h", file_containing_symbol=symbol)
    after = Request(file_containing_symbol="shop.note")
    refused, found = ask(channel, request, after)
    assert refused == Response(
        valid_host="h",
        original_request=request,
        error_response=ErrorResponse(error_code=NOT_FOUND, error_message=f"no symbol {symbol!r}"),
    )
    assert names(found) == ["shop/notes.proto", "google/protobuf/descriptor.proto"]


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (Request(file_by_filename="nope.proto"), NOT_FOUND, "no file 'nope.proto'"),
        (
            Request(
                file_containing_extension=ExtensionRequest(
                    containing_type="shop.Item", extension_number=102
                )
            ),
            NOT_FOUND,
            "no extension 102 of 'shop.Item'",
        ),
        (
            Request(
                file_containing_extension=ExtensionRequest(
                    containing_type="shop.Nope", extension_number=100
                )
            ),
            NOT_FOUND,
            "no extension 100 of 'shop.Nope'",
        ),
        (
            Request(all_extension_numbers_of_type="shop.Nope"),
            NOT_FOUND,
            "no message type 'shop.Nope'",
        ),
        (
            Request(all_extension_numbers_of_type="unknown.Nope"),
            NOT_FOUND,
            "no message type 'unknown.Nope'",
        ),
        (
            Request(all_extension_numbers_of_type="shop.Item.Nope"),
            NOT_FOUND,
            "no message type 'shop.Item.Nope'",
        ),
        (
            Request(all_extension_numbers_of_type="shop.Shop"),
            NOT_FOUND,
            "no message type 'shop.Shop'",
        ),
        (Request(), INVALID_ARGUMENT, "the request asks for nothing"),
    ],
)
def test_errors_are_in_the_response(
    channel: grpc.Channel, request_: Request, code: int, message: str
) -> None:
    """An error is an answer with the echo of its request, and the stream goes on."""
    after = Request(list_services="")
    refused, listed = ask(channel, request_, after)
    assert refused == Response(
        original_request=request_,
        error_response=ErrorResponse(error_code=code, error_message=message),
    )
    assert len(listed.list_services_response.service) == 4


LONG = "x" * 1_000_000
SHORT = f"'{'x' * 199}..."


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(file_by_filename=LONG), f"no file {SHORT}"),
        (Request(file_containing_symbol=LONG), f"no symbol {SHORT}"),
        (
            Request(
                file_containing_extension=ExtensionRequest(containing_type=LONG, extension_number=1)
            ),
            f"no extension 1 of {SHORT}",
        ),
        (Request(all_extension_numbers_of_type=LONG), f"no message type {SHORT}"),
    ],
    ids=["file", "symbol", "extension", "type"],
)
def test_a_long_name_is_told_again_in_short(
    channel: grpc.Channel, request_: Request, message: str
) -> None:
    """The error's text is cut, for logs and terminals; the echo of the request is the request."""
    assert ask(channel, request_) == [
        Response(
            original_request=request_,
            error_response=ErrorResponse(error_code=NOT_FOUND, error_message=message),
        )
    ]


@pytest.mark.parametrize(
    ("number", "file"),
    [(100, "shop/base.proto"), (101, "shop/base.proto"), (150, "shop/more.proto")],
)
def test_file_containing_extension(channel: grpc.Channel, number: int, file: str) -> None:
    """An extension leads to the file that defines it, wherever in the file that is."""
    asked = ExtensionRequest(containing_type="shop.Item", extension_number=number)
    (response,) = ask(channel, Request(file_containing_extension=asked))
    assert names(response)[0] == file


@pytest.mark.parametrize(
    ("extendee", "numbers"),
    [
        ("shop.Item", [100, 101, 150]),
        ("google.protobuf.MethodOptions", [50001]),
        ("shop.Item.Part", []),
        ("shop.Item.Box", []),
    ],
)
def test_all_extension_numbers_of_type(
    channel: grpc.Channel, extendee: str, numbers: list[int]
) -> None:
    """The numbers of all extensions come sorted; a message type without any has none."""
    request = Request(all_extension_numbers_of_type=extendee)
    assert ask(channel, request) == [
        Response(
            original_request=request,
            all_extension_numbers_response=ExtensionNumberResponse(
                base_type_name=extendee, extension_number=numbers
            ),
        )
    ]


def test_each_file_comes_once_a_stream(channel: grpc.Channel) -> None:
    """Imports that a stream has sent are left out; what is asked for comes every time."""
    asked = [
        Request(file_containing_symbol="shop.note"),
        Request(file_containing_symbol="shop.Shop"),
        Request(file_containing_symbol="shop.Item"),
        Request(file_by_filename="google/protobuf/descriptor.proto"),
    ]
    assert [names(response) for response in ask(channel, *asked)] == [
        ["shop/notes.proto", "google/protobuf/descriptor.proto"],
        ["shop/shop.proto", "shop/base.proto", "google/protobuf/timestamp.proto"],
        ["shop/base.proto"],
        ["google/protobuf/descriptor.proto"],
    ]


def test_thousands_of_requests_on_one_stream(channel: grpc.Channel) -> None:
    """A stream lasts as long as its client asks, and each request has its answer, in order."""
    symbols = ["shop.Item", "shop.Nope", "shop.Shop.Buy", "shop.LARGE"] * 500
    responses = ask(channel, *(Request(file_containing_symbol=symbol) for symbol in symbols))
    assert [r.original_request.file_containing_symbol for r in responses] == symbols
    found = [names(response) for response in responses]
    assert found[:3] == [
        ["shop/base.proto", "google/protobuf/timestamp.proto"],
        [],
        ["shop/shop.proto", "shop/notes.proto", "google/protobuf/descriptor.proto"],
    ]
    assert found[4:] == [["shop/base.proto"], [], ["shop/shop.proto"], ["shop/base.proto"]] * 499


def test_requests_that_do_not_parse(channel: grpc.Channel) -> None:
    """A request that is no message of the protocol ends the stream with INVALID_ARGUMENT."""
    for path, package in ((V1, "v1"), (V1ALPHA, "v1alpha")):
        call: Any = channel.stream_stream(path)
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b"\xff"]), timeout=10))
        error: Any = caught.value
        assert (error.code(), error.details()) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            f"the request is not a valid grpc.reflection.{package}.ServerReflectionRequest",
        )


def test_every_service_can_be_built(channel: grpc.Channel) -> None:
    """A client that knows nothing builds each served service from the answers alone."""
    pool = DescriptorPool()
    (listed,) = ask(channel, Request(list_services=""))
    services = [service.name for service in listed.list_services_response.service]
    responses = ask(channel, *(Request(file_containing_symbol=name) for name in services))
    for response in responses:
        for file in reversed(files(response)):
            pool.AddSerializedFile(file.SerializeToString())
    methods = {name: sorted(pool.FindServiceByName(name).methods_by_name) for name in services}
    assert methods == {
        "grpc.health.v1.Health": sorted(HEALTH_METHODS),
        "grpc.reflection.v1.ServerReflection": ["ServerReflectionInfo"],
        "grpc.reflection.v1alpha.ServerReflection": ["ServerReflectionInfo"],
        "shop.Shop": ["Buy"],
    }


def test_the_client_of_grpcio_reflection(channel: grpc.Channel) -> None:
    """grpcio-reflection's own client finds services, types and extensions."""
    database: Any = ProtoReflectionDescriptorDatabase(channel)
    pool: Any = DescriptorPool(database)
    assert list(database.get_services()) == [*BUILTIN, "shop.Shop"]
    for name in database.get_services():
        assert pool.FindServiceByName(name).full_name == name
    buy = pool.FindServiceByName("shop.Shop").methods_by_name["Buy"]
    assert (buy.input_type.full_name, buy.output_type.full_name) == ("shop.Item", "shop.Item")
    assert database.FindAllExtensionNumbers("shop.Item") == [100, 101, 150]
    assert pool.FindExtensionByName("shop.late").number == 150


def test_reflection_describes_itself_in_both_versions(channel: grpc.Channel) -> None:
    """v1 is v1alpha under another package, and no more deprecated."""
    described = []
    for version in ("v1", "v1alpha"):
        symbol = f"grpc.reflection.{version}.ServerReflection"
        (response,) = ask(channel, Request(file_containing_symbol=symbol))
        (file,) = files(response)
        described.append(file)
    v1, v1alpha = described
    expected = FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    assert v1alpha == expected
    text = str(expected).replace("grpc_reflection/v1alpha/", "grpc/reflection/v1/")
    text = text.replace("v1alpha", "v1").replace("  deprecated: true\n", "")
    assert str(v1) == text


def test_health_is_described_as_it_is_shipped(channel: grpc.Channel) -> None:
    """The built-in services are described by the files that their packages bring."""
    (response,) = ask(channel, Request(file_containing_symbol="grpc.health.v1.Health"))
    (data,) = response.file_descriptor_response.file_descriptor_proto
    assert data == health_pb2.DESCRIPTOR.serialized_pb


# ---- large answers


def _large(comment: int) -> FileDescriptorSet:
    """main.proto and six files that it imports in a chain, each with a comment of that length."""
    result = FileDescriptorSet()
    for number in range(6, 0, -1):
        file = result.file.add(name=f"{number}.proto", package="large", syntax="proto3")
        file.message_type.add(name=f"M{number}")
        file.source_code_info.location.add(path=[4, 0], span=[0, 0, 0]).leading_comments = (
            f"{number}" * comment
        )
        if number < 6:
            file.dependency.append(f"{number + 1}.proto")
    main = result.file.add(name="main.proto", package="large", syntax="proto3")
    main.dependency.append("1.proto")
    main.service.add(name="S").method.add(
        name="Do", input_type=".large.M1", output_type=".large.M1"
    )
    return result


def test_an_answer_is_no_larger_than_clients_take(serve: Serve) -> None:
    """Of a large tree an answer holds what fits in 4 MiB; the rest is there by name."""
    tree = _large(1 << 20)
    with serve(App(tree)) as client:
        asked = [Request(file_containing_symbol="large.S")]
        asked += [Request(file_by_filename=f"{number}.proto") for number in (3, 4, 6)]
        responses = ask(client.channel, *asked)  # the limit of this channel is the default
    assert [names(response) for response in responses] == [
        ["main.proto", "1.proto", "2.proto"],
        ["3.proto", "4.proto"],
        ["4.proto", "5.proto"],
        ["6.proto"],
    ]
    sent = {file.name: file for response in responses for file in files(response)}
    assert sent == {file.name: file for file in tree.file}


def test_a_client_builds_a_large_tree(serve: Serve) -> None:
    """A client that asks for what it lacks gets a tree whose files do not fit in one answer."""
    with serve(App(_large(1 << 20))) as client:
        database: Any = ProtoReflectionDescriptorDatabase(client.channel)
        pool: Any = DescriptorPool(database)
        pool.FindServiceByName("large.S")
        assert pool.FindFileByName("6.proto").package == "large"


def test_a_file_that_is_too_large_comes_without_its_comments(serve: Serve) -> None:
    """A single file that no client would take is sent without comments, which may make it fit."""
    tree = _large(5 << 20)
    with serve(App(tree)) as client:
        (response,) = ask(client.channel, Request(file_containing_symbol="large.S"))
    for file in tree.file:
        file.ClearField("source_code_info")
    assert files(response) == list(reversed(tree.file))


# ---- several schemas, replaced schemas, none


def _clashing(word: str, number: int) -> FileDescriptorSet:
    """A service in a file of its own, that imports a file named as in every other schema."""
    result = FileDescriptorSet()
    common = result.file.add(name="common.proto", package="common", syntax="proto3")
    common.message_type.add(name="Thing").field.add(
        name=word, json_name=word, number=number, type=9, label=1
    )
    file = result.file.add(name=f"{word}.proto", package=word, syntax="proto3")
    file.dependency.append("common.proto")
    file.service.add(name="S").method.add(
        name="Do", input_type=".common.Thing", output_type=".common.Thing"
    )
    return result


def _mounted(*sets: FileDescriptorSet) -> App:
    root = App()
    for one in sets:
        root.mount(App(one))
    return root


def test_schemas_with_clashing_files(serve: Serve) -> None:
    """Of files with one name and other content, both reach the clients that need them."""
    one, two = _clashing("one", 1), _clashing("two", 2)
    with serve(_mounted(one, two)) as client:
        asked = [Request(file_containing_symbol=name) for name in ("one.S", "two.S.Do")]
        asked.append(Request(file_by_filename="common.proto"))
        asked.append(Request(file_by_filename="schema_2/common.proto"))
        first, second, own, renamed = ask(client.channel, *asked)
    assert files(first) == [one.file[1], one.file[0]]
    two.file[0].name = two.file[1].dependency[0] = "schema_2/common.proto"
    assert files(second) == [two.file[1], two.file[0]]
    assert files(own) == [one.file[0]]
    assert files(renamed) == [two.file[0]]


def test_clients_of_clashing_schemas(serve: Serve) -> None:
    """A client of either service builds it with the types of its own schema."""
    fields = {}
    with serve(_mounted(_clashing("one", 1), _clashing("two", 2))) as client:
        for word in ("one", "two"):
            pool: Any = DescriptorPool(ProtoReflectionDescriptorDatabase(client.channel))
            method = pool.FindServiceByName(f"{word}.S").methods_by_name["Do"]
            fields[word] = [(field.name, field.number) for field in method.input_type.fields]
    assert fields == {"one": [("one", 1)], "two": [("two", 2)]}


def test_schemas_with_files_in_common(serve: Serve) -> None:
    """A file that several schemas have is one file, so one client can hold all services."""
    texts = [
        f"""syntax = "proto3"; package {word};
        import "google/protobuf/timestamp.proto"; import "google/rpc/status.proto";
        message M {{ google.protobuf.Timestamp at = 1; google.rpc.Status status = 2; }}
        service S {{ rpc Do(M) returns (M); }}"""
        for word in ("one", "two")
    ]
    root = App()
    for text in texts:
        root.mount(App(text))
    with serve(root) as client:
        asked = [Request(file_containing_symbol=f"{word}.S") for word in ("one", "two")]
        first, second = ask(client.channel, *asked)
        pool: Any = DescriptorPool(ProtoReflectionDescriptorDatabase(client.channel))
        pool.FindServiceByName("one.S")
        pool.FindServiceByName("two.S")
    assert len(files(first)) == 4
    assert len(files(second)) == 1


def test_routes_that_are_replaced() -> None:
    """A new stream is told of the new routes; one that was open before, of what it started with."""

    async def main() -> None:
        old, new = _clashing("old", 1), _clashing("new", 2)
        async with (
            App(old).server("127.0.0.1:0") as server,
            grpc.aio.insecure_channel(server.addresses[0]) as channel,
        ):
            symbols = [Request(file_containing_symbol=f"{word}.S") for word in ("old", "new")]

            async def answers(call: Any) -> list[list[str]]:
                found = []
                for request in symbols:
                    await call.write(request.SerializeToString())
                    found.append(names(Response.FromString(await call.read())))
                return found

            before: Any = channel.stream_stream(V1)()
            await before.write(Request(list_services="").SerializeToString())
            await before.read()
            await server.replace(App(new))
            assert await answers(channel.stream_stream(V1)()) == [[], ["new.proto", "common.proto"]]
            assert await answers(before) == [["old.proto", "common.proto"], []]

    asyncio.run(asyncio.wait_for(main(), 30))


def test_stop_lets_idle_streams_go() -> None:
    """An idle stream does not use up the grace of stop(), and is told to come back."""

    async def main() -> None:
        async with (
            App(_clashing("one", 1)).server("127.0.0.1:0") as server,
            grpc.aio.insecure_channel(server.addresses[0]) as channel,
        ):
            calls: list[Any] = [channel.stream_stream(path)() for path in (V1, V1ALPHA)]
            for call in calls:
                await call.write(Request(list_services="").SerializeToString())
                await call.read()
            await asyncio.wait_for(server.stop(grace=600), 10)
            for call in calls:
                status = await call.code(), await call.details()
                assert status == (grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_client_that_goes_away() -> None:
    """Streams that clients cancel leave nothing behind in the server."""

    async def main() -> None:
        async with (
            App(_clashing("one", 1)).server("127.0.0.1:0") as server,
            grpc.aio.insecure_channel(server.addresses[0]) as channel,
        ):
            calls: list[Any] = [channel.stream_stream(V1)() for _ in range(20)]
            for call in calls:
                await call.write(Request(list_services="").SerializeToString())
                await call.read()
            waiting = list(server._drain._waiting)
            assert len(waiting) == 20
            for call in calls:
                call.cancel()
            await asyncio.wait(waiting)
            assert not server._drain._waiting

    asyncio.run(asyncio.wait_for(main(), 30))


def test_reflection_off(serve: Serve) -> None:
    """Without reflection nothing can be discovered, and no file is given away."""
    with serve(App(_clashing("one", 1)), reflection=False) as client:
        for path in (V1, V1ALPHA):
            call: Any = client.channel.stream_stream(path)
            with pytest.raises(grpc.RpcError) as caught:
                list(call(iter([b""]), timeout=10))
            error: Any = caught.value
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED
