"""Authentication around handlers: before all else of a call, whoever serves it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dynserve import App, Kind, StatusError
from dynserve.identity import Identity
from dynserve.observer import CallRecord
from dynserve.status import ReceivedError
from tests.conftest import Client, Serve
from tests.echo import PATHS, Item, app_with, schema

Code = grpc.StatusCode
WAIT = 20
WORLDS = ["sync", "async"]
KINDS = list(Kind)
ADA = Identity("ada", "test")
KNOWN = [("who", "ada")]
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
Status = tuple[grpc.StatusCode, str]
STRANGER: Status = (Code.UNAUTHENTICATED, "the call is not authenticated")


def who(context: Any) -> Identity | None:
    """Whoever says that he is Ada."""
    return (
        ADA if ("who", "ada") in [tuple(pair) for pair in context.invocation_metadata()] else None
    )


async def who_async(context: Any) -> Identity | None:
    """The same, where it may have to wait."""
    await asyncio.sleep(0)
    return who(context)


def handler_of(kind: Kind, world: str, log: list[Any]) -> Any:
    """A handler that notes who calls, and answers 1."""

    def unary(_request: Any, context: Any) -> Any:
        log.append(context.identity)
        return Item(number=1)

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield unary(request, context)

    async def unary_async(request: Any, context: Any) -> Any:
        return unary(request, context)

    async def stream_async(request: Any, context: Any) -> AsyncIterator[Any]:
        yield unary(request, context)

    if world == "sync":
        return stream if kind.response_streaming else unary
    return stream_async if kind.response_streaming else unary_async


def asked(client: Client, path: str, request: bytes = b"", **options: Any) -> Status:
    """What a raw call ends with."""
    call: Any = client.channel.stream_stream(path)
    try:
        list(call(iter([request]), timeout=WAIT, **options))
    except grpc.RpcError as error:
        status: Any = error
        return status.code(), status.details()
    return Code.OK, ""


class Waiting:
    """An authenticator that may wait, and offers that beside."""

    def __init__(self, log: list[Any]) -> None:
        self._log = log

    def __call__(self, context: Any) -> Identity | None:
        self._log.append("sync")
        return who(context)

    async def authenticate_async(self, context: Any) -> Identity | None:
        self._log.append("async")
        return await who_async(context)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
def test_the_identity_is_the_contexts(serve: Serve, kind: Kind, world: str, mine: str) -> None:
    """A sync or async authenticator around a sync or async handler; None refuses."""
    log: list[Any] = []
    app = app_with(handler_of(kind, world, log), kind)
    app.auth(who if mine == "sync" else who_async)
    with serve(app) as client:
        found = [asked(client, f"/{PATHS[kind]}", metadata=given) for given in (KNOWN, ())]
    assert (found, log) == ([(Code.OK, ""), STRANGER], [ADA])


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_what_may_wait_waits_on_the_loop(serve: Serve, kind: Kind, world: str) -> None:
    """``authenticate_async`` is preferred on the loop; on a thread it may as well block."""
    log: list[Any] = []
    app = app_with(handler_of(kind, world, log), kind)
    app.auth(Waiting(log))
    with serve(app) as client:
        assert asked(client, f"/{PATHS[kind]}", metadata=KNOWN) == (Code.OK, "")
        assert asked(client, "/no.Such/Method") == STRANGER
    assert log == [world, ADA, "async"]


def _denied(_context: Any) -> Any:
    raise StatusError(Code.PERMISSION_DENIED, "not you", trailing_metadata=[("why", "because")])


def _failed(_context: Any) -> Any:
    raise ValueError("secret")


async def _denied_async(context: Any) -> Any:
    return _denied(context)


async def _failed_async(context: Any) -> Any:
    return _failed(context)


@pytest.mark.parametrize("path", [*PATHS.values(), "no.Such/Method"])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
def test_a_refusal_is_sent_as_it_is(serve: Serve, path: str, world: str, mine: str) -> None:
    """Code, text and metadata of a StatusError; also in front of what is not there."""
    app = App(schema=schema)
    for kind in KINDS:
        app.add(handler_of(kind, world, []), PATHS[kind])
    app.auth(_denied if mine == "sync" else _denied_async)
    with serve(app) as client:
        call: Any = client.channel.stream_stream(f"/{path}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b""]), timeout=WAIT))
    status: Any = caught.value
    assert (status.code(), status.details(), [tuple(p) for p in status.trailing_metadata()]) == (
        Code.PERMISSION_DENIED,
        "not you",
        [("why", "because")],
    )


@pytest.mark.parametrize("path", [*PATHS.values(), "no.Such/Method"])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
def test_a_failure_lets_nobody_in_and_tells_nobody(
    serve: Serve, path: str, world: str, mine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is INTERNAL with an id, under which the log has the exception; no handler runs."""
    log: list[Any] = []
    app = App(schema=schema)
    for kind in KINDS:
        app.add(handler_of(kind, world, log), PATHS[kind])
    app.auth(_failed if mine == "sync" else _failed_async)
    with serve(app) as client:
        code, details = asked(client, f"/{path}", metadata=KNOWN)
    (line,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    identifier = details.removeprefix("internal error (error id ").removesuffix(")")
    assert (code, details, log) == (
        Code.INTERNAL,
        f"internal error (error id {identifier})",
        [],
    )
    assert line.getMessage().endswith(f" (error id {identifier})")
    assert line.exc_info
    assert repr(line.exc_info[1]) == "ValueError('secret')"


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
def test_nothing_runs_before_authentication(
    serve: Serve, kind: Kind, world: str, mine: str
) -> None:
    """Neither parsing nor middleware: a stranger learns nothing of either."""
    log: list[Any] = []

    def middleware(context: Any) -> Iterator[None]:
        log.append(f"middleware for {context.identity}")
        yield

    async def middleware_async(context: Any) -> AsyncIterator[None]:
        log.append(f"middleware for {context.identity}")
        yield

    async def read(requests: Any) -> Any:
        return [request async for request in requests]

    def take(requests: Any, _context: Any) -> Any:
        return next(iter(requests)) if kind.request_streaming else requests

    async def take_async(requests: Any, _context: Any) -> Any:
        return (await read(requests))[0] if kind.request_streaming else requests

    def takes(requests: Any, context: Any) -> Any:
        yield take(requests, context)

    async def takes_async(requests: Any, context: Any) -> Any:
        yield await take_async(requests, context)

    handlers = {("sync", False): take, ("sync", True): takes}
    more: Any = {("async", False): take_async, ("async", True): takes_async}
    app = app_with((handlers | more)[world, kind.response_streaming], kind)
    app.auth(who)
    app.add_middleware(middleware if mine == "sync" else middleware_async)
    with serve(app) as client:
        refused = asked(client, f"/{PATHS[kind]}", b"\xff")
        seen = list(log)
        parsed = asked(client, f"/{PATHS[kind]}", b"\xff", metadata=KNOWN)
    assert (refused, seen) == (STRANGER, [])
    assert parsed == (Code.INVALID_ARGUMENT, "the request is not a valid echo.Item")
    assert log == [f"middleware for {ADA}"]


@pytest.mark.parametrize("mine", WORLDS)
def test_names_are_told_to_those_who_may_call_only(serve: Serve, mine: str) -> None:
    """To a stranger what is there, what is near, and what is not are all the same."""
    app = App(schema=schema)
    app.auth(who if mine == "sync" else who_async)
    paths = ["/echo.Echo/Unary", "/echo.Echo/Unari", "/echo.Eco/Unary", "/", "/x"]
    with serve(app) as client:
        stranger = [asked(client, path) for path in paths]
        known = [asked(client, path, metadata=KNOWN)[1] for path in paths]
    assert stranger == [STRANGER] * len(paths)
    assert known == [
        "method echo.Echo/Unary is not implemented on this server",
        "unknown method 'Unari' of service 'echo.Echo'; did you mean 'Unary'?",
        "unknown service 'echo.Eco'; did you mean 'echo.Echo'?",
        "unknown service ''",
        "unknown service ''",
    ]


@pytest.mark.parametrize(
    ("options", "health", "reflection"),
    [
        ({}, True, False),
        ({"health": "required"}, False, False),
        ({"reflection": "open"}, True, True),
        ({"health": "required", "reflection": "open"}, False, True),
    ],
)
def test_the_servers_own_services(
    serve: Serve, options: dict[str, Any], health: bool, reflection: bool
) -> None:
    """By default health is open and reflection is not; who may call may use both."""
    app = App(schema=schema)
    app.auth(who, **options)

    def found(client: Client, **given: Any) -> list[bool]:
        check = asked(client, "/grpc.health.v1.Health/Check", **given)
        shown = [
            asked(client, path, b"\x3a\x00", **given)
            for path in (REFLECTION, REFLECTION.replace("v1.", "v1alpha."))
        ]
        assert {check, *shown} <= {(Code.OK, ""), STRANGER}
        return [status[0] is Code.OK for status in (check, *shown)]

    with serve(app) as client:
        strangers, known = found(client), found(client, metadata=KNOWN)
        stub: Any = health_pb2_grpc.HealthStub(client.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
        with contextlib.suppress(grpc.RpcError):
            next(watch)
        watching = watch.is_active()
        watch.cancel()
    assert (strangers, known, watching) == (
        [health, reflection, reflection],
        [True] * 3,
        health,
    )


class Kept:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.begun: queue.Queue[CallRecord] = queue.Queue()
        self.ended: queue.Queue[CallRecord] = queue.Queue()

    def begin(self, record: CallRecord, /) -> None:
        """Keep it."""
        self.begun.put(record)

    def end(self, record: CallRecord, _token: None, /) -> None:
        """Keep it."""
        self.ended.put(record)


@pytest.mark.parametrize("given", [True, False, "ada", {}])
@pytest.mark.parametrize("path", [*PATHS.values(), "no.Such/Method"])
def test_what_is_no_identity_lets_nobody_in(
    serve: Serve, path: str, given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It may mean anything; the log says what an authenticator returns."""
    log: list[Any] = []
    app = App(schema=schema)
    for kind in KINDS:
        app.add(handler_of(kind, "sync", log), PATHS[kind])
    app.auth(lambda _: given)
    with serve(app) as client:
        code, details = asked(client, f"/{path}")
    assert (code, details.partition("(")[0], log) == (Code.INTERNAL, "internal error ", [])
    (line,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert line.exc_info
    assert str(line.exc_info[1]) == (
        f"an authenticator returned {type(given).__name__}, expected an Identity, or None to refuse"
    )


@pytest.mark.parametrize("path", [*PATHS.values(), "no.Such/Method"])
@pytest.mark.parametrize("world", WORLDS)
def test_observers_see_who_calls_and_who_is_refused(serve: Serve, path: str, world: str) -> None:
    """The identity is in the context at the end; of a stranger there is none."""
    app, kept = App(schema=schema), Kept()
    for kind in KINDS:
        app.add(handler_of(kind, world, []), PATHS[kind])
    app.auth(who)
    with serve(app, observers=[kept]) as client:
        told = []
        for metadata in (KNOWN, []):
            status = asked(client, f"/{path}", metadata=metadata)
            record = kept.ended.get(timeout=WAIT)
            context: Any = record.context
            told.append((context.identity, record.code, record.details))
            assert told[-1][1:] == status
    is_there = path in PATHS.values()
    assert told == [
        (ADA, Code.OK, "") if is_there else (ADA, Code.UNIMPLEMENTED, "unknown service 'no.Such'"),
        (None, *STRANGER),
    ]


@pytest.mark.parametrize("path", [*PATHS.values(), "no.Such/Method"])
@pytest.mark.parametrize("world", WORLDS)
def test_a_call_that_is_cancelled_while_it_is_authenticated_ends(
    serve: Serve, path: str, world: str
) -> None:
    """What observers were told the beginning of, they are told the end of."""
    app, kept = App(schema=schema), Kept()
    entered = threading.Event()

    async def wait(_context: Any) -> Any:
        entered.set()
        await asyncio.Event().wait()

    for kind in KINDS:
        app.add(handler_of(kind, world, []), PATHS[kind])
    app.auth(wait)
    with serve(app, observers=[kept]) as client:
        make: Any = client.channel.stream_stream(f"/{path}")
        call = make(iter([b""]), timeout=WAIT)
        assert entered.wait(WAIT)
        call.cancel()
        record = kept.ended.get(timeout=WAIT)
    assert kept.begun.get(timeout=WAIT) is record
    assert (record.path, record.code, record.details) == (f"/{path}", Code.CANCELLED, "")


@pytest.mark.parametrize("path", [*PATHS.values(), "no.Such/Method"])
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
def test_what_another_service_said_is_not_told(
    serve: Serve, path: str, world: str, mine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An authenticator that asks another service, which fails, does not tell its address."""

    def ask(_context: Any) -> Any:
        raise ReceivedError(Code.UNAVAILABLE, "cannot connect to 10.0.0.5:443")

    async def ask_async(context: Any) -> Any:
        return ask(context)

    app = App(schema=schema)
    for kind in KINDS:
        app.add(handler_of(kind, world, []), PATHS[kind])
    app.auth(ask if mine == "sync" else ask_async)
    with serve(app) as client:
        code, details = asked(client, f"/{path}")
    (line,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    text, _, identifier = details.removesuffix(")").partition(" (error id ")
    assert (code, text) == (Code.UNAVAILABLE, "a call to another service failed")
    assert line.getMessage().endswith(f" (error id {identifier})")
