"""The schema that a server's reflection tells: what is asked, and what is made of the answers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionResponse

import dynserve
from dynserve import DescriptorError, Kind, ReflectionError, StatusError, SymbolError
from dynserve.schema.contents import unknown_contents
from dynserve.testing import serve
from tests.client.fake_reflection import FakeReflection, compiled
from tests.client.worlds import World, every_world

SHOP = {
    "shop/service.proto": """
        syntax = "proto3";
        package shop;
        import "shop/order.proto";
        // Takes orders.
        service Shop { rpc Buy(Order) returns (stream Receipt); }
        service Idle { rpc Wait(Nothing) returns (Nothing); }
        message Receipt { string text = 1; }
        message Nothing {}
    """,
    "shop/order.proto": """
        syntax = "proto2";
        package shop;
        import public "shop/item.proto";
        import "google/protobuf/timestamp.proto";
        message Order {
          repeated Item items = 1;
          optional google.protobuf.Timestamp at = 2;
          optional Colour colour = 3;
          map<string, int32> gift_counts = 4;
          extensions 100 to 200;
        }
    """,
    "shop/item.proto": """
        syntax = "proto2";
        package shop;
        message Item { optional string name = 1; message Size { optional int32 cm = 1; } }
        enum Colour { RED = 7; }
    """,
    "shop/gift.proto": """
        syntax = "proto2";
        package shop;
        import "shop/order.proto";
        message Gift { optional string to = 1; }
        extend Order { optional Gift gift = 100; }
    """,
    "other.proto": """
        syntax = "proto3";
        package other;
        service Other { rpc Do(Thing) returns (Thing); }
        message Thing { int32 x = 1; }
    """,
}


def within(world: World, target: str, body: Callable[[Any, Any], Any], **options: Any) -> Any:
    """Run ``await body(client, do)``, where ``do`` waits for what the client of the loop returns,
    and passes on what the sync one does."""

    async def do(value: Any) -> Any:
        return await value if world == "async" else value

    async def main() -> Any:
        if world == "sync":
            with dynserve.connect(target, **options) as client:
                return await body(client, do)
        async with dynserve.aio.connect(target, **options) as async_client:
            return await body(async_client, do)

    return asyncio.run(asyncio.wait_for(main(), 30))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the client logged."""
    return [one.getMessage() for one in caplog.records if one.name == "dynserve.client"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shop's descriptors by file name."""
    return compiled(tmp_path_factory.mktemp("shop"), SHOP)


@every_world
def test_a_service_is_asked_for_with_all_that_it_needs(
    world: World, files: dict[str, bytes]
) -> None:
    """Its file, what that imports, the extensions of its types; nothing twice, nothing else."""
    fake = FakeReflection(files)

    async def body(client: Any, do: Any) -> Any:
        stub = await do(client.service("shop.Shop"))
        before = list(fake.asked)
        await do(client.service("shop.Shop"))
        await do(client.method("shop.Shop/Buy"))
        schema = client.schema
        assert fake.asked == before
        return dir(stub), stub.Buy.info.kind, list(schema.index.files), schema

    with fake.serving() as target:
        methods, kind, names, schema = within(world, target, body)
    assert (methods, kind) == (["Buy"], Kind.UNARY_STREAM)
    assert fake.asked == [
        "file_containing_symbol shop.Shop",
        "file_by_filename shop/order.proto",
        "file_by_filename shop/item.proto",
        "file_by_filename google/protobuf/timestamp.proto",
        "all_extension_numbers_of_type shop.Order",
        "file_containing_extension shop.Order 100",
    ]
    assert names == [
        "shop/item.proto",
        "google/protobuf/timestamp.proto",
        "shop/order.proto",
        "shop/service.proto",
        "shop/gift.proto",
    ]
    order = schema.message("shop.Order")(items=[{"name": "x"}])
    order.Extensions[schema.extension("shop.gift")].to = "you"
    parsed = schema.message("shop.Order").FromString(order.SerializeToString())
    assert parsed.Extensions[schema.extension("shop.gift")].to == "you"
    assert schema.service("shop.Shop").doc == "Takes orders."


@every_world
def test_the_next_service_asks_for_what_is_new(world: World, files: dict[str, bytes]) -> None:
    """What one service brought is not asked for again by another."""
    fake = FakeReflection(files)

    async def body(client: Any, do: Any) -> Any:
        await do(client.service("shop.Shop"))
        fake.asked.clear()
        await do(client.load("shop.Item.Size", "other.Other"))
        return client.schema.message("shop.Item.Size")(cm=3).cm

    with fake.serving() as target:
        assert within(world, target, body) == 3
    assert fake.asked == [
        "file_containing_symbol shop.Item.Size",
        "file_containing_symbol other.Other",
    ]


@every_world
@pytest.mark.parametrize("versions", [("v1",), ("v1alpha",), ("v1", "v1alpha")], ids="-".join)
def test_either_version_of_the_protocol_will_do(
    world: World, versions: tuple[str, ...], files: dict[str, bytes]
) -> None:
    """v1 is tried first; a server that has only v1alpha is asked in that from then on."""
    fake = FakeReflection(files, versions)

    async def body(client: Any, do: Any) -> Any:
        await do(client.service("other.Other"))
        return await do(client.services())

    with fake.serving() as target:
        assert within(world, target, body) == ("other.Other", "shop.Idle", "shop.Shop")


@every_world
def test_a_server_without_reflection_is_named(world: World) -> None:
    """The error says what to give instead."""

    async def body(client: Any, do: Any) -> Any:
        with pytest.raises(ReflectionError) as caught:
            await do(client.service("a.B"))
        return str(caught.value)

    with FakeReflection({}, ()).serving() as target:
        text = within(world, target, body)
    assert text == f"{target}: serves no reflection; name the .proto files, too"


@every_world
def test_an_unknown_name_has_its_nearest(world: World, files: dict[str, bytes]) -> None:
    """Of a service, of a method, of a symbol, of what is no path."""

    async def body(client: Any, do: Any) -> Any:
        found = []
        for ask, name in (
            (client.service, "shop.Shopp"),
            (client.method, "shop.Shop/Buyy"),
            (client.load, "nothing"),
            (client.method, "Shop"),
        ):
            with pytest.raises(SymbolError) as caught:
                await do(ask(name))
            found.append(str(caught.value))
        return found

    with FakeReflection(files).serving() as target:
        assert within(world, target, body) == [
            f"no service 'shop.Shopp' on {target}; did you mean 'shop.Shop'?",
            "no method 'shop.Shop/Buyy' in the schema; did you mean 'shop.Shop/Buy'?",
            f"no symbol 'nothing' on {target}",
            "no method 'Shop' (expected pkg.Service/Method)",
        ]


def without(files: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name not in names}


@every_world
def test_a_missing_type_spoils_only_what_needs_it(
    world: World, files: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Methods of missing types are refused by name; the rest of the same file works, and what is in
    a field of a missing type is kept as it came."""
    missing = without(files, "shop/order.proto", "shop/gift.proto")

    async def body(client: Any, do: Any) -> Any:
        await do(client.load("shop.Idle"))
        idle = await do(client.method("shop.Idle/Wait"))
        with pytest.raises(DescriptorError) as caught:
            await do(client.method("shop.Shop/Buy"))
        return repr(idle), str(caught.value)

    fake, level = FakeReflection(missing), caplog.at_level(logging.WARNING, "dynserve.client")
    with fake.serving() as target, level:
        idle, text = within(world, target, body)
    lost = f"{target} does not tell of 'shop/order.proto'"
    assert idle == "<method shop.Idle/Wait: unary-unary>"
    assert text == f"shop.Shop/Buy: needs shop.Order, but {lost}"
    assert said(caplog) == [f"{lost}: fields of the types shop.Order stay encoded"]


@every_world
def test_fields_of_missing_types_keep_what_they_hold(world: World, files: dict[str, bytes]) -> None:
    """Messages and enums of a file that nobody has pass through unharmed, nested ones too."""
    missing = without(files, "shop/item.proto", "shop/gift.proto")

    async def body(client: Any, do: Any) -> Any:
        await do(client.service("shop.Shop"))
        return client.schema.message("shop.Order")

    with FakeReflection(missing).serving() as target:
        order = within(world, target, body)
    data = bytes.fromhex("0a030a0178") + bytes.fromhex("1807")  # items {name: "x"}, colour 7
    parsed = order.FromString(data)
    assert (len(parsed.items), parsed.colour, parsed.SerializeToString()) == (1, 7, data)


@every_world
def test_a_file_may_be_known_by_another_name(world: World, files: dict[str, bytes]) -> None:
    """Where an import is not found by its name, its types are asked for by theirs."""
    moved = FileDescriptorProto.FromString(files["shop/item.proto"])
    moved.name = "elsewhere/item.proto"
    other = {**without(files, "shop/item.proto"), moved.name: moved.SerializeToString()}

    async def body(client: Any, do: Any) -> Any:
        stub = await do(client.service("shop.Shop"))
        return client.schema.convert({"items": [{"name": "x"}]}, stub.Buy.info.request)

    with FakeReflection(other).serving() as target:
        assert within(world, target, body).items[0].name == "x"


@every_world
def test_well_known_files_need_not_be_told(world: World, files: dict[str, bytes]) -> None:
    """What is installed here stands in for what a server leaves out."""
    fewer = without(files, "google/protobuf/timestamp.proto")

    async def body(client: Any, do: Any) -> Any:
        stub = await do(client.service("shop.Shop"))
        return client.schema.convert({"at": "1970-01-01T00:00:01Z"}, stub.Buy.info.request)

    with FakeReflection(fewer).serving() as target:
        assert within(world, target, body).at.seconds == 1


@every_world
@pytest.mark.parametrize("how", ["in band", "with a status"])
def test_extensions_that_are_not_told_are_done_without(
    world: World, how: str, files: dict[str, bytes]
) -> None:
    """Many servers answer no question about extensions; the rest is there all the same."""

    def change(request: Any, answer: Any) -> None:
        if request.WhichOneof("message_request") == "all_extension_numbers_of_type":
            if how == "with a status":
                raise RuntimeError("not here")
            answer.ClearField("all_extension_numbers_response")
            answer.error_response.error_code = 12

    async def body(client: Any, do: Any) -> Any:
        return repr(await do(client.method("shop.Shop/Buy")))

    with FakeReflection(files, change=change).serving() as target:
        assert within(world, target, body) == "<method shop.Shop/Buy: unary-stream>"


@every_world
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("empty", "its reflection answers with no file"),
        ("refuse", "its reflection refuses to answer: not allowed"),
        ("garbage", "its reflection answers in no known form: Error parsing message"),
    ],
)
def test_answers_that_make_no_sense_are_errors(
    world: World, change: str, text: str, files: dict[str, bytes]
) -> None:
    """A server that answers with nothing, refuses, or sends what is no descriptor."""

    def changed(request: Any, answer: Any) -> None:
        kind = request.WhichOneof("message_request")
        if change == "empty" and kind == "file_containing_symbol":
            answer.file_descriptor_response.ClearField("file_descriptor_proto")
            answer.file_descriptor_response.SetInParent()
        if change == "refuse":
            answer.error_response.error_code = 7
            answer.error_response.error_message = "not allowed"
        if change == "garbage" and kind == "file_containing_symbol":
            answer.file_descriptor_response.file_descriptor_proto[:] = [b"\xff\xff"]

    async def body(client: Any, do: Any) -> Any:
        with pytest.raises((ReflectionError, DescriptorError)) as caught:
            await do(client.service("shop.Shop"))
        return str(caught.value)

    with FakeReflection(files, change=changed).serving() as target:
        said = within(world, target, body)
    assert text in said


@every_world
def test_a_stream_that_ends_early_is_an_error(world: World, files: dict[str, bytes]) -> None:
    """A server that ends the stream with OK in place of an answer."""

    class Deaf(FakeReflection):
        def _answers(self, requests: Any, context: Any) -> Any:
            next(requests)
            yield from ()

    async def body(client: Any, do: Any) -> Any:
        with pytest.raises(ReflectionError) as caught:
            await do(client.services())
        return str(caught.value)

    with Deaf(files).serving() as target:
        text = within(world, target, body)
    assert text == f"{target}: ended the stream of its reflection"


@every_world
def test_reflection_has_a_deadline_and_metadata_of_its_own(
    world: World, files: dict[str, bytes]
) -> None:
    """A server that does not answer is not waited for; headers for reflection go nowhere else."""
    over = threading.Event()

    def wait(_: Any, __: Any) -> None:
        over.wait(20)

    async def body(client: Any, do: Any) -> Any:
        with pytest.raises(StatusError) as caught:
            await do(client.services())
        return caught.value.code()

    fake = FakeReflection(files, change=wait)
    with fake.serving() as target:
        code = within(
            world,
            target,
            body,
            metadata={"a": "1"},
            reflection_metadata={"b": "2"},
            reflection_timeout=0.2,
        )
        over.set()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (fake.metadata[0]["a"], fake.metadata[0]["b"]) == ("1", "2")


@every_world
def test_one_service_of_many_is_fetched_alone(world: World, tmp_path: Path) -> None:
    """Of 1,700 services in 1,700 files one is asked for, and its import; not the others."""
    sources = {
        f"s{number}.proto": f"""
            syntax = "proto3";
            package many;
            import "common.proto";
            message Request{number} {{ Common common = 1; }}
            service Service{number} {{ rpc Do(Request{number}) returns (Common); }}
        """
        for number in range(1700)
    }
    common = 'syntax = "proto3"; package many; message Common { int32 x = 1; }'
    fake = FakeReflection(compiled(tmp_path, {**sources, "common.proto": common}))

    async def body(client: Any, do: Any) -> Any:
        stub = await do(client.service("many.Service1234"))
        return dir(stub), list(client.schema.index.files)

    with fake.serving() as target:
        methods, names = within(world, target, body)
    assert (methods, names) == (["Do"], ["common.proto", "s1234.proto"])
    assert fake.asked == [
        "file_containing_symbol many.Service1234",
        "file_by_filename common.proto",
    ]


@every_world
def test_many_ask_at_once(world: World, files: dict[str, bytes]) -> None:
    """Threads, or tasks, that need the same service at the same time ask for it once."""
    fake = FakeReflection(files)

    async def many(client: Any, do: Any) -> Any:
        if world == "async":
            stubs = await asyncio.gather(*(client.service("shop.Shop") for _ in range(8)))
        else:
            threads = [asyncio.to_thread(client.service, "shop.Shop") for _ in range(8)]
            stubs = await asyncio.gather(*threads)
        return {repr(stub) for stub in stubs}

    with fake.serving() as target:
        assert within(world, target, many) == {"<Stub shop.Shop: Buy>"}
    assert len(fake.asked) == 6


ANY = """
    syntax = "proto3";
    package box;
    import "google/protobuf/any.proto";
    message Box {
      google.protobuf.Any one = 1;
      repeated google.protobuf.Any more = 2;
      map<string, google.protobuf.Any> named = 3;
      map<string, int32> counts = 4;
      Box inner = 5;
    }
    service Boxes { rpc Get(Box) returns (Box); }
"""


@every_world
def test_what_any_holds_is_asked_for(
    world: World, files: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever an Any is in a message, its type is fetched; nothing is shown of one that the server
    does not have either."""
    fake = FakeReflection({**files, **compiled(tmp_path, {"box.proto": ANY})})

    async def body(client: Any, do: Any) -> Any:
        box = (await do(client.method("box.Boxes/Get"))).info.response()
        box.counts["a"] = 1
        box.one.type_url = "type.googleapis.com/other.Thing"
        box.one.value = b"\x08\x05"
        box.more.add(type_url="t/shop.Item", value=b"\x0a\x01x")
        box.more.add()
        box.more.add(type_url="t/shop.Item", value=b"\xff")
        box.named["n"].type_url = "t/not.There"
        box.named["n"].value = b"\x08\x05"
        inner = type(box)()
        inner.inner.one.type_url = "t/other.Thing"
        box.inner.one.type_url = "t/box.Box"
        box.inner.one.value = inner.SerializeToString()
        await do(client.load_contents(box))
        box.more.pop()  # which cannot be parsed
        return client.schema.to_dict(box, allow_unknown_any=True)

    with fake.serving() as target, caplog.at_level(logging.WARNING, "dynserve.client"):
        form = within(world, target, body)
    assert form == {
        "one": {"@type": "type.googleapis.com/other.Thing", "x": 5},
        "more": [{"@type": "t/shop.Item", "name": "x"}, {}],
        "named": {"n": {"@type": "t/not.There"}},
        "counts": {"a": 1},
        "inner": {"one": {"@type": "t/box.Box", "inner": {"one": {"@type": "t/other.Thing"}}}},
    }
    assert said(caplog) == [f"{target} does not tell of not.There: its content is not shown"]


@every_world
def test_dynserve_tells_a_client_all_that_it_serves(world: World) -> None:
    """Every service of a real server can be had, reflection and health with it."""
    app = dynserve.App(SHOP["other.proto"])
    with serve(app) as real:

        async def body(client: Any, do: Any) -> Any:
            names = await do(client.services())
            for name in names:
                await do(client.service(name))
            return names

        assert within(world, real.target, body) == (
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "other.Other",
        )


def as_on_node(files: dict[str, bytes]) -> dict[str, bytes]:
    """What @grpc/reflection tells: no imports, names without the leading dot, well-known types in a
    file of its own, with fields named as in JSON."""
    odd = {}
    for name, data in files.items():
        file = FileDescriptorProto.FromString(data)
        del file.dependency[:], file.public_dependency[:]
        for message in file.message_type:
            for field in message.field:
                if field.type_name:
                    field.type_name = field.type_name.removeprefix(".").removeprefix("shop.")
                if field.name == "gift_counts":
                    field.type_name = message.nested_type[0].name = "GiftCounts"
        if name.startswith("google/protobuf/"):
            file.name = f"google_protobuf_{name.rpartition('/')[2]}"
            file.message_type[0].field[0].name = "oddName"
        odd[file.name] = file.SerializeToString()
    return odd


@every_world
def test_files_that_do_not_say_what_they_import_are_linked(
    world: World, files: dict[str, bytes]
) -> None:
    """What declares a type is found by the type; well-known types are what they are here."""

    async def body(client: Any, do: Any) -> Any:
        stub = await do(client.service("shop.Shop"))
        value: dict[str, Any] = {"items": [{"name": "x"}], "colour": "RED"}
        value["at"] = "1970-01-01T00:00:01Z"
        value["gift_counts"] = {"a": 2}
        order = client.schema.convert(value, stub.Buy.info.request)
        assert order.gift_counts["a"] == 2
        return order.at.seconds, order.items[0].name, order.colour, list(client.schema.index.files)

    with FakeReflection(as_on_node(files)).serving() as target:
        assert within(world, target, body) == (
            1,
            "x",
            7,
            [
                "google/protobuf/timestamp.proto",
                "shop/item.proto",
                "shop/order.proto",
                "shop/service.proto",
                "shop/gift.proto",
            ],
        )


@every_world
def test_types_that_nobody_declares_are_named(
    world: World, files: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Also where no import is missing, for none is told of."""
    fewer = without(as_on_node(files), "shop/item.proto")

    async def body(client: Any, do: Any) -> Any:
        with caplog.at_level(logging.WARNING, "dynserve.client"):
            return dir(await do(client.service("shop.Shop")))

    with FakeReflection(fewer).serving() as target:
        assert within(world, target, body) == ["Buy"]
    assert said(caplog) == [
        f"{target} does not tell of their files: fields of the types Colour, Item stay encoded"
    ]


@every_world
def test_what_sources_do_not_declare_is_not_shown(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An Any of a type that is in no source keeps its name, and a warning is logged."""

    async def body(client: Any, do: Any) -> Any:
        box = (await do(client.method("box.Boxes/Get"))).info.response()
        box.one.type_url = "t/not.There"
        await do(client.load_contents(box))
        await do(client.load_contents(box))  # is silent the second time
        return client.schema.to_dict(box, allow_unknown_any=True)

    schema = dynserve.Schema.load(ANY)
    with caplog.at_level(logging.WARNING, "dynserve.client"):
        assert within(world, "localhost:1", body, schema=schema) == {
            "one": {"@type": "t/not.There"}
        }
    assert said(caplog) == ["the schema does not tell of not.There: its content is not shown"]


# ---- servers that are not as they should be


@every_world
def test_a_field_of_a_type_like_a_map_entry_is_left_alone(world: World) -> None:
    """Only what is the entry of a map of the message itself is named anew."""
    source = """
        syntax = "proto3"; package t;
        message LogEntry { int32 x = 1; }
        message M { repeated .t.LogEntry lines = 1; map<string, string> log = 2; }
        service S { rpc Do(M) returns (M); }
    """
    app = dynserve.App(source)
    app.rpc("t.S/Do")(lambda request: request)
    request = {"lines": [{"x": 5}], "log": {"a": "b"}}
    with serve(app) as real:

        async def body(client: Any, do: Any) -> Any:
            response = await do((await do(client.method("t.S/Do")))(request))
            return client.schema.to_dict(response)

        assert within(world, real.target, body) == request


class AsTonic(FakeReflection):
    """Ends the stream with NOT_FOUND for what it does not know, as tonic's reflection does."""

    def _answers(self, requests: Any, context: Any) -> Any:
        for request in requests:
            (data,) = super()._answers(iter([request]), context)
            if ServerReflectionResponse.FromString(data).HasField("error_response"):
                context.abort(grpc.StatusCode.NOT_FOUND, "not here")
            yield data


@every_world
def test_a_stream_that_ends_with_not_found_is_an_answer(
    world: World, files: dict[str, bytes]
) -> None:
    """What comes after it is asked for again; well-known files need not be told there either."""
    fewer = without(files, "google/protobuf/timestamp.proto")

    async def body(client: Any, do: Any) -> Any:
        stub = await do(client.service("shop.Shop"))
        with pytest.raises(SymbolError) as caught:
            await do(client.service("shop.Shopp"))
        await do(client.load("shop.Item.Size.cm"))
        order = client.schema.convert({"at": "1970-01-01T00:00:01Z"}, stub.Buy.info.request)
        return order.at.seconds, str(caught.value)

    with AsTonic(fewer).serving() as target:
        assert within(world, target, body) == (
            1,
            f"no service 'shop.Shopp' on {target}; did you mean 'shop.Shop'?",
        )


@every_world
@pytest.mark.parametrize("code", [7, 13], ids=["PERMISSION_DENIED", "INTERNAL"])
def test_what_is_not_told_is_not_what_is_not_there(
    world: World, code: int, files: dict[str, bytes]
) -> None:
    """An answer that refuses says why."""

    def change(_: Any, answer: Any) -> None:
        answer.error_response.error_code = code

    async def body(client: Any, do: Any) -> Any:
        with pytest.raises(ReflectionError) as caught:
            await do(client.service("shop.Shop"))
        return str(caught.value)

    with FakeReflection(files, change=change).serving() as target:
        said = within(world, target, body)
    assert said == f"{target}: its reflection refuses to answer: code {code}"


@every_world
def test_a_symbol_has_to_be_in_the_file_that_is_told(world: World, files: dict[str, bytes]) -> None:
    """What is part of nothing is not there, though the rest of its name is."""

    async def body(client: Any, do: Any) -> Any:
        await do(client.load("shop.Shop.Buy", "shop.Colour", "shop.Item.name", "shop.RED"))
        texts = []
        for name in ("shop.Shop.Bye", "shop.Item.Size.nope.deep"):
            with pytest.raises(SymbolError) as caught:
                await do(client.load(name))
            texts.append(str(caught.value))
        return texts

    with FakeReflection(files).serving() as target:
        first, second = within(world, target, body)
    assert first == f"no symbol 'shop.Shop.Bye' on {target}; did you mean 'shop.Shop.Buy'?"
    assert second.startswith(f"no symbol 'shop.Item.Size.nope.deep' on {target}")


@every_world
def test_a_server_that_has_changed_is_noticed(world: World, files: dict[str, bytes]) -> None:
    """A file that is not what it was is not mixed with what is known."""
    fake = FakeReflection(files)
    changed = FileDescriptorProto.FromString(files["other.proto"])
    changed.service.add(name="New")

    async def body(client: Any, do: Any) -> Any:
        await do(client.service("other.Other"))
        fake._files["other.proto"] = changed
        with pytest.raises(ReflectionError) as caught:
            await do(client.service("other.New"))
        return str(caught.value)

    with fake.serving() as target:
        text = within(world, target, body)
    assert text == (
        f"{target}: 'other.proto' is not what it was; the server has changed, connect anew"
    )


@every_world
def test_what_was_missing_may_come_later(world: World, files: dict[str, bytes]) -> None:
    """Nothing stands in any more for a type that another service brings; methods are made anew."""
    missing = without(files, "shop/item.proto", "shop/gift.proto")
    moved = FileDescriptorProto.FromString(files["shop/item.proto"])
    moved.name = "late.proto"
    moved.service.add(name="Late").method.add(
        name="Do", input_type=".shop.Item", output_type=".shop.Item"
    )
    fake = FakeReflection(missing)

    async def body(client: Any, do: Any) -> Any:
        before = await do(client.method("shop.Shop/Buy"))
        fake._files["late.proto"] = moved
        await do(client.service("shop.Late"))
        after = await do(client.method("shop.Shop/Buy"))
        order = client.schema.convert({"items": [{"name": "x"}]}, after.info.request)
        return before is after, order.items[0].name

    with fake.serving() as target:
        assert within(world, target, body) == (False, "x")


def chain(number: int) -> bytes:
    """A file that imports the next of an endless row."""
    file = FileDescriptorProto(name=f"f{number}.proto", package="e")
    file.dependency.append(f"f{number + 1}.proto")
    file.message_type.add(name=f"M{number}")
    return file.SerializeToString()


class Endless(FakeReflection):
    """Tells of files that import one more, without an end."""

    def _answer(self, request: Any, answer: Any) -> None:
        self.asked.append("")
        name = request.file_by_filename or "f0.proto"
        data = chain(int(name[1:].partition(".")[0]))
        answer.file_descriptor_response.file_descriptor_proto.append(data)


@every_world
def test_a_server_without_end_is_not_followed_for_ever(world: World) -> None:
    """One deadline holds for all that one thing leads to; another may be asked afterwards."""

    async def body(client: Any, do: Any) -> Any:
        codes = []
        for _ in range(2):
            with pytest.raises(StatusError) as caught:
                await do(client.load("e.M0"))
            codes.append(caught.value.code())
        return codes

    with Endless({}).serving() as target:
        codes = within(world, target, body, reflection_timeout=0.3)
    assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2


@every_world
def test_answers_that_nobody_asked_for_are_not_taken(world: World, files: dict[str, bytes]) -> None:
    """The stream is left when all is answered, though the server goes on, or never ends it."""
    ended = threading.Event()

    class Talkative(FakeReflection):
        def _answers(self, requests: Any, context: Any) -> Any:
            context.add_callback(ended.set)
            for data in super()._answers(requests, context):
                yield data
                yield data
            ended.wait(20)

    async def body(client: Any, do: Any) -> Any:
        return await do(client.services())

    with Talkative(files).serving() as target:
        assert within(world, target, body) == ("other.Other", "shop.Idle", "shop.Shop")
        assert ended.wait(20)


@every_world
def test_a_refusal_has_its_metadata(world: World, files: dict[str, bytes]) -> None:
    """What a server says beside its status, such as how to be let in."""

    class Locked(FakeReflection):
        def _answers(self, requests: Any, context: Any) -> Any:
            context.set_trailing_metadata([("www-authenticate", "Bearer")])
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who?")
            yield b""

    async def body(client: Any, do: Any) -> Any:
        with pytest.raises(StatusError) as caught:
            await do(client.services())
        return caught.value

    with Locked(files).serving() as target:
        error = within(world, target, body)
    assert str(error) == "UNAUTHENTICATED: who?"
    assert ("www-authenticate", "Bearer") in error.trailing_metadata()


@every_world
@pytest.mark.parametrize("name", [".x", "a b", "other.Other", "shop.Colour", "1x", "x."])
def test_odd_names_in_an_any_are_left(world: World, name: str, files: dict[str, bytes]) -> None:
    """What is no type is asked for once at most, and the rest of the message is shown."""
    any_files = files | {"google/protobuf/any.proto": any_pb2.DESCRIPTOR.serialized_pb}
    fake = FakeReflection(any_files)

    async def body(client: Any, do: Any) -> Any:
        await do(client.load("google.protobuf.Any"))
        holder = client.schema.message("google.protobuf.Any")(type_url=f"t/{name}")
        for _ in range(2):
            await do(client.load_contents(holder))
        return client.schema.to_dict(holder, allow_unknown_any=True)

    with fake.serving() as target:
        assert within(world, target, body) == {"@type": f"t/{name}"}
    assert len(fake.asked) < 15


def test_any_in_any_without_end_is_no_failure() -> None:
    """It is looked into as deep as it could be printed."""
    schema = dynserve.Schema.load(ANY)
    holder = schema.message("google.protobuf.Any")
    message = holder(type_url="t/not.There")
    for _ in range(3000):
        message = holder(type_url="t/google.protobuf.Any", value=message.SerializeToString())
    assert unknown_contents(message, schema) == []


def test_a_schema_of_the_users_own_is_not_added_to() -> None:
    """What a response holds changes nothing for others who have the schema."""
    schema = dynserve.Schema.load(ANY)
    before = list(schema.index.files)
    with dynserve.connect("localhost:1", schema=schema) as client:
        message = schema.message("box.Box")()
        message.one.type_url = "t/evil.Type"
        client.load_contents(message)
    assert list(schema.index.files) == before


@every_world
@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("MAX_BYTES", "its reflection tells more than can be taken"),
        ("MAX_STEPS", "its reflection tells more than can be taken"),
    ],
)
def test_what_a_server_tells_is_limited(
    world: World,
    limit: str,
    text: str,
    files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In bytes, and in steps from import to import."""
    monkeypatch.setattr(f"dynserve.client.found.{limit}", 0)
    service = FileDescriptorProto.FromString(files["shop/service.proto"])
    seen = service.message_type[0].field.add(name="item", number=9, label=1, type=11)
    seen.type_name = ".shop.Item"  # through a public import
    given = files | {service.name: service.SerializeToString()}

    async def body(client: Any, do: Any) -> Any:
        with pytest.raises(ReflectionError) as caught:
            await do(client.service("shop.Shop"))
        return str(caught.value)

    with FakeReflection(given).serving() as target:
        assert within(world, target, body) == f"{target}: {text}"


@every_world
@pytest.mark.parametrize("when", ["at first", "later"])
def test_answers_that_are_no_messages_are_errors(
    world: World, when: str, files: dict[str, bytes]
) -> None:
    """And one that the server has not implemented later is no reason to try an older version."""

    class Odd(FakeReflection):
        def _answers(self, requests: Any, context: Any) -> Any:
            if when == "at first":
                yield b"\xff"
            elif self.asked:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "no more")
            yield from super()._answers(requests, context)

    async def body(client: Any, do: Any) -> Any:
        with pytest.raises((ReflectionError, StatusError)) as caught:
            await do(client.service("shop.Shop"))
        return str(caught.value)

    with Odd(files).serving() as target:
        text = within(world, target, body)
    assert text.startswith(
        f"{target}: its reflection answers in no known form: "
        if when == "at first"
        else "UNIMPLEMENTED: no more"
    )
