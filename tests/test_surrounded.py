"""Observers around handlers: what they are told of each call, on every engine."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dynserve import Kind, StatusError
from dynserve.identity import Identity
from dynserve.observer import CallRecord
from tests.conftest import Serve
from tests.echo import PATHS, Item, app_with, request_for, schema
from tests.witness import ERROR_ID, WAIT, Told, Witness, handler_of, status_of

Code = grpc.StatusCode
WORLDS = ["sync", "async"]
KINDS = list(Kind)


def _status(_context: Any) -> None:
    raise StatusError(Code.NOT_FOUND, "no such thing")


def _abort(context: Any) -> None:
    context.abort(Code.PERMISSION_DENIED, "not for you")


def _fail(_context: Any) -> None:
    raise ValueError("secret")


def _set_code(context: Any) -> None:
    context.set_code(Code.ABORTED)
    context.set_details("later")


def _set_code_and_fail(context: Any) -> None:
    _set_code(context)
    raise KeyError("secret")


ENDS: dict[str, tuple[Callable[[Any], object], grpc.StatusCode, str, str]] = {
    "ok": (lambda _context: None, Code.OK, "", ""),
    "status": (
        _status,
        Code.NOT_FOUND,
        "no such thing",
        "StatusError(<StatusCode.NOT_FOUND: (5, 'not found')>, 'no such thing')",
    ),
    "abort": (
        _abort,
        Code.PERMISSION_DENIED,
        "not for you",
        "AbortError(<StatusCode.PERMISSION_DENIED: (7, 'permission denied')>, 'not for you')",
    ),
    "exception": (_fail, Code.INTERNAL, "internal error (error id ID)", "ValueError('secret')"),
    "code": (_set_code, Code.ABORTED, "later", ""),
    "code and exception": (_set_code_and_fail, Code.ABORTED, "later", "KeyError('secret')"),
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("end", ENDS)
def test_what_is_told_of_a_call(serve: Serve, kind: Kind, world: str, end: str) -> None:
    """The whole record, with the status that the client gets, and the id of what it is not told."""
    finish, code, details, error = ENDS[end]
    witness = Witness()
    with serve(app_with(handler_of(kind, world, finish), kind), observers=[witness]) as client:
        status = status_of(client, kind)
        told = witness.told()
    requests = 2 if kind.request_streaming else 1
    answered = int(error == "")
    assert told == Told(
        f"/{PATHS[kind]}",
        PATHS[kind],
        code,
        details,
        error,
        (requests, 2 * requests),
        (answered, 2 * answered),
        None,
    )
    assert (status[0], ERROR_ID.sub("(error id ID)", status[1])) == (code, details)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_a_request_that_does_not_parse_counts(serve: Serve, kind: Kind, world: str) -> None:
    """As a message with its bytes; the call ends with the status that the client gets."""
    witness = Witness()
    app = app_with(handler_of(kind, world, lambda _: None), kind)
    with serve(app, observers=[witness]) as client:
        call: Any = client.channel.stream_stream(f"/{PATHS[kind]}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b"\xff\xff\xff"]), timeout=WAIT))
        told = witness.told()
    status: Any = caught.value
    text = "the request is not a valid echo.Item"
    assert (status.code(), status.details()) == (Code.INVALID_ARGUMENT, text)
    assert told == Told(
        f"/{PATHS[kind]}",
        PATHS[kind],
        Code.INVALID_ARGUMENT,
        text,
        f"StatusError(<StatusCode.INVALID_ARGUMENT: (3, 'invalid argument')>, '{text}')",
        (1, 3),
        (0, 0),
        None,
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_a_response_of_the_wrong_type_does_not_count(serve: Serve, kind: Kind, world: str) -> None:
    """It was not sent; the client gets an id, and the observer the error."""
    witness = Witness()
    wrong: Any = schema.message("echo.Other")(number=1)

    async def answer(_request: Any) -> Any:
        return wrong

    async def answers(_request: Any) -> AsyncIterator[Any]:
        yield wrong

    handler: Any = (lambda _: [wrong]) if kind.response_streaming else (lambda _: wrong)
    if world == "async":
        handler = answers if kind.response_streaming else answer
    with serve(app_with(handler, kind), observers=[witness]) as client:
        status = status_of(client, kind)
        told = witness.told()
    text = "internal error (error id ID)"
    assert (status[0], ERROR_ID.sub("(error id ID)", status[1])) == (Code.INTERNAL, text)
    assert (told.code, told.details, told.response) == (Code.INTERNAL, text, (0, 0))
    assert told.error.startswith("MessageError(")


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_a_cancelled_call_whose_handler_goes_on_is_no_success(
    serve: Serve, engine: str, kind: Kind, world: str
) -> None:
    """Nobody gets what it returns: the call has ended with CANCELLED."""
    if (engine, world) == ("aio", "async") and sys.version_info < (3, 11):
        pytest.skip("a task of Python 3.10 does not know that it was cancelled")
    witness, entered = Witness(), threading.Event()
    items: list[Any] = []

    def wait(context: Any) -> None:
        over = threading.Event()
        if not context.add_callback(over.set):
            over.set()
        entered.set()
        over.wait(WAIT)
        time.sleep(0.02)  # of a quick call it is not asked whether it is over

    async def wait_async() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # as a handler does that cleans up, and forgets to raise
            return

    async def unary_async(_request: Any) -> Any:
        await wait_async()
        return Item(number=1)

    async def stream_async(_request: Any) -> Any:
        await wait_async()
        for item in items:
            yield item

    handler = handler_of(kind, "sync", wait)
    if world == "async":
        handler = stream_async if kind.response_streaming else unary_async
    with serve(app_with(handler, kind), observers=[witness]) as client:
        request = request_for(kind, 1)
        method = client.method(PATHS[kind])
        make = method if kind.response_streaming else method.future
        call = make(iter(request) if kind.request_streaming else request, timeout=WAIT)
        assert entered.wait(WAIT)
        call.cancel()
        told = witness.told()
    assert (told.code, told.details) == (Code.CANCELLED, "")


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_an_observer_that_fails_costs_no_call(
    serve: Serve, kind: Kind, world: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raises, at the beginning or the end, is logged; the others see the call."""

    class Failing:
        def __init__(self, name: str, at: str) -> None:
            self.name, self.at = name, at

        def __repr__(self) -> str:
            return self.name

        def begin(self, _record: CallRecord, /) -> None:
            if self.at == "begin":
                raise ValueError("no beginning")

        def end(self, _record: CallRecord, token: None, /) -> None:
            if self.at == "begin":
                raise AssertionError("told of an end without a beginning")
            raise ValueError("no end")

    witness = Witness()
    observers = [witness, Failing("first", "begin"), Failing("second", "end")]
    with serve(
        app_with(handler_of(kind, world, lambda _: None), kind), observers=observers
    ) as client:
        assert status_of(client, kind) == (Code.OK, "")
        assert witness.told().code is Code.OK
    lines = [
        (r.name, r.levelname, r.getMessage(), repr(r.exc_info[1]) if r.exc_info else "")
        for r in caplog.records
        if r.levelno >= logging.WARNING
    ]
    assert lines == [
        (
            "dynserve.server",
            "ERROR",
            "observer first failed at the beginning of a call",
            "ValueError('no beginning')",
        ),
        (
            "dynserve.server",
            "ERROR",
            "observer second failed at the end of a call",
            "ValueError('no end')",
        ),
    ]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_observers_are_outermost_and_share_the_context(
    serve: Serve, kind: Kind, world: str
) -> None:
    """The first begins first and ends last, around authentication and middleware; on one thread,
    with the context variables of the handler."""
    log: list[str] = []
    threads: set[int] = set()
    trail: contextvars.ContextVar[str] = contextvars.ContextVar("trail", default="")
    over = threading.Event()

    def note(what: str) -> None:
        threads.add(threading.get_ident())
        log.append(f"{what} in {trail.get()}")

    class Noting:
        def __init__(self, name: str) -> None:
            self.name = name

        def begin(self, _record: CallRecord, /) -> contextvars.Token[str]:
            note(f"{self.name} begins")
            return trail.set(f"{trail.get()}/{self.name}")

        def end(self, record: CallRecord, token: contextvars.Token[str], /) -> None:
            trail.reset(token)
            note(f"{self.name} ends with {record.code and record.code.name}")
            if self.name == "first":
                over.set()

    def authenticate(_context: Any) -> Any:
        note("authentication")
        return Identity("ada", "test")

    def middleware(_context: Any) -> Iterator[None]:
        note("middleware")
        yield
        note("middleware again")

    app = app_with(handler_of(kind, world, lambda _: note("handler")), kind)
    app.auth(authenticate)
    app.add_middleware(middleware)
    with serve(app, observers=[Noting("first"), Noting("second")]) as client:
        assert status_of(client, kind) == (Code.OK, "")
        assert over.wait(WAIT)
    assert log == [
        "first begins in ",
        "second begins in /first",
        "authentication in /first/second",
        "middleware in /first/second",
        "handler in /first/second",
        "middleware again in /first/second",
        "second ends with OK in /first",
        "first ends with OK in ",
    ]
    assert len(threads) == 1


def test_calls_of_the_servers_own_services_are_not_seen(serve: Serve) -> None:
    """Health and reflection are no calls of a user's; of the one call that is, all is seen."""
    witness = Witness()
    app = app_with(handler_of(Kind.UNARY_UNARY, "sync", lambda _: None), Kind.UNARY_UNARY)
    with serve(app, observers=[witness]) as client:
        stub: Any = health_pb2_grpc.HealthStub(client.channel)
        stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT)
        call: Any = client.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        )
        assert len(list(call(iter([b"\x3a\x00"]), timeout=WAIT))) == 1
        assert status_of(client, Kind.UNARY_UNARY) == (Code.OK, "")
        witness.told()
    assert witness.begun == ["/echo.Echo/Unary"]
