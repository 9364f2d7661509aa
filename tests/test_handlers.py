"""Every way to write a handler, in all four kinds; and what happens when one goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import logging
import operator
import re
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from dynserve import App, AsyncContext, BindError, Context, Kind, StatusError
from dynserve.callables import Shape, shape_of
from dynserve.handlers import make_method_handler
from dynserve.status import ErrorRules
from tests.conftest import Serve
from tests.echo import PATHS, Item, app_with, numbers_of, request_for, schema

WAIT = 20.0  # seconds after which a test gives up
KINDS = list(Kind)
WORLDS = ["sync", "async"]


# ---- what a handler may look like


def one(request: Any) -> Any:
    return Item(number=request.number + 1)


def one_with_context(request: Any, context: Context) -> Any:
    assert isinstance(context, grpc.ServicerContext)
    return Item(number=request.number + 1)


async def one_async(request: Any, context: AsyncContext) -> Any:
    assert isinstance(context, grpc.aio.ServicerContext)
    return Item(number=request.number + 1)


def two(request: Any) -> Iterator[Any]:
    yield Item(number=request.number + 1)
    yield {"number": request.number + 2}


async def two_async(request: Any) -> AsyncIterator[Any]:
    yield Item(number=request.number + 1)
    yield {"number": request.number + 2}


def total(requests: Iterator[Any]) -> Any:
    return Item(number=sum(request.number for request in requests))


async def total_async(requests: AsyncIterator[Any], context: AsyncContext) -> Any:
    return {"number": sum([request.number async for request in requests])}


def each(requests: Iterator[Any], context: Context) -> Iterator[Any]:
    for request in requests:
        yield Item(number=request.number + 1)


async def each_async(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield Item(number=request.number + 1)


class Methods:
    """Handlers as methods, static and not, and as objects that are called."""

    def one(self, request: Any) -> Any:
        return one(request)

    async def one_async(self, request: Any, context: AsyncContext) -> Any:
        return await one_async(request, context)

    @staticmethod
    def two(request: Any) -> Iterator[Any]:
        yield from two(request)

    @classmethod
    async def each_async(cls, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for response in each_async(requests):
            yield response


class Called:
    def __call__(self, request: Any, context: Context) -> Any:
        return one_with_context(request, context)


class CalledAsync:
    async def __call__(self, request: Any, context: AsyncContext) -> Any:
        return await one_async(request, context)


class CalledAsyncGenerator:
    async def __call__(self, request: Any) -> AsyncIterator[Any]:
        async for response in two_async(request):
            yield response


def offset(by: int, request: Any) -> Any:
    return Item(number=request.number + by)


async def offset_async(by: int, request: Any, context: AsyncContext) -> Any:
    return Item(number=request.number + by)


def undecorated(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that knows nothing of async."""

    @functools.wraps(handler)
    def wrapper(*args: Any) -> Any:
        return handler(*args)

    return wrapper


async def awaited_one(request: Any) -> Any:
    return one(request)


async def awaited_then_iterated(request: Any) -> AsyncIterator[Any]:
    return two_async(request)


async def awaited_list(request: Any) -> list[Any]:
    return [Item(number=request.number + 1), {"number": request.number + 2}]


async def writes(request: Any, context: AsyncContext) -> None:
    await context.write(Item(number=request.number + 1))
    await context.write({"number": request.number + 2})


async def reads_and_writes(_: Any, context: AsyncContext) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(Item(number=request.number + 1))


async def reads(_: Any, context: AsyncContext) -> Any:
    found = 0
    while (request := await context.read()) is not grpc.aio.EOF:
        found += request.number
    return Item(number=found)


UNARY: dict[str, Any] = {
    "function": one,
    "function with context": one_with_context,
    "coroutine function": one_async,
    "method": Methods().one,
    "coroutine method": Methods().one_async,
    "object with __call__": Called(),
    "object with async __call__": CalledAsync(),
    "partial": functools.partial(offset, 1),
    "partial of a coroutine function": functools.partial(offset_async, 1),
    "partial of an object with async __call__": functools.partial(CalledAsync()),
    "lambda": lambda request: one(request),  # noqa: PLW0108 - a lambda is the point
    "lambda that returns a coroutine": lambda request, context: offset_async(1, request, context),
    "decorator that forgot async": undecorated(awaited_one),
    "any arguments": lambda *args: one(args[0]),
    "another parameter with a default": lambda request, by=1: offset(by, request),
    "dict": lambda request: {"number": request.number + 1},
}
DOWN: dict[str, Any] = {
    "generator": two,
    "async generator": two_async,
    "static method": Methods.two,
    "object with async generator __call__": CalledAsyncGenerator(),
    "function that returns a list": lambda request: list(two(request)),
    "function that returns an iterator": lambda request: iter(list(two(request))),
    "function that returns a generator": lambda request: two(request),  # noqa: PLW0108
    "function that returns an async generator": lambda request: two_async(request),  # noqa: PLW0108
    "function that returns a coroutine": lambda request: awaited_list(request),  # noqa: PLW0108
    "coroutine function that returns an async iterator": awaited_then_iterated,
    "coroutine function that returns a list": awaited_list,
    "coroutine function that writes": writes,
    "decorator that forgot async": undecorated(two_async),
}
UP: dict[str, Any] = {
    "function": total,
    "coroutine function": total_async,
    "coroutine function that reads": reads,
    "decorator that forgot": undecorated(total),
}
CHAT: dict[str, Any] = {
    "generator": each,
    "async generator": each_async,
    "async generator class method": Methods.each_async,
    "function that returns map()": lambda requests: map(one, requests),
    "coroutine function that reads and writes": reads_and_writes,
    "decorator that forgot": undecorated(each),
}
SHAPES = [
    pytest.param(kind, handler, sent, expected, id=f"{kind} {name}")
    for kind, table, sent, expected in (
        (Kind.UNARY_UNARY, UNARY, (3,), [4]),
        (Kind.UNARY_STREAM, DOWN, (3,), [4, 5]),
        (Kind.STREAM_UNARY, UP, (1, 2, 3), [6]),
        (Kind.STREAM_STREAM, CHAT, (1, 2, 3), [2, 3, 4]),
    )
    for name, handler in table.items()
]


@pytest.mark.parametrize(("kind", "handler", "sent", "expected"), SHAPES)
def test_serves_every_shape_of_handler(
    serve: Serve, kind: Kind, handler: Any, sent: tuple[int, ...], expected: list[int]
) -> None:
    """Whatever can be called serves, sync or async, however it hands its responses over."""
    with serve(app_with(handler, kind)) as client:
        response = client.call(PATHS[kind], request_for(kind, *sent))
    assert numbers_of(response) == expected


def test_mixes_sync_and_async_in_one_service(serve: Serve) -> None:
    """One service has handlers of both worlds, in all kinds, at the same time."""
    app = App(schema=schema)
    handlers: list[Any] = [one, two_async, total, each_async]
    for handler, kind in zip(handlers, KINDS, strict=True):
        app.add(handler, PATHS[kind])
    with serve(app) as client:
        got = [numbers_of(client.call(PATHS[k], request_for(k, 1, 2))) for k in KINDS]
    assert got == [[2], [2, 3], [3], [2, 3]]


@pytest.mark.parametrize(
    ("handler", "shape"),
    [
        (one, Shape(is_async=False, is_generator=False, takes_context=False)),
        (one_async, Shape(is_async=True, is_generator=False, takes_context=True)),
        (two, Shape(is_async=False, is_generator=True, takes_context=False)),
        (two_async, Shape(is_async=True, is_generator=True, takes_context=False)),
        (Methods().one_async, Shape(is_async=True, is_generator=False, takes_context=True)),
        (CalledAsync(), Shape(is_async=True, is_generator=False, takes_context=True)),
        (functools.partial(CalledAsync()), Shape(True, False, True)),
        (lambda request, context=None: request, Shape(False, False, True)),
        (lambda request, other=None: request, Shape(False, False, False)),
        (dict.get, Shape(False, False, True)),
    ],
)
def test_shape_is_found_when_bound(handler: Any, shape: Shape) -> None:
    """What a callable is, is told from the callable alone."""
    assert shape_of(handler) == shape


# ---- what goes wrong


def failing(kind: Kind, world: str, fail: Callable[..., Any]) -> Any:
    """A handler of this kind and world that calls ``fail(context)`` before anything else."""
    if world == "sync":
        if kind.response_streaming:

            def stream(request: Any, context: Context) -> Iterator[Any]:
                fail(context)
                yield Item()

            return stream

        def unary(request: Any, context: Context) -> Any:
            return fail(context)

        return unary
    if kind.response_streaming:

        async def stream_async(request: Any, context: AsyncContext) -> AsyncIterator[Any]:
            fail(context)
            yield Item()

        return stream_async

    async def unary_async(request: Any, context: AsyncContext) -> Any:
        return fail(context)

    return unary_async


def error_of(serve: Serve, kind: Kind, app: App) -> Any:
    """The error that a client gets."""
    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call(PATHS[kind], request_for(kind, 1))
    return caught.value


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(_: Any) -> None:
        raise error

    return fail


every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
every_world = pytest.mark.parametrize("world", WORLDS)


@every_kind
@every_world
def test_status_error_reaches_the_client_whole(serve: Serve, kind: Kind, world: str) -> None:
    """Code, text, trailing metadata and details of a StatusError are sent as they are."""
    info = ErrorInfo(reason="NO_ROOM", domain="example.com")
    error = StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "no room ✓",
        details=[info],
        trailing_metadata=[("x-room", "7")],
    )
    got = error_of(serve, kind, app_with(failing(kind, world, raising(error)), kind))
    assert (got.code(), got.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "no room ✓")
    trailing = dict(got.trailing_metadata())
    assert trailing["x-room"] == "7"
    status = Status.FromString(trailing["grpc-status-details-bin"])
    assert (status.code, status.message, len(status.details)) == (9, "no room ✓", 1)
    unpacked = ErrorInfo()
    assert status.details[0].Unpack(unpacked)
    assert unpacked == info


@every_kind
@every_world
@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit("secret"), StopIteration(1)])
def test_unforeseen_exception_is_internal_without_its_text(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    kind: Kind,
    world: str,
    error: BaseException,
) -> None:
    """A peer gets INTERNAL and an id; the log has the traceback under the same id."""
    handler = failing(kind, world, raising(error))
    got = error_of(serve, kind, app_with(handler, kind))
    assert got.code() == grpc.StatusCode.INTERNAL
    match = re.fullmatch(r"internal error \(error id ([0-9a-f]{16})\)", got.details())
    assert match is not None
    records = [record for record in caplog.records if record.name == "dynserve.handlers"]
    where = f"tests.test_handlers.{handler.__qualname__}"
    message = f"{PATHS[kind]} failed in {where} (error id {match[1]})"
    assert [r.getMessage() for r in records] == [message]
    assert records[0].exc_info is not None
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == records
    cause = records[0].exc_info[1]
    assert cause is error or getattr(cause, "__cause__", None) is error


@every_kind
@every_world
def test_abort_ends_the_call(serve: Serve, kind: Kind, world: str) -> None:
    """context.abort() sends its code, text and metadata, with what was set before."""

    def fail(context: Any) -> None:
        context.set_trailing_metadata((("x-set", "1"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing here", (("x-abort", "2"),))

    got = error_of(serve, kind, app_with(failing(kind, world, fail), kind))
    assert (got.code(), got.details()) == (grpc.StatusCode.NOT_FOUND, "nothing here")
    assert dict(got.trailing_metadata()) == {"x-set": "1", "x-abort": "2"}


def test_abort_may_be_awaited_and_cannot_be_swallowed(serve: Serve) -> None:
    """``await context.abort()`` works as in grpc.aio; catching the exception changes nothing."""

    async def handler(request: Any, context: AsyncContext) -> Any:
        try:
            await context.abort(grpc.StatusCode.ABORTED, "no")
        except Exception:
            return Item()

    got = error_of(serve, Kind.UNARY_UNARY, app_with(handler, Kind.UNARY_UNARY))
    assert (got.code(), got.details()) == (grpc.StatusCode.ABORTED, "no")


def test_abort_with_status_takes_a_grpc_status(serve: Serve) -> None:
    """``abort_with_status`` takes what grpc_status.rpc_status.to_status() makes."""

    class Made(grpc.Status):  # as grpc_status makes it
        code = grpc.StatusCode.DATA_LOSS
        details = "gone"
        trailing_metadata = (("x-a", "b"),)

    def handler(request: Any, context: Context) -> Any:
        context.abort_with_status(Made())

    got = error_of(serve, Kind.UNARY_UNARY, app_with(handler, Kind.UNARY_UNARY))
    assert (got.code(), got.details()) == (grpc.StatusCode.DATA_LOSS, "gone")
    assert dict(got.trailing_metadata()) == {"x-a": "b"}


@every_kind
@every_world
def test_exception_handler_maps_a_class(serve: Serve, kind: Kind, world: str) -> None:
    """A registered function turns an exception, also a derived one, into a status."""
    app = app_with(failing(kind, world, raising(KeyError("k"))), kind)

    @app.exception_handler(LookupError)
    def not_found(error: Exception) -> StatusError:
        return StatusError(grpc.StatusCode.NOT_FOUND, f"no {error.args[0]}")

    got = error_of(serve, kind, app)
    assert (got.code(), got.details()) == (grpc.StatusCode.NOT_FOUND, "no k")


@every_kind
@every_world
def test_code_that_was_set_goes_with_the_exception(
    serve: Serve, kind: Kind, world: str, caplog: pytest.LogCaptureFixture
) -> None:
    """set_code(), set_details() and an exception: what servicers of generated code do."""

    def fail(context: Any) -> None:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("Method not implemented!")

    got = error_of(serve, kind, app_with(failing(kind, world, fail), kind))
    assert got.code() == grpc.StatusCode.UNIMPLEMENTED
    assert got.details() == "Method not implemented!"
    assert caplog.records == []


def test_other_exception_after_set_code_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The status the handler set is sent, and the exception is not lost."""

    def fail(context: Any) -> None:
        context.set_code(9)
        raise ValueError("secret")

    app = app_with(failing(Kind.UNARY_UNARY, "sync", fail), Kind.UNARY_UNARY)
    got = error_of(serve, Kind.UNARY_UNARY, app)
    assert (got.code(), got.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "")
    message = (
        "echo.Echo/Unary failed in tests.test_handlers.failing.<locals>.unary"
        " after set_code(StatusCode.FAILED_PRECONDITION)"
    )
    assert [record.getMessage() for record in caplog.records] == [message]


def test_bare_not_implemented_error_is_unimplemented(serve: Serve) -> None:
    """``raise NotImplementedError`` says what it means."""
    app = app_with(
        failing(Kind.UNARY_UNARY, "sync", raising(NotImplementedError())), Kind.UNARY_UNARY
    )
    got = error_of(serve, Kind.UNARY_UNARY, app)
    assert got.code() == grpc.StatusCode.UNIMPLEMENTED
    assert got.details() == "echo.Echo/Unary is not implemented"


@every_kind
@every_world
def test_request_that_does_not_parse_is_invalid_argument(
    serve: Serve, kind: Kind, world: str
) -> None:
    """Bytes that are no message of the request type: INVALID_ARGUMENT, and no decoder's text."""
    handlers = {
        "sync": (one, two, total, each),
        "async": (one_async, two_async, total_async, each_async),
    }
    handler = handlers[world][KINDS.index(kind)]
    with serve(app_with(handler, kind)) as client:
        make = getattr(client.channel, kind.name.lower())
        call = make(f"/{PATHS[kind]}")
        garbage = b"\x0a\xff"
        collect = list if kind.response_streaming else bytes
        with pytest.raises(grpc.RpcError) as caught:
            collect(call(iter([garbage]) if kind.request_streaming else garbage, timeout=WAIT))
    got: Any = caught.value
    assert got.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert got.details() == "the request is not a valid echo.Item"


WRONG_RESPONSES = [
    (
        lambda: Duration(seconds=3),
        "echo.Item: got message google.protobuf.Duration, expected echo.Item",
    ),
    (lambda: None, "echo.Item: got None, expected echo.Item"),
    (lambda: {"numbr": 1}, "echo.Item: no field 'numbr' in echo.Item; did you mean 'number'?"),
    (lambda: {"number": "x"}, "echo.Item.number: got 'x' (str), expected int32"),
]  # fmt: skip


@every_kind
@every_world
@pytest.mark.parametrize(("make", "problem"), WRONG_RESPONSES)
def test_response_of_the_wrong_type_is_not_sent(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    kind: Kind,
    world: str,
    make: Callable[[], Any],
    problem: str,
) -> None:
    """A response is checked before it is sent; the log names the field."""

    def sync_handler(request: Any) -> Any:
        return [make()] if kind.response_streaming else make()

    async def async_handler(request: Any) -> Any:
        return sync_handler(request)

    handler = sync_handler if world == "sync" else async_handler
    got = error_of(serve, kind, app_with(handler, kind))
    assert got.code() == grpc.StatusCode.INTERNAL
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == [problem]


@every_world
def test_stream_handler_that_returns_no_iterable_is_an_error(
    serve: Serve, caplog: pytest.LogCaptureFixture, world: str
) -> None:
    """One message where a stream is due is not sent as something else."""

    def returns(request: Any) -> Any:
        return Item()

    async def returns_async(request: Any) -> Any:
        return Item()

    handler = returns if world == "sync" else returns_async
    got = error_of(serve, Kind.UNARY_STREAM, app_with(handler, Kind.UNARY_STREAM))
    assert got.code() == grpc.StatusCode.INTERNAL
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == [
        "echo.Echo/Down responds with a stream, but its handler returned Item;"
        " yield the messages, or return a list of them"
    ]


def test_cancelled_error_of_its_own_making_gets_a_status(serve: Serve) -> None:
    """A handler that lets a CancelledError out while nobody cancelled it: INTERNAL, no hang."""

    async def handler(request: Any) -> Any:
        raise asyncio.CancelledError

    if not hasattr(asyncio.Task, "cancelling"):
        pytest.skip("Python 3.10 does not tell who cancelled")
    got = error_of(serve, Kind.UNARY_UNARY, app_with(handler, Kind.UNARY_UNARY))
    assert got.code() == grpc.StatusCode.INTERNAL


@every_world
def test_failure_while_closing_does_not_leak(serve: Serve, world: str) -> None:
    """A generator that fails in its own ``finally``, after a response that does not fit."""

    def down(request: Any) -> Iterator[Any]:
        try:
            yield "wrong"
        finally:
            raise ValueError("secret")

    async def down_async(request: Any) -> AsyncIterator[Any]:
        try:
            yield "wrong"
        finally:
            raise ValueError("secret")

    handler = down if world == "sync" else down_async
    got = error_of(serve, Kind.UNARY_STREAM, app_with(handler, Kind.UNARY_STREAM))
    assert got.code() == grpc.StatusCode.INTERNAL
    assert re.fullmatch(r"internal error \(error id [0-9a-f]{16}\)", got.details())


def test_a_plain_function_may_return_an_async_generator_over_its_requests(serve: Serve) -> None:
    """A decorator that forgot async, on a handler of both streams: it runs on the loop."""
    app = app_with(undecorated(each_async), Kind.STREAM_STREAM)
    with serve(app) as client:
        response = client.call(PATHS[Kind.STREAM_STREAM], request_for(Kind.STREAM_STREAM, 1, 2))
    assert numbers_of(response) == [2, 3]


@pytest.mark.parametrize("world", ["forgotten", "async"])
def test_requests_cannot_block_the_loop(
    serve: Serve, caplog: pytest.LogCaptureFixture, world: str
) -> None:
    """A plain ``for`` over requests on the loop is an error that says what to write."""

    async def total_wrong(requests: Any) -> Any:
        return Item(number=sum(request.number for request in requests))

    handler = undecorated(total_wrong) if world == "forgotten" else total_wrong
    got = error_of(serve, Kind.STREAM_UNARY, app_with(handler, Kind.STREAM_UNARY))
    assert got.code() == grpc.StatusCode.INTERNAL
    assert [str(r.exc_info[1]) for r in caplog.records if r.exc_info] == [
        {
            "forgotten": "requests were iterated on the event loop, which would block it; use"
            " 'async for', or declare the handler with 'async def'",
            "async": "the requests of an async handler are iterated by 'async for'",
        }[world]
    ]


def test_what_fails_after_its_call_ended_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can be told, so the log is; a call that was only broken off is no matter."""
    watched = Watched()

    def handler(request: Any, context: Context) -> Any:
        watched.sync_handler(request, context)
        try:
            raise ValueError("too late")
        finally:
            watched.over.set()

    with serve(app_with(handler, Kind.UNARY_UNARY)) as client:
        call = client.method(PATHS[Kind.UNARY_UNARY]).future(Item(), timeout=WAIT)
        assert watched.started.wait(WAIT)
        call.cancel()
        assert watched.over.wait(WAIT)
        while not caplog.records:  # logged on the way out
            pass
    [record] = caplog.records
    where = f"tests.test_handlers.{handler.__qualname__}"
    assert record.getMessage() == f"echo.Echo/Unary failed in {where} after its call had ended"
    assert record.levelno == logging.WARNING


def test_cancel_frees_a_stream_whose_client_does_not_read(serve: Serve) -> None:
    """context.cancel() ends the generator at once, however much is still to be sent."""
    closed, inactive = threading.Event(), []

    def down(request: Any, context: Context) -> Iterator[Any]:
        try:
            for number in itertools.count():
                if number == 5:
                    threading.Thread(target=context.cancel).start()
                yield Item(text="x" * 300_000)
        finally:
            inactive.append(not context.is_active())
            closed.set()

    with serve(app_with(down, Kind.UNARY_STREAM)) as client:
        call = client.method(PATHS[Kind.UNARY_STREAM])(Item(), timeout=WAIT)

        def read() -> None:
            with contextlib.suppress(grpc.RpcError):
                next(call, None)

        reader = threading.Thread(target=read)
        reader.start()
        assert closed.wait(WAIT)
        call.cancel()
        reader.join(WAIT)
    assert inactive == [True]


# ---- cancellation and deadlines


class Watched:
    """Handlers that never end by themselves, and say what they saw."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()
        self.called_back = threading.Event()
        self.over = threading.Event()
        self.inactive = False

    def sync_handler(self, request: Any, context: Context) -> Any:
        context.add_callback(self.called_back.set)
        self.started.set()
        assert self.called_back.wait(WAIT)
        self.inactive = not context.is_active() and context.time_remaining() == 0.0
        assert (context.peer(), context.auth_context()) == ("", {})
        self.ended.set()
        return Item()

    def sync_stream(self, requests: Any, context: Context) -> Iterator[Any]:
        context.add_callback(self.called_back.set)
        self.started.set()
        try:
            while True:
                yield Item(text="x" * 1000)
        finally:
            self.inactive = not context.is_active()
            self.ended.set()

    def sync_reader(self, requests: Iterator[Any], context: Context) -> Any:
        context.add_callback(self.called_back.set)
        self.started.set()
        try:
            return Item(number=len(list(requests)))
        finally:
            assert self.called_back.wait(WAIT)
            self.inactive = not context.is_active()
            self.ended.set()

    async def async_handler(self, request: Any, context: AsyncContext) -> Any:
        context.add_done_callback(lambda _: self.called_back.set())
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.inactive = True
            raise
        finally:
            self.ended.set()

    async def async_stream(self, request: Any, context: AsyncContext) -> AsyncIterator[Any]:
        context.add_done_callback(lambda _: self.called_back.set())
        self.started.set()
        try:
            while True:
                yield Item(text="x" * 1000)
        except (asyncio.CancelledError, GeneratorExit):
            self.inactive = True
            raise
        finally:
            self.ended.set()


def endless(watched: Watched, kind: Kind, world: str) -> Any:
    if world == "async":
        return watched.async_stream if kind.response_streaming else watched.async_handler
    if kind is Kind.STREAM_UNARY:
        return watched.sync_reader
    return watched.sync_stream if kind.response_streaming else watched.sync_handler


@every_kind
@every_world
@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_cancellation_and_deadline_reach_the_handler(
    serve: Serve, caplog: pytest.LogCaptureFixture, kind: Kind, world: str, how: str
) -> None:
    """The handler learns that its call is over: callback, is_active, task and generator."""
    watched = Watched()
    gate = threading.Event()

    def requests() -> Iterator[Any]:
        yield Item()
        gate.wait(WAIT)

    with serve(app_with(endless(watched, kind, world), kind)) as client:
        method = client.method(PATHS[kind])
        start = method.future if not kind.response_streaming else method
        timeout = WAIT if how == "cancel" else 1.0  # in which it has begun, on a busy machine
        call = start(requests() if kind.request_streaming else Item(), timeout=timeout)
        assert watched.started.wait(WAIT)
        if how == "cancel":
            call.cancel()
        assert watched.ended.wait(WAIT)
        assert watched.called_back.wait(WAIT)
        gate.set()
        expected = {"cancel": "CANCELLED", "deadline": "DEADLINE_EXCEEDED"}[how]
        assert call.code() == grpc.StatusCode[expected]
    assert watched.inactive
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


@every_world
def test_client_that_leaves_a_stream_closes_the_generator(serve: Serve, world: str) -> None:
    """A generator is closed at once when its reader goes, not when garbage is collected."""
    watched = Watched()
    handler = endless(watched, Kind.UNARY_STREAM, world)
    with serve(app_with(handler, Kind.UNARY_STREAM)) as client:
        call = client.method(PATHS[Kind.UNARY_STREAM])(Item(), timeout=WAIT)
        next(call)
        call.cancel()
        assert watched.ended.wait(WAIT)


def test_awaitable_of_a_sync_handler_is_cancelled_too(serve: Serve) -> None:
    """What a plain function returned to be awaited ends when its call does."""
    watched = Watched()
    handler = undecorated(watched.async_handler)
    with serve(app_with(lambda request: _only(handler, watched), Kind.UNARY_UNARY)) as client:
        call = client.method(PATHS[Kind.UNARY_UNARY]).future(Item(), timeout=WAIT)
        assert watched.started.wait(WAIT)
        call.cancel()
        assert watched.ended.wait(WAIT)


async def _only(handler: Any, watched: Watched) -> Any:
    watched.started.set()
    try:
        await asyncio.Event().wait()
    finally:
        watched.ended.set()


def test_cancel_from_a_sync_handler_ends_the_call(serve: Serve) -> None:
    """context.cancel() sends CANCELLED."""

    def handler(request: Any, context: Context) -> Any:
        assert context.cancel()
        return Item()

    got = error_of(serve, Kind.UNARY_UNARY, app_with(handler, Kind.UNARY_UNARY))
    assert (got.code(), got.details()) == (grpc.StatusCode.CANCELLED, "cancelled by the server")


@every_kind
def test_a_task_left_behind_may_ask_the_context(serve: Serve, kind: Kind) -> None:
    """A context that outlives its call answers; grpc.aio's own would crash the process."""
    entered, over = threading.Event(), threading.Event()
    asked: list[Any] = []
    left: list[Any] = []

    async def outlive(context: AsyncContext) -> None:
        assert await asyncio.to_thread(over.wait, WAIT)
        asked.extend([context.peer(), context.auth_context(), context.code()])
        asked.extend([context.peer_identities(), context.peer_identity_key()])
        entered.set()

    async def handler(request: Any, context: AsyncContext) -> Any:
        left.append(asyncio.ensure_future(outlive(context)))
        entered.set()
        await asyncio.Event().wait()

    with serve(app_with(handler, kind)) as client:
        request = request_for(kind, 1)
        method = client.method(PATHS[kind])
        start = method if kind.response_streaming else method.future
        call = start(iter(request) if kind.request_streaming else request, timeout=WAIT)
        assert entered.wait(WAIT)
        entered.clear()
        call.cancel()
        for _ in range(3):  # behind the cancellation, on the same connection
            with pytest.raises(grpc.RpcError):
                client.channel.unary_unary("/echo.Echo/Nothing")(b"", timeout=WAIT)  # type: ignore[arg-type]  # bytes
        over.set()
        assert entered.wait(WAIT)
    assert asked == ["", {}, None, None, None]


# ---- bind time


def yields(request: Any) -> Iterator[Any]:
    yield Item()


async def yields_async(request: Any) -> AsyncIterator[Any]:
    yield Item()


def nothing() -> Any: ...


def three(request: Any, context: Any, more: Any) -> Any: ...


def keyword(request: Any, *, more: Any) -> Any: ...


IS_GENERATOR = (
    "is a generator function, but echo.Echo/Unary responds with one message;"
    " return it instead of yielding"
)


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (yields, IS_GENERATOR),
        (yields_async, IS_GENERATOR),
        (nothing, "takes no argument, expected (request) or (request, context)"),
        (three, "takes (request, context, more), expected (request) or (request, context)"),
        (keyword, "needs the keyword argument 'more', which nobody gives it"),
        (Watched, "is a class; give an object of it, or register it with add_servicer()"),
    ],
)  # fmt: skip
def test_misfit_is_an_error_when_bound(handler: Any, problem: str) -> None:
    """What cannot serve is refused when it is bound, with what to do about it."""
    with pytest.raises(BindError) as caught:
        app_with(handler, Kind.UNARY_UNARY).server()
    name = handler.__qualname__
    [told] = caught.value.problems
    assert told.startswith(name)
    assert re.sub(r" \(.*?\.py:\d+\)", "", told, count=1) == f"{name} {problem}"


# ---- what only shows with an engine at hand that misbehaves


class Gone:
    """An engine's async context whose client has gone: everything that is sent is cancelled."""

    active = True

    async def write(self, data: bytes) -> None:
        self.active = False
        raise asyncio.CancelledError

    async def abort(self, *args: Any) -> None:
        await self.write(b"")

    def is_active(self) -> bool:
        return self.active

    def code(self) -> None:
        return None

    def trailing_metadata(self) -> None:
        return None


def behaviour_of(handler: Any, kind: Kind) -> Any:
    """What an engine runs for the handler."""
    method = schema.method(PATHS[kind])
    made: Any = make_method_handler(method, handler, schema, ErrorRules())
    return getattr(made, kind.name.lower())


def test_a_response_that_cannot_be_sent_is_a_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes while a response is written is no error of the handler."""
    closed = []

    async def down(request: Any) -> AsyncIterator[Any]:
        try:
            yield Item()
        finally:
            closed.append(True)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(behaviour_of(down, Kind.UNARY_STREAM)(b"", Gone()))
    assert (closed, caplog.records) == ([True], [])


def test_a_status_that_cannot_be_sent_is_a_cancellation() -> None:
    """A client that goes before it is told of an error does not cause another one."""

    async def one(request: Any) -> Any:
        raise StatusError(grpc.StatusCode.NOT_FOUND)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(behaviour_of(one, Kind.UNARY_UNARY)(b"", Gone()))


def test_keyboard_interrupt_is_left_to_the_program() -> None:
    """Ctrl-C that hits a handler is not turned into a status."""

    async def one(request: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(behaviour_of(one, Kind.UNARY_UNARY)(b"", Gone()))


def test_keyboard_interrupt_while_a_status_is_found_out_is_left_too() -> None:
    """Nor is one that comes when the handler has failed already."""

    class Interrupted(Gone):
        def code(self) -> None:
            raise KeyboardInterrupt

    async def one(request: Any) -> Any:
        raise ValueError

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(behaviour_of(one, Kind.UNARY_UNARY)(b"", Interrupted()))


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=str)
def test_a_call_that_is_thrown_away_does_not_go_on(kind: Kind) -> None:
    """A behaviour whose coroutine is closed, as a loop that ends does it, sends nothing more."""

    class Suspended:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def one(request: Any) -> Any:
        await Suspended()

    coroutine = behaviour_of(one, kind)(b"", Gone())
    coroutine.send(None)
    coroutine.close()  # would be a RuntimeError if it awaited anything


class OnServer:
    """The context of a server without an event loop, as grpc.server's is."""

    def __init__(self) -> None:
        self.aborted: tuple[Any, ...] = ()

    def add_callback(self, callback: Any) -> bool:
        return True

    def is_active(self) -> bool:
        return True

    def code(self) -> None:
        return None

    def trailing_metadata(self) -> None:
        return None

    def abort(self, *args: Any) -> None:
        self.aborted = args
        raise RuntimeError("aborted")


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (lambda request: awaited_one(request), Kind.UNARY_UNARY),  # noqa: PLW0108
        (lambda request: awaited_list(request), Kind.UNARY_STREAM),  # noqa: PLW0108
        (lambda request: two_async(request), Kind.UNARY_STREAM),  # noqa: PLW0108
    ],
)
def test_an_awaitable_without_a_loop_is_an_error_with_the_fix(
    handler: Any, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """On a server that has no event loop the log says what to write."""
    call = OnServer()
    with pytest.raises(RuntimeError, match="aborted"):
        collect(behaviour_of(handler, kind)(b"", call))
    gc.collect()  # what was never awaited would say so here, as a warning
    assert call.aborted[0] == grpc.StatusCode.INTERNAL
    [record] = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == (
        "a sync handler returned an awaitable; declare it with 'async def'"
    )


def collect(answer: Any) -> Any:
    return answer if isinstance(answer, bytes) else list(answer)


def test_a_call_that_ended_before_the_loop_was_asked_is_cancelled() -> None:
    """An awaitable of a call that is over is not left running."""

    class Ended(OnServer):
        def add_callback(self, callback: Any) -> bool:
            callback()  # when there is nothing to cancel yet
            return True

        def is_active(self) -> bool:
            return False

    async def main() -> bool:
        call: Any = Ended()
        call.event_loop = asyncio.get_running_loop()
        behaviour = behaviour_of(lambda request: asyncio.sleep(1000), Kind.UNARY_UNARY)
        with pytest.raises(grpc.RpcError, match="the call was cancelled"):
            await asyncio.to_thread(behaviour, b"", call)
        return True

    assert asyncio.run(asyncio.wait_for(main(), WAIT))


def test_a_long_async_iterable_of_a_sync_handler_registers_one_callback(serve: Serve) -> None:
    """What a plain function returned costs nothing that grows with the stream."""

    class Counted(OnServer):
        count = 0

        def add_callback(self, callback: Any) -> bool:
            self.count += 1
            return True

    async def many(request: Any) -> AsyncIterator[Any]:
        for number in range(100):
            yield Item(number=number)

    async def main() -> tuple[int, int]:
        call: Any = Counted()
        call.event_loop = asyncio.get_running_loop()
        behaviour = behaviour_of(lambda request: many(request), Kind.UNARY_STREAM)  # noqa: PLW0108
        got = await asyncio.to_thread(lambda: list(behaviour(b"", call)))
        return len(got), call.count

    assert asyncio.run(asyncio.wait_for(main(), WAIT)) == (100, 1)


@pytest.mark.parametrize("handler", [operator.itemgetter("x"), iter, functools.partial(iter)])
def test_a_callable_written_in_c_is_taken_for_sync(handler: Any) -> None:
    """What has no signature to look at gets the request alone."""
    assert shape_of(handler) == Shape(is_async=False, is_generator=False, takes_context=False)
