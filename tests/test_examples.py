"""The examples: their wire contracts, what they answer, and what their READMEs say."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

import grpc
import pytest

from dynserve import App, Kind, Schema
from dynserve.method import MethodInfo
from tests.running import ROOT, output_of, running

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*/") if (path / "plugin.py").exists())
NAMES = ["chat", "greeter", "numbers", "route_guide", "sums"]

UNARY, DOWN = Kind.UNARY_UNARY, Kind.UNARY_STREAM
UP, BOTH = Kind.STREAM_UNARY, Kind.STREAM_STREAM


def test_all_examples_are_here() -> None:
    """Each example is a plugin folder with a README."""
    assert [path.name for path in EXAMPLES] == NAMES
    assert all((path / "README.md").is_file() for path in EXAMPLES)


# ---- the wire contracts, which are those of public tutorials

SERVICES: dict[str, dict[str, tuple[Kind, str, str]]] = {
    "routeguide.RouteGuide": {
        "GetFeature": (UNARY, "routeguide.Point", "routeguide.Feature"),
        "ListFeatures": (DOWN, "routeguide.Rectangle", "routeguide.Feature"),
        "RecordRoute": (UP, "routeguide.Point", "routeguide.RouteSummary"),
        "RouteChat": (BOTH, "routeguide.RouteNote", "routeguide.RouteNote"),
    },
    "helloworld.Greeter": {
        "SayHello": (UNARY, "helloworld.HelloRequest", "helloworld.HelloReply"),
        "SayHelloAgain": (UNARY, "helloworld.HelloRequest", "helloworld.HelloReply"),
    },
    "number_stream.NumberService": {
        "GetNumbers": (DOWN, "number_stream.NumberRequest", "number_stream.NumberResponse"),
    },
    "sum_stream.SumService": {
        "CalculateSum": (UP, "sum_stream.NumberRequest", "sum_stream.SumResponse"),
    },
    "chat.ChatService": {"Chat": (BOTH, "chat.ChatRequest", "chat.ChatResponse")},
}

MESSAGES = {
    "routeguide.Point": ["int32 latitude = 1", "int32 longitude = 2"],
    "routeguide.Rectangle": ["routeguide.Point lo = 1", "routeguide.Point hi = 2"],
    "routeguide.Feature": ["string name = 1", "routeguide.Point location = 2"],
    "routeguide.RouteNote": ["routeguide.Point location = 1", "string message = 2"],
    "routeguide.RouteSummary": [
        "int32 point_count = 1",
        "int32 feature_count = 2",
        "int32 distance = 3",
        "int32 elapsed_time = 4",
    ],
    "helloworld.HelloRequest": ["string name = 1"],
    "helloworld.HelloReply": ["string message = 1"],
    "number_stream.NumberRequest": ["int32 limit = 1"],
    "number_stream.NumberResponse": ["int32 number = 1"],
    "sum_stream.NumberRequest": ["int32 number = 1"],
    "sum_stream.SumResponse": ["int32 sum = 1"],
    "chat.ChatRequest": ["string message = 1"],
    "chat.ChatResponse": ["string message = 1"],
}


@pytest.fixture(scope="module")
def schema() -> Schema:
    """All protos of the examples."""
    return Schema.load(ROOT / "protos")


def test_services(schema: Schema) -> None:
    """Services, methods, their kinds and their types are those of the contract, and no others."""

    def contract(method: MethodInfo) -> tuple[Kind, str, str]:
        types: list[Any] = [method.request.DESCRIPTOR, method.response.DESCRIPTOR]
        return method.kind, types[0].full_name, types[1].full_name

    services = {name: schema.service(name).methods for name in schema.services}
    assert {
        name: {method: contract(info) for method, info in methods.items()}
        for name, methods in services.items()
    } == SERVICES


def test_messages(schema: Schema) -> None:
    """Fields, their types and their numbers are those of the contract, and no others."""
    types = {5: "int32", 9: "string"}

    def fields(name: str) -> list[str]:
        found: Any = schema.message(name).DESCRIPTOR.fields
        assert not any(field.is_repeated for field in found)
        return [
            f"{types.get(f.type) or f.message_type.full_name} {f.name} = {f.number}" for f in found
        ]

    messages = [name for name in schema.index.symbols() if name not in schema.services]
    assert {name: fields(name) for name in messages} == MESSAGES


def test_everything_is_documented(schema: Schema) -> None:
    """Every service, method, message and field has a comment, which reflection passes on."""
    for name in schema.services:
        service = schema.service(name)
        assert service.doc
        assert all(method.doc for method in service.methods.values())
        comments = schema.comments(service.file)
        for message, fields in MESSAGES.items():
            if message.startswith(name.rpartition(".")[0] + "."):
                assert comments[message]
                assert all(comments[f"{message}.{field.split()[1]}"] for field in fields)


# ---- what they answer: all in one server


@pytest.fixture(scope="module")
def address(engine: str) -> Iterator[str]:
    """The address of `dynserve run examples/*`."""
    with running(*(str(path.relative_to(ROOT)) for path in EXAMPLES)) as address:
        yield address


@pytest.fixture
def call(schema: Schema, address: str) -> Iterator[Callable[[str, Any], list[dict[str, Any]]]]:
    """``call("pkg.Service/Method", *requests)``: the responses, as dicts."""
    with grpc.insecure_channel(address) as channel:

        def run(path: str, *requests: dict[str, Any]) -> list[dict[str, Any]]:
            method = schema.method(path)
            data = [schema.convert(r, method.request).SerializeToString() for r in requests]
            invoke = getattr(channel, method.kind.name.lower())(method.path)
            answer = invoke(iter(data) if method.kind.request_streaming else data[0], timeout=20)
            responses = answer if method.kind.response_streaming else [answer]
            return [schema.to_dict(method.response.FromString(r)) for r in responses]

        yield run


@pytest.mark.real
@pytest.mark.parametrize(
    ("method", "requests", "responses"),
    [
        (
            "routeguide.RouteGuide/GetFeature",
            [{"latitude": 472275000, "longitude": 88156000}],
            [
                {
                    "name": "Rapperswil Castle",
                    "location": {"latitude": 472275000, "longitude": 88156000},
                }
            ],
        ),
        (
            "routeguide.RouteGuide/ListFeatures",
            [
                {
                    "lo": {"latitude": 472300000, "longitude": 88000000},
                    "hi": {"latitude": 472250000, "longitude": 88200000},
                }
            ],
            [
                {
                    "name": "Rapperswil Castle",
                    "location": {"latitude": 472275000, "longitude": 88156000},
                }
            ],
        ),
        (
            "routeguide.RouteGuide/RecordRoute",
            [{"latitude": 0, "longitude": 0}, {"latitude": 0, "longitude": 10_000_000}],
            [{"pointCount": 2, "distance": 111195}],
        ),
        (
            "routeguide.RouteGuide/RouteChat",
            [
                {"location": {"latitude": 7}, "message": "one"},
                {"location": {"latitude": 7}, "message": "two"},
            ],
            [{"location": {"latitude": 7}, "message": "one"}],
        ),
        ("helloworld.Greeter/SayHello", [{"name": "Ada"}], [{"message": "Hello, Ada!"}]),
        ("helloworld.Greeter/SayHelloAgain", [{"name": "Ada"}], [{"message": "Hello again, Ada!"}]),
        (
            "number_stream.NumberService/GetNumbers",
            [{"limit": 3}],
            [{}, {"number": 1}, {"number": 2}],
        ),
        ("sum_stream.SumService/CalculateSum", [{"number": 40}, {"number": 2}], [{"sum": 42}]),
        (
            "chat.ChatService/Chat",
            [{"message": "hello"}, {"message": ""}],
            [{"message": "You said: hello"}, {"message": "You said: "}],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_method_in_one_server(
    tool: Callable[[str], str],
    address: str,
    method: str,
    requests: list[dict[str, Any]],
    responses: list[dict[str, Any]],
) -> None:
    """All five examples in one server: grpcurl calls every method of each."""
    command = [tool("grpcurl"), "-plaintext", "-d", "".join(map(json.dumps, requests))]
    assert _json_values(output_of([*command, address, method])) == responses


def _json_values(text: str) -> list[Any]:
    values, position = [], 0
    while position < len(text):
        value, position = json.JSONDecoder().raw_decode(text, position)
        values.append(value)
        position += 1  # the newline
    return values


def _point(latitude: int, longitude: int) -> dict[str, int]:
    return {"latitude": latitude, "longitude": longitude}


Call = Callable[..., list[dict[str, Any]]]


def test_the_bytes_of_the_contract(address: str) -> None:
    """What is on the wire is the contract's, to the byte, for a client that knows no schema."""
    with grpc.insecure_channel(address) as channel:
        hello: Any = channel.unary_unary("/helloworld.Greeter/SayHello")
        assert hello(b"\n\x03Ada") == b"\n\x0bHello, Ada!"
        feature: Any = channel.unary_unary("/routeguide.RouteGuide/GetFeature")
        assert feature(b"\x08\x01\x10\x02") == b"\x12\x04\x08\x01\x10\x02"
        route: Any = channel.stream_unary("/routeguide.RouteGuide/RecordRoute")
        assert route(iter([b"\x10\x01", b"\x10\x02"])) == b"\x08\x02"


def test_no_feature_at_a_point(call: Call) -> None:
    """Where nothing is known the feature has an empty name and that location."""
    for point in (_point(1, 2), _point(0, 0), _point(-900000000, 1800000000)):
        (feature,) = call("routeguide.RouteGuide/GetFeature", point)
        location = {name: value for name, value in point.items() if value}
        assert feature == {"location": location}


def test_a_rectangle_of_any_corners(call: Call) -> None:
    """The corners of a rectangle come in any order, and its edges are in it."""
    low, high = 472071000, 472411000
    left, right = 87060000, 87220000
    found = [
        call("routeguide.RouteGuide/ListFeatures", {"lo": _point(*lo), "hi": _point(*hi)})
        for lo, hi in [
            ((low, left), (high, right)),
            ((high, right), (low, left)),
            ((low, right), (high, left)),
            ((high, left), (low, right)),
        ]
    ]
    assert [feature["name"] for feature in found[0]] == ["Stäfa", "Richterswil"]
    assert all(features == found[0] for features in found)


def test_all_features(call: Call) -> None:
    """The whole globe lists every feature of the file: real, named places, at least a hundred."""
    globe = {"lo": _point(-900000000, -1800000000), "hi": _point(900000000, 1800000000)}
    features = call("routeguide.RouteGuide/ListFeatures", globe)
    file = json.loads((ROOT / "examples/route_guide/features.json").read_text("utf-8"))
    for feature in features:
        feature["location"] = _point(0, 0) | feature["location"]  # zeros are left out
    assert features == file
    assert len({feature["name"] for feature in features}) == len(features) >= 100


def test_an_empty_route(call: Call) -> None:
    """A route of no points is a summary of zeros."""
    assert call("routeguide.RouteGuide/RecordRoute") == [{}]


def test_a_route_half_around_the_globe(call: Call) -> None:
    """Distance is that of the great circle: from pole to pole by the equator, 20,015 km."""
    points = [_point(900000000, 1), _point(0, 1), _point(-900000000, 1)]
    (summary,) = call("routeguide.RouteGuide/RecordRoute", *points)
    assert summary == {"point_count": 3, "distance": 20015087}


def test_a_place_that_is_passed_twice_counts_twice(call: Call) -> None:
    """Known places on the route are counted as often as they are passed."""
    castle = _point(472275000, 88156000)
    (summary,) = call("routeguide.RouteGuide/RecordRoute", castle, castle)
    assert summary == {"point_count": 2, "feature_count": 2}


def test_chat_is_answered_with_notes_of_every_user(call: Call) -> None:
    """Earlier notes at the location come back in order, whoever left them."""
    notes = [{"location": _point(5, 5), "message": text} for text in ("a", "b", "c")]
    assert call("routeguide.RouteGuide/RouteChat", notes[0]) == []
    assert call("routeguide.RouteGuide/RouteChat", notes[1]) == [notes[0]]
    assert call("routeguide.RouteGuide/RouteChat", notes[2]) == notes[:2]
    elsewhere = {"location": _point(5, 6), "message": "d"}
    assert call("routeguide.RouteGuide/RouteChat", elsewhere) == []


def test_chat_answers_at_once(schema: Schema, address: str) -> None:
    """A chat answers each message before it has the next."""
    method = schema.method("chat.ChatService/Chat")
    with grpc.insecure_channel(address) as channel:
        chat: Any = channel.stream_stream(
            method.path,
            request_serializer=lambda text: method.request(message=text).SerializeToString(),
            response_deserializer=lambda data: schema.to_dict(method.response.FromString(data)),
        )
        to_say: SimpleQueue[str | None] = SimpleQueue()
        answers = chat(iter(to_say.get, None), timeout=20)
        for text in ("one", "two", "three"):
            to_say.put(text)
            assert next(answers) == {"message": f"You said: {text}"}
        to_say.put(None)
        assert list(answers) == []


@pytest.mark.parametrize("limit", [0, -1, -(2**31)])
def test_no_numbers(call: Call, limit: int) -> None:
    """A limit of zero or less gives an empty stream."""
    assert call("number_stream.NumberService/GetNumbers", {"limit": limit}) == []


def test_numbers_are_made_as_they_are_read(address: str) -> None:
    """The largest limit takes no memory: a client may leave when it has had enough."""
    with grpc.insecure_channel(address) as channel:
        invoke: Any = channel.unary_stream("/number_stream.NumberService/GetNumbers")
        numbers = invoke(b"\x08\xff\xff\xff\xff\x07", timeout=20)
        assert [next(numbers) for _ in range(3)] == [b"", b"\x08\x01", b"\x08\x02"]
        numbers.cancel()


def test_sums(call: Call) -> None:
    """No numbers sum up to 0, negative ones count, and only the total has to fit."""
    path = "sum_stream.SumService/CalculateSum"
    assert call(path) == [{}]
    large = {"number": 2**31 - 1}
    assert call(path, large, large, {"number": -(2**31)}) == [{"sum": 2**31 - 2}]


@pytest.mark.parametrize(
    ("path", "requests", "code", "details"),
    [
        (
            "sum_stream.SumService/CalculateSum",
            [{"number": -(2**31)}, {"number": -1}],
            grpc.StatusCode.OUT_OF_RANGE,
            "the sum -2147483649 does not fit in an int32",
        ),
        (
            "routeguide.RouteGuide/RecordRoute",
            [_point(0, 0), _point(0, 1800000001)],
            grpc.StatusCode.INVALID_ARGUMENT,
            "point 2 is not on the globe: (latitude, longitude) is (0, 1800000001)",
        ),
        (
            "routeguide.RouteGuide/RecordRoute",
            [_point(900000000 * (-1) ** number, 0) for number in range(109)],
            grpc.StatusCode.OUT_OF_RANGE,
            "the distance, 2161629374 m, does not fit in an int32",
        ),
    ],
    ids=["sum", "globe", "distance"],
)
def test_refused(
    call: Call, path: str, requests: list[Any], code: grpc.StatusCode, details: str
) -> None:
    """What has no right answer is refused with a status that says why."""
    with pytest.raises(grpc.RpcError) as caught:
        call(path, *requests)
    error: Any = caught.value
    assert (error.code(), error.details()) == (code, details)


# ---- what the READMEs say

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN = re.compile(r"^    dynserve run (.*)$", re.MULTILINE)


def _commands(readme: str) -> list[tuple[str, str]]:
    """The commands that are shown, each with the output that is shown below it."""
    blocks = [block.removeprefix("$ ").partition("\n") for block in _BLOCK.findall(readme)]
    return [(command, output) for command, _, output in blocks]


def _readme(example: Path) -> tuple[str, list[tuple[str, str]]]:
    """What `dynserve run` is given, and the commands with their output."""
    readme = (example / "README.md").read_text("utf-8")
    commands = _commands(readme)
    assert readme.count("$ ") == len(commands)
    return _RUN.findall(readme)[0], commands


@pytest.mark.real
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_grpcurl_of_the_readme(tool: Callable[[str], str], example: Path) -> None:
    """The README's grpcurl commands print what it shows; each example runs by itself."""
    target, commands = _readme(example)
    assert target == f"examples/{example.name}"
    calls = [command for command in commands if command[0].startswith("grpcurl ")]
    assert calls
    with running(target) as address:
        for command, output in calls:
            program, *words = shlex.split(command)
            words = [address if word == "127.0.0.1:50051" else word for word in words]
            assert output_of([tool(program), *words]) == output, command


def test_the_links_of_the_readmes() -> None:
    """Every file that a README points to is there."""
    for example in EXAMPLES:
        links = re.findall(r"\]\((.*?)\)", (example / "README.md").read_text("utf-8"))
        assert links
        files = [link.partition("#")[0] for link in links]
        assert [file for file in files if not (example / file).exists()] == []


def test_the_change_that_the_greeter_suggests(serve: Callable[..., Any]) -> None:
    """The handler in the greeter's README works as it stands."""
    readme = (ROOT / "examples/greeter/README.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    app = App(ROOT / "protos" / "greeter.proto")
    exec(code, {"app": app, "Any": Any})
    with serve(app) as client:
        reply = client.call("helloworld.Greeter/SayHello", {"name": "Ada"})
    assert re.fullmatch(r"Hello, Ada! You call from ipv4:127\.0\.0\.1:\d+\.", reply.message)


# ---- the clients


DEFAULT = "localhost:50051"
OVER_TLS = "client_tls.py"
NO_CERTIFICATE = "ca: server.crt: No such file or directory\n"
CLIENTS = sorted(path for example in EXAMPLES for path in example.glob("client*.py"))


class Ended(NamedTuple):
    """How a client ended."""

    code: int
    output: str
    errors: str


def _run(client: Path, *arguments: str, folder: Path = ROOT) -> Ended:
    """Run a client in a process of its own, where a warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(client), *arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def _run_all(*arguments: str, folder: Path = ROOT) -> dict[str, Ended]:
    """Run every client, all at the same time."""
    with ThreadPoolExecutor(len(CLIENTS)) as threads:
        ended = threads.map(lambda client: _run(client, *arguments, folder=folder), CLIENTS)
        return {_name(client): end for client, end in zip(CLIENTS, ended, strict=True)}


def _name(client: Path) -> str:
    return client.relative_to(ROOT).as_posix()


def _shown(example: Path) -> list[tuple[Path, list[str], str]]:
    """The clients that a README runs: the file, what is given after the address, the output."""
    found = []
    for command, output in _readme(example)[1]:
        program, script, *words = shlex.split(command)
        if program == "python":
            assert words[:1] in ([], [DEFAULT])
            found.append((ROOT / script, words[1:], output))
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_clients_of_the_readme(example: Path) -> None:
    """The README has every client, and run in its order each prints what it shows, no more."""
    shown = _shown(example)
    assert sorted(client for client, _, _ in shown) == sorted(example.glob("client*.py"))
    with running(_readme(example)[0]) as address:
        for client, arguments, output in shown:
            if client.name != OVER_TLS:
                assert _run(client, address, *arguments) == Ended(0, output, ""), client


def test_the_address_that_clients_call() -> None:
    """Without an argument a client calls what `dynserve run` listens on."""
    for client in CLIENTS:
        assert f'address: str = "{DEFAULT}"' in client.read_text("utf-8"), client


def test_another_route_each_time() -> None:
    """Without a seed the route is a random one."""
    client = ROOT / "examples/route_guide/client_future.py"
    with running("examples/route_guide") as address:
        first, second = (_run(client, address) for _ in range(2))
    assert (first.code, second.code, first.errors + second.errors) == (0, 0, "")
    assert first.output != second.output  # by chance they are the same once in billions of runs


@pytest.fixture
def certificate(tool: Callable[[str], str], tmp_path: Path) -> Path:
    """A folder with the key and the certificate that the greeter's README makes."""
    readme = (ROOT / "examples/greeter/README.md").read_text("utf-8")
    (command,) = re.findall(r"^    (openssl (?:.*\\\n)*.*)$", readme, re.MULTILINE)
    program, *words = shlex.split(command.replace("\\\n", " "))
    subprocess.run([tool(program), *words], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@contextmanager
def _serving_tls(folder: Path) -> Iterator[str]:
    """The greeter's TLS server, started in a folder as its README says."""
    readme = (ROOT / "examples/greeter/README.md").read_text("utf-8")
    (command,) = re.findall(r"^    (python .*)$", readme, re.MULTILINE)
    _, *words = shlex.split(command)
    with subprocess.Popen(
        [sys.executable, *words, "localhost:0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},  # the README is at the top of the repository
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr
            said = ""  # by gRPC's core, maybe: one of the two addresses of localhost was taken
            for line in server.stderr:
                said += line
                if line.startswith("Listening on "):
                    break
            assert "\nListening on " in f"\n{said}", said
            yield said.split()[-1]
        finally:
            server.terminate()
            assert server.wait(30) == 0


@pytest.mark.real
def test_tls(certificate: Path) -> None:
    """The README's certificate, server and client make a connection; no client does without."""
    example = ROOT / "examples/greeter"
    ((client, _, output),) = [one for one in _shown(example) if one[0].name == OVER_TLS]
    with _serving_tls(certificate) as address:
        assert _run(client, address, folder=certificate) == Ended(0, output, "")
        in_the_clear = _run(example / "client.py", address)
    for code, output, errors in (in_the_clear, _run(client, address, folder=certificate)):
        assert re.fullmatch(r"UNAVAILABLE: .*\n", errors), errors
        assert (code, output) == (1, "")


def test_nobody_there(tmp_path: Path) -> None:
    """Where no server listens a client ends with 1 and one line that says so, no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        ended = _run_all(f"127.0.0.1:{taken.getsockname()[1]}", folder=tmp_path)
    assert len(ended) == len(CLIENTS)
    for name, (code, output, errors) in ended.items():
        expected = re.escape(NO_CERTIFICATE) if name.endswith(OVER_TLS) else r"UNAVAILABLE: .*\n"
        assert re.fullmatch(expected, errors), (name, errors)
        assert (name, code, output) == (name, 1, "")


def test_another_server(tmp_path: Path) -> None:
    """Where a server has another service a client ends with 1 and a line that says so."""
    other = App('syntax = "proto3"; package o; message M {} service O { rpc Do(M) returns (M); }')
    with other.server("127.0.0.1:0").in_thread() as server:
        ended = _run_all(server.addresses[0], folder=tmp_path)
        assert len(ended) == len(CLIENTS)
    services = {name.rpartition(".")[2].lower(): name for name in SERVICES}
    for name, end in ended.items():
        example = name.split("/")[1].replace("_", "").removesuffix("s")
        service = next(full for short, full in services.items() if short.startswith(example))
        expected = f"no service '{service}' on {server.addresses[0]}\n"
        if name.endswith(OVER_TLS):
            expected = NO_CERTIFICATE
        assert (name, end) == (name, Ended(1, "", expected))


def test_compression() -> None:
    """The client that compresses sends 30,000 characters in a tenth of the bytes."""
    with running("examples/greeter") as address, _relay(address) as (relayed, sizes):
        ended = _run(ROOT / "examples/greeter/client_compression.py", relayed)
    assert (ended.code, ended.errors) == (0, "")
    assert 0 < sum(sizes) < 3_000


@contextmanager
def _relay(address: str) -> Iterator[tuple[str, list[int]]]:
    """A connection to a server by a detour, and the sizes of what the client sent on it."""
    sizes: list[int] = []

    def copy(source: socket.socket, target: socket.socket, sizes: list[int]) -> None:
        with contextlib.suppress(OSError):  # who ends first may leave something unread
            while data := source.recv(65536):
                sizes.append(len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        client, _ = listener.accept()
        host, _, port = address.rpartition(":")
        with client, socket.create_connection((host, int(port))) as server:
            back = Thread(target=copy, args=(server, client, []))
            back.start()
            copy(client, server, sizes)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", sizes
        thread.join()
