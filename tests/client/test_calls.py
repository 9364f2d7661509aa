"""Calls of all four kinds by both clients: requests, responses, metadata, errors."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import math
import queue
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

import dynserve
from dynserve import App, Kind, MessageError, StatusError
from dynserve.testing import serve
from tests.client.worlds import World, every_world, in_world
from tests.echo import PATHS, Item, app_with, numbers_of, request_for, schema

every_kind = pytest.mark.parametrize("kind", list(Kind), ids=str)
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def echo(kind: Kind) -> Any:
    """A handler that answers with what it gets; to a stream it answers with the sum, or each."""

    def unary(request: Any) -> Any:
        return request

    def down(request: Any) -> Iterator[Any]:
        for number in range(request.number):
            yield Item(number=number)

    def up(requests: Iterator[Any]) -> Any:
        return Item(number=sum(item.number for item in requests))

    def chat(requests: Iterator[Any]) -> Iterator[Any]:
        yield from requests

    handlers = {
        Kind.UNARY_UNARY: unary,
        Kind.UNARY_STREAM: down,
        Kind.STREAM_UNARY: up,
        Kind.STREAM_STREAM: chat,
    }
    return handlers[kind]


@every_world
@pytest.mark.parametrize(
    ("kind", "numbers", "expected"),
    [
        (Kind.UNARY_UNARY, [7], [7]),
        (Kind.UNARY_STREAM, [3], [0, 1, 2]),
        (Kind.UNARY_STREAM, [0], []),
        (Kind.STREAM_UNARY, [1, 2, 4], [7]),
        (Kind.STREAM_UNARY, [], [0]),
        (Kind.STREAM_STREAM, [5, 6], [5, 6]),
    ],
    ids=str,
)
def test_each_kind_is_called_as_it_is(
    world: World, kind: Kind, numbers: list[int], expected: list[int]
) -> None:
    """One response is returned, of a stream each; requests that are a stream come from a list."""
    response = in_world(world, app_with(echo(kind), kind), PATHS[kind], request_for(kind, *numbers))
    assert numbers_of(response) == expected


@dataclasses.dataclass
class Given:
    number: int


@every_world
@pytest.mark.parametrize(
    ("given", "fields", "expected"),
    [
        ((Item(number=1),), {}, 1),
        (({"number": 2},), {}, 2),
        ((Given(3),), {}, 3),
        ((), {"number": 4, "text": "t"}, 4),
        ((), {}, 0),
        ((None,), {}, 0),
    ],
    ids=["message", "dict", "dataclass", "fields", "nothing", "none"],
)
def test_a_request_is_a_message_or_becomes_one(
    world: World, given: tuple[Any, ...], fields: dict[str, Any], expected: int
) -> None:
    """A message, a dict, a dataclass, its fields by name, or nothing for an empty one."""
    app = app_with(echo(Kind.UNARY_UNARY), Kind.UNARY_UNARY)
    assert in_world(world, app, "echo.Echo/Unary", *given, **fields).number == expected


async def counted() -> AsyncIterator[Any]:
    for number in (1, 2):
        yield {"number": number}


@pytest.mark.parametrize(
    ("world", "requests"),
    [
        ("sync", [{"number": 1}, Item(number=2)]),
        ("sync", ({"number": n} for n in (1, 2))),
        ("sync", iter([Item(number=3)])),
        ("async", [{"number": 1}, Item(number=2)]),
        ("async", ({"number": n} for n in (1, 2))),
        ("async", counted()),
    ],
    ids=["list", "generator", "iterator", "list on the loop", "generator on the loop", "async"],
)
def test_requests_come_from_any_iterable(world: World, requests: Any) -> None:
    """Whatever can be iterated is sent, each item being made a message."""
    app = app_with(echo(Kind.STREAM_UNARY), Kind.STREAM_UNARY)
    assert in_world(world, app, "echo.Echo/Up", requests).number == 3


class Broken:
    def __iter__(self) -> Iterator[Any]:
        yield Item(number=1)
        raise RuntimeError("out of numbers")


@every_world
@pytest.mark.parametrize(
    ("path", "given", "fields", "error", "text"),
    [
        (
            "Unary", ({"nummer": 1},), {}, MessageError,
            "echo.Item: no field 'nummer' in echo.Item; did you mean 'number'?",
        ),
        ("Unary", (), {"number": "x"}, MessageError,
         "echo.Item.number: got 'x' (str), expected int32"),
        ("Unary", ({},), {"number": 1}, TypeError,
         "echo.Echo/Unary: give a request or its fields, not both"),
        ("Up", (), {"number": 1}, TypeError,
         "echo.Echo/Up takes a stream of requests: give an iterable of them, not the fields of"
         " one"),
        ("Up", ({"number": 1},), {}, TypeError,
         "echo.Echo/Up takes a stream of requests: got a dict, expected an iterable"),
        ("Up", ([],), {"timeot": 1}, TypeError,
         "echo.Echo/Up takes a stream of requests, and no argument 'timeot'"),
        ("Chat", (Item(),), {}, TypeError,
         "echo.Echo/Chat takes a stream of requests: got a Item, expected an iterable"),
        ("Chat", (7,), {}, TypeError,
         "echo.Echo/Chat takes a stream of requests: got a int, expected an iterable"),
        ("Up", ([{"number": 1}, {"number": []}],), {}, MessageError,
         "echo.Item.number: got [] (list), expected int32"),
        ("Chat", ([{"number": 1}, {"number": []}],), {}, MessageError,
         "echo.Item.number: got [] (list), expected int32"),
        ("Up", (Broken(),), {}, RuntimeError, "out of numbers"),
        ("Chat", (Broken(),), {}, RuntimeError, "out of numbers"),
        ("Unary", (), {"metadata": {"Bad Key": "x"}}, ValueError,
         "metadata key 'Bad Key' has characters other than a-z 0-9 _ . -"),
    ],
)  # fmt: skip
def test_a_request_that_does_not_fit_is_refused_here(
    world: World,
    path: str,
    given: tuple[Any, ...],
    fields: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    """Who calls gets the reason, or what its own iterable raised; a server never a part of it."""
    app = App(schema=schema)
    finished = []

    @app.rpc("echo.Echo/Up")
    def up(requests: Iterator[Any]) -> Any:
        finished.append(list(requests))
        return Item()

    @app.rpc("echo.Echo/Chat")
    def chat(requests: Iterator[Any]) -> Iterator[Any]:
        finished.append(list(requests))
        yield Item()

    for kind in (Kind.UNARY_UNARY, Kind.UNARY_STREAM):
        app.add(echo(kind), PATHS[kind])
    with pytest.raises(error) as caught:
        in_world(world, app, f"echo.Echo/{path}", *given, **fields)
    assert (type(caught.value), str(caught.value), finished) == (error, text, [])


def failing(kind: Kind, world: World) -> Any:
    """A handler that sends metadata and aborts with details."""
    error = StatusError(
        INVALID,
        "näh",
        details=[ErrorInfo(reason="r"), Item(number=5), Duration(seconds=1)],
        trailing_metadata=[("x-end", "e"), ("x-end-bin", b"\xff")],
    )

    def unary(_: Any, context: Any) -> Any:
        context.send_initial_metadata([("x-start", "s")])
        raise error

    def stream(_: Any, context: Any) -> Iterator[Any]:
        yield unary(_, context)

    return stream if kind.response_streaming else unary


@every_kind
@every_world
def test_a_status_is_raised_with_all_that_came_with_it(kind: Kind, world: World) -> None:
    """Code, text, both metadata, and details as messages of the schema or of google.rpc; one of a
    type that neither knows stays packed."""
    with pytest.raises(StatusError) as caught:
        in_world(world, app_with(failing(kind, world), kind), PATHS[kind], request_for(kind, 1))
    error = caught.value
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details(), str(error)) == (INVALID, "näh", "INVALID_ARGUMENT: näh")
    if world == "sync" or not kind.response_streaming:  # grpc.aio may lose it where no message came
        assert ("x-start", "s") in error.initial_metadata()
    trailing = dict(error.trailing_metadata())
    assert (trailing["x-end"], trailing["x-end-bin"]) == ("e", b"\xff")
    known, own, packed = error.status_details
    assert (known, own) == (ErrorInfo(reason="r"), Item(number=5))
    assert isinstance(packed, AnyMessage)
    assert packed.type_url == "type.googleapis.com/google.protobuf.Duration"
    assert error.status_details[0] is known


@every_world
@pytest.mark.parametrize(
    ("sent", "details"),
    [
        (b"\xff", ()),
        (Status(details=[AnyMessage(type_url="t/echo.Item", value=b"\xff")]).SerializeToString(),
         (AnyMessage(type_url="t/echo.Item", value=b"\xff"),)),
        (Status(details=[AnyMessage(type_url="t/google.rpc.Nope")]).SerializeToString(),
         (AnyMessage(type_url="t/google.rpc.Nope"),)),
    ],
    ids=["garbage", "a damaged detail", "an unknown type"],
)  # fmt: skip
def test_damaged_details_cost_no_status(world: World, sent: bytes, details: Any) -> None:
    """The status is there whatever a server writes into its details."""

    def handler(_: Any) -> Any:
        trailing = [("grpc-status-details-bin", sent)]
        raise StatusError(INVALID, "no", trailing_metadata=trailing)

    with pytest.raises(StatusError) as caught:
        in_world(world, app_with(handler, Kind.UNARY_UNARY), "echo.Echo/Unary")
    assert (str(caught.value), caught.value.status_details) == ("INVALID_ARGUMENT: no", details)


@every_world
def test_a_status_from_another_server_is_sent_on_without_its_metadata(world: World) -> None:
    """A handler may let the error of a call of its own through: code, text and details go on."""
    with serve(app_with(failing(Kind.UNARY_UNARY, world), Kind.UNARY_UNARY)) as backend:

        def proxy(request: Any) -> Any:
            return backend.method("echo.Echo/Unary")(request)

        with pytest.raises(StatusError) as caught:
            in_world(world, app_with(proxy, Kind.UNARY_UNARY), "echo.Echo/Unary")
    error = caught.value
    assert (str(error), error.status_details[0]) == ("INVALID_ARGUMENT: näh", ErrorInfo(reason="r"))
    assert [key for key, _ in error.trailing_metadata()] == ["grpc-status-details-bin"]


@every_kind
@every_world
def test_a_response_that_does_not_parse_is_an_error(kind: Kind, world: World) -> None:
    """INTERNAL, as gRPC has it, and what was expected."""
    path = PATHS[kind]

    class Garbage(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            def stream(_: Any, __: Any) -> Iterator[bytes]:
                yield b"\xff"

            make = getattr(grpc, f"{kind.name.lower()}_rpc_method_handler")
            return make(stream if kind.response_streaming else lambda *_: b"\xff")

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers([Garbage()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with pytest.raises(StatusError) as caught:
                consume(world, f"127.0.0.1:{port}", path, request_for(kind, 1))
        finally:
            server.stop(None).wait()
    assert str(caught.value).startswith("INTERNAL: a response is not a echo.Item: ")


def consume(world: World, target: str, path: str, request: Any, **options: Any) -> Any:
    """Call a method of any server."""
    options.setdefault("timeout", 20)
    if world == "sync":
        with dynserve.connect(target, schema=schema) as client:
            answer = client.method(path)(request, **options)
            return list(answer) if hasattr(answer, "__next__") else answer

    async def main() -> Any:
        async with dynserve.aio.connect(target, schema=schema) as client:
            call = (await client.method(path))(request, **options)
            if call.info.kind.response_streaming:
                return [response async for response in call]
            return await call

    return asyncio.run(main())


def metadata_of(request: Any, context: Any) -> Any:
    sent = dict(context.invocation_metadata())
    remaining = context.time_remaining()
    said = {
        **{key: sent[key] for key in ("a", "b", "c-bin") if key in sent},
        "compression": sent.get("grpc-internal-encoding-request", ""),
        "deadline": None if remaining is None else remaining > 15,
    }
    return Item(text=repr(said))


@every_world
@pytest.mark.parametrize(
    ("client", "options", "expected"),
    [
        ({}, {"timeout": None}, {"compression": "", "deadline": None}),
        ({"timeout": 20}, {"timeout": None}, {"compression": "", "deadline": True}),
        ({"timeout": 20}, {"timeout": 10}, {"compression": "", "deadline": False}),
        (
            {"metadata": {"a": "1"}},
            {"metadata": [("b", "2"), ("c-bin", b"\xff")]},
            {"a": "1", "b": "2", "c-bin": b"\xff", "compression": "", "deadline": True},
        ),
        ({}, {"metadata": {"b": "2"}}, {"b": "2", "compression": "", "deadline": True}),
    ],
    ids=["nothing", "the client's", "the call's", "both", "a mapping"],
)
def test_what_a_call_is_told(
    world: World, client: dict[str, Any], options: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Metadata of client and call add up; a deadline of the call goes before the client's."""
    app = app_with(metadata_of, Kind.UNARY_UNARY)
    options.setdefault("timeout", 20)
    response = in_world(world, app, "echo.Echo/Unary", client=client, **options)
    assert response.text == repr(expected)


@every_world
@pytest.mark.parametrize("where", ["client", "call"])
def test_requests_are_compressed(world: World, where: str) -> None:
    """By what the client or the call says; the server sees fewer bytes than it gets."""
    path, gzip = "echo.Echo/Unary", {"compression": grpc.Compression.Gzip}
    app = app_with(echo(Kind.UNARY_UNARY), Kind.UNARY_UNARY)
    limit = {"options": [("grpc.max_receive_message_length", 1000)]}
    options: dict[str, Any] = {"client": gzip} if where == "client" else gzip
    text = "x" * 900
    assert in_world(world, app, path, {"text": text}, server=limit, **options).text == text


@every_world
def test_wait_for_ready_waits_for_a_server(world: World) -> None:
    """A call that waits ends with its deadline where another is UNAVAILABLE at once."""
    target = "127.0.0.1:1"
    with pytest.raises(StatusError) as at_once:
        consume(world, target, "echo.Echo/Unary", {})
    assert at_once.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(StatusError) as waited:
        consume(world, target, "echo.Echo/Unary", {}, wait_for_ready=True, timeout=0.05)
    assert waited.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


# ---- sync


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=str)
def test_a_future_has_the_response(kind: Kind) -> None:
    """It is waited for when it is asked; callbacks get the future itself."""
    with serve(app_with(echo(kind), kind)) as client:
        future = client.method(PATHS[kind]).future(request_for(kind, 4), timeout=20)
        told = threading.Event()
        future.add_done_callback(lambda one: told.set() if one is future else None)
        assert (future.result(20).number, future.exception(), future.traceback()) == (4, None, None)
        assert told.wait(20)
        assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
        assert (future.code(), future.details()) == (grpc.StatusCode.OK, "")
        assert (future.cancel(), future.is_active(), future.add_callback(print)) == (
            False,
            False,
            False,
        )


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=str)
def test_a_future_has_the_error(kind: Kind) -> None:
    """It is raised by result(), and returned by exception()."""
    with serve(app_with(failing(kind, "sync"), kind)) as client:
        future = client.method(PATHS[kind]).future(request_for(kind, 4), timeout=20)
        with pytest.raises(StatusError) as caught:
            future.result()
        assert str(caught.value) == str(future.exception()) == "INVALID_ARGUMENT: näh"
        assert future.traceback() is not None
        assert dict(future.trailing_metadata())["x-end"] == "e"


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=str)
def test_a_future_can_be_cancelled(kind: Kind) -> None:
    """The handler learns of it, and who waits gets what gRPC's futures raise."""
    running, ended = threading.Event(), threading.Event()

    def handler(_: Any, context: Any) -> Any:
        context.add_callback(ended.set)
        running.set()
        ended.wait(20)
        return Item()

    with serve(app_with(handler, kind)) as client:
        future = client.method(PATHS[kind]).future(request_for(kind, 4), timeout=20)
        assert running.wait(20)
        assert (future.running(), future.is_active(), future.done()) == (True, True, False)
        assert 0 < (future.time_remaining() or 0) <= 20
        with pytest.raises(grpc.FutureTimeoutError):
            future.result(0.01)
        with pytest.raises(grpc.FutureTimeoutError):
            future.exception(0.01)
        assert future.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            future.result()
        with pytest.raises(grpc.FutureCancelledError):
            future.exception()
        assert future.cancelled()
        assert ended.wait(20)


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=str)
def test_with_call_gives_the_metadata(kind: Kind) -> None:
    """The response comes with the call, which has both metadata and the status."""

    def handler(_: Any, context: Any) -> Any:
        context.send_initial_metadata([("x-start", "s")])
        context.set_trailing_metadata([("x-end", "e")])
        return Item(number=1)

    with serve(app_with(handler, kind)) as client:
        response, call = client.method(PATHS[kind]).with_call(request_for(kind, 4), timeout=20)
        assert response.number == 1
        assert ("x-start", "s") in [tuple(pair) for pair in call.initial_metadata()]
        assert ("x-end", "e") in [tuple(pair) for pair in call.trailing_metadata()]
        assert call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.STREAM_UNARY], ids=str)
def test_with_call_raises_the_error(kind: Kind) -> None:
    """As calling the method does."""
    with serve(app_with(failing(kind, "sync"), kind)) as client:
        with pytest.raises(StatusError) as caught:
            client.method(PATHS[kind]).with_call(request_for(kind, 4), timeout=20)
        assert str(caught.value) == "INVALID_ARGUMENT: näh"


@pytest.mark.parametrize("name", ["future", "with_call"])
def test_a_stream_of_responses_is_its_own_call(name: str) -> None:
    """What only one response can have says where it is to be found."""
    kind = Kind.UNARY_STREAM
    with (
        serve(app_with(echo(kind), kind)) as client,
        pytest.raises(TypeError) as caught,
    ):
        getattr(client.method(PATHS[kind]), name)({})
    assert str(caught.value) == (
        f"echo.Echo/Down answers with a stream and has no {name}; call it, and iterate: what it"
        " returns has code(), initial_metadata() and cancel()"
    )


@pytest.mark.parametrize("way", ["cancel", "with"])
def test_leaving_responses_cancels_the_call(way: str) -> None:
    """By cancel(), or at the end of a with block; the handler learns of it."""
    ended = threading.Event()

    def handler(_: Any, context: Any) -> Iterator[Any]:
        context.add_callback(ended.set)
        context.send_initial_metadata([("x-start", "s")])
        yield Item(number=1)
        ended.wait(20)

    with serve(app_with(handler, Kind.UNARY_STREAM)) as client:
        responses = client.method("echo.Echo/Down")({}, timeout=20)
        assert ("x-start", "s") in responses.initial_metadata()
        if way == "with":
            with responses as entered:
                assert next(entered).number == 1
        else:
            assert next(responses).number == 1
            assert responses.cancel()
        assert ended.wait(20)
        with pytest.raises(StatusError) as caught:
            list(responses)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert responses.code() is grpc.StatusCode.CANCELLED


def test_a_client_is_used_by_many_threads() -> None:
    """One connection, one set of methods, and each answer goes to who asked."""
    kind = Kind.UNARY_UNARY
    wrong: list[Any] = []
    with serve(app_with(echo(kind), kind)) as client:

        def work(start: int) -> None:
            stub = client.service("echo.Echo")
            numbers = range(start, start + 50)
            answers = [stub.Unary(number=number, timeout=20).number for number in numbers]
            wrong.append(answers != list(numbers))

        threads = [threading.Thread(target=work, args=(start * 1000,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == [False] * 8


def test_a_closed_client_makes_no_calls() -> None:
    """Closing cancels what is under way; after it gRPC says that the channel is closed."""
    ended = threading.Event()

    def handler(_: Any, context: Any) -> Iterator[Any]:
        context.add_callback(ended.set)
        yield Item()
        ended.wait(20)

    app = app_with(handler, Kind.UNARY_STREAM)
    with app.server("127.0.0.1:0").in_thread() as server:
        client = dynserve.connect(server.addresses[0], schema=schema)
        method = client.method("echo.Echo/Down")
        responses = method({}, timeout=20)
        next(responses)
        client.close()
        assert ended.wait(20)
        with pytest.raises(ValueError, match=r"(?i)channel closed|closed channel"):
            method({})


# ---- asyncio


def run(app: App, body: Any) -> Any:
    """Run a coroutine function on the client of a served app."""

    async def main() -> Any:
        async with serve(app) as client:
            return await body(client)

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_requests_are_written_and_responses_read() -> None:
    """Both directions by hand, as grpc.aio has it; the end is ``grpc.aio.EOF``."""

    async def body(client: Any) -> Any:
        call = (await client.service("echo.Echo")).Chat(timeout=20)
        await call.wait_for_connection()
        numbers = []
        for number in (1, 2):
            await call.write({"number": number})
            numbers.append((await call.read()).number)
        await call.done_writing()
        end = await call.read()
        return numbers, end, await call.code(), await call.details()

    app = app_with(echo(Kind.STREAM_STREAM), Kind.STREAM_STREAM)
    assert run(app, body) == ([1, 2], grpc.aio.EOF, grpc.StatusCode.OK, "")


def test_requests_are_written_for_one_response() -> None:
    """The response is awaited when all is written; what does not fit leaves the call as it is."""

    async def body(client: Any) -> Any:
        call = (await client.service("echo.Echo")).Up()
        await call.write(Item(number=3))
        with pytest.raises(MessageError, match="no field 'x'"):
            await call.write({"x": 1})
        await call.write({"number": 4})
        await call.done_writing()
        return (await call).number

    assert run(app_with(echo(Kind.STREAM_UNARY), Kind.STREAM_UNARY), body) == 7


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=str)
def test_a_call_on_the_loop_tells_of_itself(kind: Kind) -> None:
    """Metadata, status, time left; callbacks get the call."""

    def handler(_: Any, context: Any) -> Any:
        context.send_initial_metadata([("x-start", "s")])
        context.set_trailing_metadata([("x-end", "e")])
        return Item(number=1)

    def stream(_: Any, context: Any) -> Iterator[Any]:
        yield handler(_, context)

    async def body(client: Any) -> Any:
        call = (await client.method(PATHS[kind]))({}, timeout=20)
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call.add_done_callback(told.set_result)
        before = 0 < call.time_remaining() <= 20, repr(call)
        assert ("x-start", "s") in await call.initial_metadata()
        if kind.response_streaming:
            assert [item.number async for item in call] == [1]
        else:
            assert (await call).number == 1
        assert ("x-end", "e") in await call.trailing_metadata()
        assert await told is call
        return before, repr(call), call.done(), call.cancelled(), call.cancel()

    method = f"echo.Echo/{'Down' if kind.response_streaming else 'Unary'}"
    assert run(app_with(stream if kind.response_streaming else handler, kind), body) == (
        (True, f"<call of {method}: under way>"),
        f"<call of {method}: ended>",
        True,
        False,
        False,
    )


@pytest.mark.parametrize("way", ["call", "task"])
@every_kind
def test_a_call_on_the_loop_can_be_cancelled(kind: Kind, way: str) -> None:
    """Itself, or by the task that waits for it; the handler learns of it."""
    running, ended = threading.Event(), threading.Event()

    def handler(_: Any, context: Any) -> Any:
        context.add_callback(ended.set)
        running.set()
        ended.wait(20)
        return Item()

    def stream(_: Any, context: Any) -> Iterator[Any]:
        yield handler(_, context)

    async def wait_for(call: Any) -> Any:
        return [one async for one in call] if kind.response_streaming else await call

    async def body(client: Any) -> Any:
        call = (await client.method(PATHS[kind]))(request_for(kind, 1), timeout=20)
        task = asyncio.create_task(wait_for(call))
        assert await asyncio.to_thread(running.wait, 20)
        assert task.cancel() if way == "task" else call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 20)
        return call.cancelled()

    assert run(app_with(stream if kind.response_streaming else handler, kind), body)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.UNARY_UNARY, "echo.Echo/Unary answers with one message; write: response = await …"),
        (
            Kind.UNARY_STREAM,
            "echo.Echo/Down answers with a stream; write: async for response in …",
        ),
    ],
    ids=str,
)
def test_waiting_in_the_wrong_way_says_the_right_one(kind: Kind, text: str) -> None:
    """A response is awaited, a stream is iterated."""

    async def body(client: Any) -> Any:
        call = (await client.method(PATHS[kind]))({}, timeout=20)
        with pytest.raises(TypeError) as caught:
            await (call if kind.response_streaming else anext(aiter(call)))
        call.cancel()
        return str(caught.value)

    assert run(app_with(echo(kind), kind), body) == text


@pytest.mark.parametrize("kind", [Kind.STREAM_UNARY, Kind.STREAM_STREAM], ids=str)
@pytest.mark.parametrize("way", ["iterable", "write"])
def test_a_server_that_ends_a_call_early_says_why(kind: Kind, way: str) -> None:
    """Its status is raised, whole, whoever meets it first: who writes, or who waits; also where
    grpc.aio has put one of its own in its place."""

    def refuse(requests: Iterator[Any]) -> Any:
        next(requests)
        raise StatusError(INVALID, "no", trailing_metadata=[("x-end", "e")])

    async def endless() -> AsyncIterator[Any]:
        while True:
            yield Item()

    async def use(call: Any) -> None:
        while way == "write":
            await call.write({})
        await (call.read() if kind.response_streaming else call)

    async def body(client: Any) -> None:
        method = await client.method(PATHS[kind])
        for _ in range(50):
            call = method(endless() if way == "iterable" else None, timeout=20)
            with pytest.raises(StatusError) as caught:
                await use(call)
            assert str(caught.value) == "INVALID_ARGUMENT: no"
            assert ("x-end", "e") in caught.value.trailing_metadata()
            assert await call.code() is INVALID
            assert await call.details() == "no"
            assert ("x-end", "e") in await call.trailing_metadata()

    run(app_with(refuse, kind), body)


def test_a_server_may_end_a_call_early_and_well() -> None:
    """Then the responses end, and who goes on writing is told."""

    async def first(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield request
            return

    async def endless() -> AsyncIterator[Any]:
        while True:
            yield Item(number=1)

    async def write_on(call: Any) -> None:
        while True:
            await call.write({})

    async def body(client: Any) -> None:
        method = await client.method("echo.Echo/Chat")
        for _ in range(10):
            assert [item.number async for item in method(endless(), timeout=20)] == [1]
            call = method(timeout=20)
            with pytest.raises(asyncio.InvalidStateError) as caught:
                await write_on(call)
            assert str(caught.value) == (
                "echo.Echo/Chat: the server has ended the call, nothing more can be written"
            )

    run(app_with(first, Kind.STREAM_STREAM), body)


@pytest.mark.parametrize("way", ["break", "with"])
def test_leaving_responses_on_the_loop_cancels_the_call(way: str) -> None:
    """At the end of an async with, and when an async for is left; the handler learns of it."""
    ended = threading.Event()

    def handler(_: Any, context: Any) -> Iterator[Any]:
        context.add_callback(ended.set)
        yield Item(number=1)
        ended.wait(20)

    async def body(client: Any) -> None:
        call = (await client.method("echo.Echo/Down"))({}, timeout=20)
        if way == "with":
            async with call as entered:
                assert (await entered.read()).number == 1
        else:
            async for _ in call:
                break
        assert await asyncio.to_thread(ended.wait, 20)

    run(app_with(handler, Kind.UNARY_STREAM), body)


def test_requests_that_are_not_wanted_any_more_are_closed() -> None:
    """The generator they come from ends with the call, not with a collection of garbage."""
    closed = threading.Event()

    def numbers() -> Iterator[Any]:
        try:
            while True:
                yield Item()
        finally:
            closed.set()

    def refuse(_: Any) -> Any:
        raise StatusError(INVALID, "no")

    gc.disable()
    try:
        with contextlib.suppress(StatusError):  # which is held by nobody
            in_world("sync", app_with(refuse, Kind.STREAM_UNARY), "echo.Echo/Up", numbers())
        assert closed.wait(20)
    finally:
        gc.enable()


@every_world
def test_a_field_may_have_the_name_of_an_argument(world: World) -> None:
    """A dict holds it; as a keyword it is the argument, and the error says so."""
    source = """
        syntax = "proto3"; package own;
        message M { string timeout = 1; string self = 2; }
        service S { rpc Do(M) returns (M); }
    """
    app = App(source)
    app.rpc("own.S/Do")(lambda request: request)
    request = {"timeout": "x", "self": "y"}
    assert in_world(world, app, "own.S/Do", request).timeout == "x"
    assert in_world(world, app, "own.S/Do", self="y").self == "y"
    with pytest.raises(TypeError) as caught:
        in_world(world, app, "own.S/Do", timeout="x")
    assert str(caught.value) == (
        "own.S/Do: got timeout='x', expected seconds; a field of the name of an argument is given"
        " in a dict"
    )
    if world == "sync":
        with serve(app) as client:
            assert client.method("own.S/Do").future(self="y").result().self == "y"


def test_what_is_done_to_a_call_that_was_cancelled() -> None:
    """Writing to it is refused; so is writing after done_writing()."""

    async def body(client: Any) -> None:
        method = await client.method("echo.Echo/Chat")
        call = method(timeout=20)
        call.cancel()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write({})
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        other = method(timeout=20)
        await other.done_writing()
        with pytest.raises(asyncio.InvalidStateError):
            await other.write({})

    run(app_with(echo(Kind.STREAM_STREAM), Kind.STREAM_STREAM), body)


@pytest.mark.parametrize("way", ["responses", "future"])
def test_a_call_that_nobody_holds_is_cancelled(way: str) -> None:
    """Also while its requests are waited for, for ever."""
    ended, requests = threading.Event(), queue.SimpleQueue[Any]()

    def handler(given: Iterator[Any], context: Any) -> Any:
        context.add_callback(ended.set)
        yield next(given)
        ended.wait(20)

    def fold(given: Iterator[Any], context: Any) -> Any:
        context.add_callback(ended.set)
        begun.set()
        ended.wait(20)
        return Item()

    begun = threading.Event()
    requests.put({})
    kind = Kind.STREAM_STREAM if way == "responses" else Kind.STREAM_UNARY
    with serve(app_with(handler if way == "responses" else fold, kind)) as client:
        method = client.method(PATHS[kind])
        if way == "responses":
            for _ in method(iter(requests.get, None)):
                break
        else:
            future = method.future(iter(requests.get, None))
            assert begun.wait(20)
            del future
        assert ended.wait(20)
        requests.put(None)  # ends gRPC's thread


@every_world
def test_what_requests_raise_keeps_its_cause(world: World) -> None:
    """The exception is raised as it is."""

    def numbers() -> Iterator[Any]:
        yield Item()
        raise ValueError("outer") from KeyError("inner")

    with pytest.raises(ValueError, match="outer") as caught:
        in_world(
            world, app_with(echo(Kind.STREAM_UNARY), Kind.STREAM_UNARY), "echo.Echo/Up", numbers()
        )
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, KeyboardInterrupt])
def test_whatever_requests_raise_is_raised(error: type[BaseException]) -> None:
    """Not only exceptions: nothing ends gRPC's thread, and nobody waits for ever."""

    class Numbers:
        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            raise error

    kind = Kind.STREAM_UNARY
    with pytest.raises(error):
        in_world("sync", app_with(echo(kind), kind), "echo.Echo/Up", Numbers())


def test_a_status_comes_before_what_requests_raise_later() -> None:
    """A call that has ended was not ended by its requests."""
    kind, over = Kind.STREAM_UNARY, threading.Event()

    def refuse(_: Any) -> Any:
        raise StatusError(INVALID, "no")

    def numbers() -> Iterator[Any]:
        yield Item()
        over.wait(20)
        raise ConnectionError

    with serve(app_with(refuse, kind)) as client:
        future = client.method("echo.Echo/Up").future(numbers(), timeout=20)
        assert future.code() is INVALID
        over.set()
        with pytest.raises(StatusError, match="INVALID_ARGUMENT: no"):
            future.result()


def test_reading_on_after_an_error_raises_it_again() -> None:
    """The end of a stream is said of a good one only."""

    def handler(_: Any) -> Iterator[Any]:
        yield Item()
        raise StatusError(INVALID, "no")

    async def body(client: Any) -> None:
        call = (await client.method("echo.Echo/Down"))({}, timeout=20)
        await call.read()
        for _ in range(2):
            with pytest.raises(StatusError, match="INVALID_ARGUMENT: no"):
                await call.read()
        other = (await client.method("echo.Echo/Down"))({}, timeout=20)
        other.cancel()
        for _ in range(2):
            with pytest.raises(asyncio.CancelledError):
                await other.read()

    run(app_with(handler, Kind.UNARY_STREAM), body)


def test_what_a_kind_does_not_have_is_said() -> None:
    """Writing to one that takes one request, reading from one that answers with one."""

    async def body(client: Any) -> list[str]:
        call = (await client.method("echo.Echo/Unary"))({}, timeout=20)
        texts = []
        for attempt in (call.write({}), call.done_writing(), call.read()):
            with pytest.raises(TypeError) as caught:
                await attempt
            texts.append(str(caught.value))
        await call
        return texts

    takes = "echo.Echo/Unary takes one request, which it was given when it was called"
    answers = "echo.Echo/Unary answers with one message; write: response = await …"
    assert run(app_with(echo(Kind.UNARY_UNARY), Kind.UNARY_UNARY), body) == [takes, takes, answers]


@every_world
def test_no_limit_can_be_said(world: World) -> None:
    """Infinity is none, whatever the client's; what is no time is refused."""
    app = app_with(metadata_of, Kind.UNARY_UNARY)
    for client, timeout in (({"timeout": 20}, math.inf), ({"timeout": math.inf}, None)):
        response = in_world(world, app, "echo.Echo/Unary", client=client, timeout=timeout)
        assert response.text == repr({"compression": "", "deadline": None})
    with pytest.raises(ValueError, match="got timeout=nan, expected seconds"):
        in_world(world, app, "echo.Echo/Unary", timeout=math.nan)
    with pytest.raises(TypeError, match="got timeout='5', expected seconds"):
        in_world(world, app, "echo.Echo/Unary", client={"timeout": "5"})


def test_a_call_that_was_never_awaited_warns() -> None:
    """As a coroutine does: what it would have raised is seen by nobody."""

    async def body(client: Any) -> list[str]:
        method = await client.method("echo.Echo/Unary")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            method({})
            await method({})
            call = method({})
            call.cancel()
            del call
        return [str(one.message) for one in caught]

    app = app_with(echo(Kind.UNARY_UNARY), Kind.UNARY_UNARY)
    assert run(app, body) == ["the call of echo.Echo/Unary was never awaited"]


def test_a_call_that_is_taken_for_its_response_says_what_to_write() -> None:
    """Of one response, and of a stream."""

    async def body(client: Any) -> list[str]:
        unary = (await client.method("echo.Echo/Unary"))({}, timeout=20)
        down = (await client.method("echo.Echo/Down"))({}, timeout=20)
        texts = []
        for use in (lambda: unary.number, lambda: list(unary), lambda: list(down)):
            with pytest.raises((AttributeError, TypeError)) as caught:
                use()
            texts.append(str(caught.value))
        assert not hasattr(unary, "_anything")
        unary.cancel()
        down.cancel()
        return texts

    app = app_with(echo(Kind.UNARY_UNARY), Kind.UNARY_UNARY)
    app.add(echo(Kind.UNARY_STREAM), PATHS[Kind.UNARY_STREAM])
    assert run(app, body) == [
        "a call has no 'number': await it first",
        "echo.Echo/Unary: await it first",
        "echo.Echo/Down: write: async for response in …",
    ]


def test_what_was_not_asked_of_grpc_is_not_shown() -> None:
    """A traceback ends with the status; gRPC's own exception would say it at length before."""
    with pytest.raises(StatusError) as caught:
        consume("sync", "127.0.0.1:1", "echo.Echo/Unary", {})
    error = caught.value
    assert (error.__cause__, error.__suppress_context__) == (None, True)


def test_a_service_is_no_method() -> None:
    """The error says so, rather than offer what was given."""
    with serve(app_with(echo(Kind.UNARY_UNARY), Kind.UNARY_UNARY)) as client:
        connected = dynserve.connect(client.target)
        with connected, pytest.raises(dynserve.SymbolError) as caught:
            connected.method("echo.Echo")
        assert str(caught.value) == (
            f"no method 'echo.Echo' on {client.target}: it is a service, name one of its"
        )


def test_responses_show_what_they_are() -> None:
    """For logs and prompts."""
    kind = Kind.UNARY_STREAM
    with serve(app_with(echo(kind), kind)) as client:
        responses = client.method(PATHS[kind])(number=1)
        assert repr(responses) == "<responses of echo.Echo/Down: under way>"
        list(responses)
        assert repr(responses) == "<responses of echo.Echo/Down: ended>"
