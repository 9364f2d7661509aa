"""Middleware: what runs around handlers of every kind, sync and async, on every engine."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

import grpc
import pytest

from dynserve import App, Kind, StatusError
from dynserve.middleware import Middleware
from tests.conftest import Serve
from tests.echo import ECHO, PATHS, Item, numbers_of, request_for, schema

pytestmark = pytest.mark.usefixtures("engine")

KINDS = list(Kind)
WORLDS = ["sync", "async"]
OK = grpc.StatusCode.OK


def handler_of(kind: Kind, world: str, inside: Callable[[], object]) -> Any:
    """A handler that answers 1 (and, as a stream, 2), after it has called ``inside``."""
    items = [Item(number=1), Item(number=2)]

    def unary(_request: Any) -> Any:
        inside()
        return items[0]

    def stream(_request: Any) -> Iterator[Any]:
        inside()
        yield from items

    async def unary_async(_request: Any) -> Any:
        inside()
        return items[0]

    async def stream_async(_request: Any) -> AsyncIterator[Any]:
        inside()
        for item in items:
            yield item

    if world == "sync":
        return stream if kind.response_streaming else unary
    return stream_async if kind.response_streaming else unary_async


def around(world: str, name: str, log: list[Any]) -> Any:
    """Middleware that notes what it sees: before, and the code or the exception after."""

    def sync(context: Any) -> Generator[None, grpc.StatusCode, None]:
        log.append(f"{name} before {context.method.name}")
        try:
            code = yield
        except BaseException as error:
            log.append(f"{name} {type(error).__name__}: {error}")
            raise
        log.append(f"{name} {code.name}")

    async def on_loop(context: Any) -> AsyncGenerator[None, grpc.StatusCode]:
        log.append(f"{name} before {context.method.name}")
        await asyncio.sleep(0)
        try:
            code = yield
        except BaseException as error:
            log.append(f"{name} {type(error).__name__}: {error}")
            raise
        log.append(f"{name} {code.name}")

    return sync if world == "sync" else on_loop


def answer_of(kind: Kind) -> list[int]:
    return [1, 2] if kind.response_streaming else [1]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_runs_around_the_handler(serve: Serve, kind: Kind, world: str) -> None:
    """App, service, option and method, in that order and the first outermost; sync and async ones
    in any mixture."""
    log: list[Any] = []
    app = App(schema=schema)
    app.add_middleware(around("sync", "app 1", log), around("async", "app 2", log))
    app.add_middleware(around("async", "app 3", log))
    app.service("echo.Echo").add_middleware(around("sync", "service", log))
    app.add(
        handler_of(kind, world, lambda: log.append("handler")),
        PATHS[kind],
        middleware=[around("async", "method 1", log), around("sync", "method 2", log)],
    )
    with serve(app) as client:
        answer = client.call(PATHS[kind], request_for(kind, 0))
    names = ["app 1", "app 2", "app 3", "service", "method 1", "method 2"]
    method = PATHS[kind].partition("/")[2]
    assert (numbers_of(answer), log) == (
        answer_of(kind),
        [
            *(f"{name} before {method}" for name in names),
            "handler",
            *(f"{name} OK" for name in reversed(names)),
        ],
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
def test_sees_the_exception_and_may_change_it(
    serve: Serve, kind: Kind, world: str, mine: str
) -> None:
    """The handler's exception is thrown in at the yield; what comes out is what the call ends
    with."""
    log: list[Any] = []

    def translate(_context: Any) -> Iterator[None]:
        try:
            yield
        except KeyError as error:
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"no {error.args[0]}") from error

    async def translate_async(_context: Any) -> AsyncIterator[None]:
        try:
            yield
        except KeyError as error:
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"no {error.args[0]}") from error

    def fail() -> None:
        raise KeyError("place")

    app = App(schema=schema)
    app.add_middleware(around(mine, "outer", log))
    app.add_middleware(translate if mine == "sync" else translate_async)
    app.add_middleware(around(mine, "inner", log))
    app.add(handler_of(kind, world, fail), PATHS[kind])
    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call(PATHS[kind], request_for(kind, 0))
    method = PATHS[kind].partition("/")[2]
    assert (caught.value.code(), caught.value.details(), log) == (
        grpc.StatusCode.NOT_FOUND,
        "no place",
        [
            f"outer before {method}",
            f"inner before {method}",
            "inner KeyError: 'place'",
            "outer StatusError: NOT_FOUND: no place",
        ],
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
def test_refuses_before_the_handler(serve: Serve, kind: Kind, world: str, mine: str) -> None:
    """A StatusError before the yield is the call's; nothing inside runs, what is outside sees."""
    log: list[Any] = []

    def refuse(context: Any) -> Iterator[None]:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you", [("why", "because")])
        yield

    async def refuse_async(context: Any) -> AsyncIterator[None]:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you", [("why", "because")])
        yield

    app = App(schema=schema)
    app.add_middleware(around(mine, "outer", log), refuse if mine == "sync" else refuse_async)
    app.add_middleware(around(mine, "inner", log))
    app.add(handler_of(kind, world, lambda: log.append("handler")), PATHS[kind])
    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call(PATHS[kind], request_for(kind, 0))
    method = PATHS[kind].partition("/")[2]
    error: Any = caught.value
    assert (error.code(), error.details(), tuple(map(tuple, error.trailing_metadata())), log) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "not for you",
        (("why", "because"),),
        [f"outer before {method}", "outer AbortError: PERMISSION_DENIED: not for you"],
    )


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_lets_an_exception_end(serve: Serve, kind: Kind, world: str, mine: str) -> None:
    """Where it is swallowed the call ends with the code that was set."""

    def forgive(context: Any) -> Iterator[None]:
        try:
            yield
        except KeyError:
            context.set_code(grpc.StatusCode.ABORTED)
            context.set_details("later")

    async def forgive_async(context: Any) -> AsyncIterator[None]:
        try:
            yield
        except KeyError:
            context.set_code(grpc.StatusCode.ABORTED)
            context.set_details("later")

    def fail() -> None:
        raise KeyError

    app = App(schema=schema)
    app.add_middleware(forgive if mine == "sync" else forgive_async)
    app.add(handler_of(kind, world, fail), PATHS[kind])
    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call(PATHS[kind], request_for(kind, 0))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ABORTED, "later")


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
def test_a_call_without_a_response_is_never_ok(
    serve: Serve, world: str, mine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that ends in middleware leaves a stream OK, and a single response INTERNAL."""

    def forgive(_context: Any) -> Iterator[None]:
        with contextlib.suppress(KeyError):
            yield

    async def forgive_async(_context: Any) -> AsyncIterator[None]:
        with contextlib.suppress(KeyError):
            yield

    def fail() -> None:
        raise KeyError

    app = App(schema=schema)
    app.add_middleware(forgive if mine == "sync" else forgive_async)
    for kind in (Kind.UNARY_UNARY, Kind.UNARY_STREAM):
        app.add(handler_of(kind, world, fail), PATHS[kind])
    with serve(app) as client:
        assert client.call(PATHS[Kind.UNARY_STREAM], Item()) == []
        with pytest.raises(grpc.RpcError) as caught:
            client.call(PATHS[Kind.UNARY_UNARY], Item())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert str(caught.value.details()).startswith("internal error (error id ")
    [record] = [r for r in caplog.records if r.name == "dynserve.handlers"]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == (
        "middleware of echo.Echo/Unary let its handler's exception end, but there is no response;"
        " raise a StatusError, or call context.set_code()"
    )


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("mine", "yields", "text"),
    [
        ("sync", 0, "middleware wrong (FILE:N) ended without a yield; raise a"
         " StatusError to refuse a call"),
        ("async", 0, "middleware wrong_async (FILE:N) ended without a yield; raise a"
         " StatusError to refuse a call"),
        ("sync", 2, "middleware wrong has more than one yield"),
        ("async", 2, "middleware wrong_async has more than one yield"),
    ],
)  # fmt: skip
def test_yields_once(
    serve: Serve, world: str, mine: str, yields: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No yield, and a second one, are the server's mistake: INTERNAL, and the log says where."""

    def wrong(_context: Any) -> Iterator[None]:
        for _ in range(yields):
            yield

    async def wrong_async(_context: Any) -> AsyncIterator[None]:
        for _ in range(yields):
            yield

    function = wrong if mine == "sync" else wrong_async
    function.__qualname__ = function.__name__
    app = App(schema=schema)
    app.add_middleware(function)
    app.add(handler_of(Kind.UNARY_UNARY, world, lambda: None), PATHS[Kind.UNARY_UNARY])
    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call(PATHS[Kind.UNARY_UNARY], Item())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    [record] = [r for r in caplog.records if r.name == "dynserve.handlers"]
    assert record.exc_info is not None
    line = function.__code__.co_firstlineno
    assert str(record.exc_info[1]) == text.replace("FILE:N", f"{__file__}:{line}")


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
def test_shares_context_variables_with_the_handler(
    serve: Serve, kind: Kind, world: str, mine: str
) -> None:
    """What it sets the handler finds, and it can take it back after the yield."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    def set_it(_context: Any) -> Iterator[None]:
        token = variable.set("set")
        yield
        variable.reset(token)
        seen.append(variable.get())

    async def set_it_async(_context: Any) -> AsyncIterator[None]:
        token = variable.set("set")
        yield
        variable.reset(token)
        seen.append(variable.get())

    app = App(schema=schema)
    app.add_middleware(set_it if mine == "sync" else set_it_async)
    app.add(handler_of(kind, world, lambda: seen.append(variable.get())), PATHS[kind])
    with serve(app) as client:
        client.call(PATHS[kind], request_for(kind, 0))
    assert seen == ["set", "unset"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_sync_middleware_runs_where_the_handler_does(serve: Serve, kind: Kind, world: str) -> None:
    """On its thread, or on the event loop: no switch of threads."""
    threads: list[int] = []

    def note(_context: Any) -> Iterator[None]:
        threads.append(threading.get_ident())
        yield
        threads.append(threading.get_ident())

    app = App(schema=schema)
    app.add_middleware(note)
    app.add(handler_of(kind, world, lambda: threads.append(threading.get_ident())), PATHS[kind])
    with serve(app) as client:
        client.call(PATHS[kind], request_for(kind, 0))
    assert (len(threads), len(set(threads))) == (3, 1)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
def test_sees_requests_that_do_not_parse(serve: Serve, world: str, mine: str) -> None:
    """Parsing and encoding happen inside."""
    log: list[Any] = []
    app = App(schema=schema)
    app.add_middleware(around(mine, "mine", log))
    app.add(handler_of(Kind.UNARY_UNARY, world, lambda: None), PATHS[Kind.UNARY_UNARY])
    with serve(app) as client:
        call: Any = client.channel.unary_unary(f"/{PATHS[Kind.UNARY_UNARY]}")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff", timeout=20)
    assert (caught.value.details(), log) == (
        "the request is not a valid echo.Item",
        [
            "mine before Unary",
            "mine StatusError: INVALID_ARGUMENT: the request is not a valid echo.Item",
        ],
    )


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("mine", WORLDS)
@pytest.mark.parametrize("kind", [Kind.UNARY_STREAM, Kind.STREAM_STREAM], ids=str)
def test_ends_with_a_cancelled_stream(serve: Serve, kind: Kind, world: str, mine: str) -> None:
    """The client goes away in the middle: what comes after the yield, in a finally, still runs."""
    ended = threading.Event()

    def endless(_request: Any) -> Iterator[Any]:
        while True:
            yield Item(text="x" * 10_000)

    async def endless_async(_request: Any) -> AsyncIterator[Any]:
        while True:
            yield Item(text="x" * 10_000)

    def note(_context: Any) -> Iterator[None]:
        try:
            yield
        finally:
            ended.set()

    async def note_async(_context: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            ended.set()

    app = App(schema=schema)
    app.add_middleware(note if mine == "sync" else note_async)
    app.add(endless if world == "sync" else endless_async, PATHS[kind])
    with serve(app) as client:
        request = request_for(kind, 0)
        call = client.method(PATHS[kind])(iter(request) if kind.request_streaming else request)
        next(call)
        call.cancel()
        assert ended.wait(20)


@pytest.mark.parametrize("world", WORLDS)
def test_a_time_limit_in_async_middleware_ends_the_call(serve: Serve, world: str) -> None:
    """asyncio's own timeouts work around async handlers; a sync one ends first."""
    release = threading.Event()

    async def limit(_context: Any) -> AsyncIterator[None]:
        task = asyncio.current_task()
        assert task is not None
        timer = asyncio.get_running_loop().call_later(0.01, task.cancel)
        try:
            yield
        except asyncio.CancelledError:
            release.set()
            raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "too slow") from None
        finally:
            timer.cancel()

    def wait(_request: Any) -> Any:
        release.wait(20)
        return Item()

    async def wait_async(_request: Any) -> Any:
        await asyncio.sleep(20)
        return Item()

    app = App(schema=schema)
    app.add_middleware(limit)
    app.add(wait if world == "sync" else wait_async, PATHS[Kind.UNARY_UNARY])
    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call(PATHS[Kind.UNARY_UNARY], Item())
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "too slow",
    )


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("before", [True, False])
def test_async_middleware_that_waits_ends_with_its_call(
    serve: Serve, world: str, before: bool
) -> None:
    """Nobody waits for it any more, and no thread is kept: the next call has one."""
    waits, ended = threading.Event(), threading.Event()
    patient = False

    async def wait(_context: Any) -> AsyncIterator[None]:
        if not before:
            yield
        if patient:
            try:
                waits.set()
                await asyncio.sleep(3600)
            finally:
                ended.set()
        if before:
            yield

    app = App(schema=schema)
    app.add_middleware(wait)
    app.add(handler_of(Kind.UNARY_UNARY, world, lambda: None), PATHS[Kind.UNARY_UNARY])
    with serve(app, threads=1) as client:
        patient = True
        call = client.method(PATHS[Kind.UNARY_UNARY]).future(Item())
        assert waits.wait(20)
        call.cancel()
        assert ended.wait(20)
        patient = False
        assert client.call(PATHS[Kind.UNARY_UNARY], Item()).number == 1


def test_middleware_of_an_app_runs_around_those_mounted(serve: Serve) -> None:
    """Outside of their own; what is mounted elsewhere is not touched, health and reflection are
    not either."""
    log: list[Any] = []
    root, inner = App(), App(schema=schema)
    root.add_middleware(around("sync", "root", log))
    inner.add_middleware(around("sync", "inner", log))
    root.mount(inner)
    inner.add(handler_of(Kind.UNARY_UNARY, "sync", lambda: None), PATHS[Kind.UNARY_UNARY])
    with serve(root) as client:
        client.app = inner
        client.call(PATHS[Kind.UNARY_UNARY], Item())
        check: Any = client.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=20) == b"\x08\x01"
    assert log == ["root before Unary", "inner before Unary", "inner OK", "root OK"]


def test_runs_around_a_fallback(serve: Serve) -> None:
    """As around any other handler."""
    log: list[Any] = []
    app = App(schema=schema)
    app.add_middleware(around("sync", "app", log))
    app.fallback(lambda request: Item(number=1))
    with serve(app) as client:
        assert client.call(PATHS[Kind.UNARY_UNARY], Item()).number == 1
    assert log == ["app before Unary", "app OK"]


OPTIONS = """
syntax = "proto3";
package shop;
import "google/protobuf/descriptor.proto";
message Auth { repeated string roles = 1; }
extend google.protobuf.MethodOptions { Auth auth = 50001; bool audited = 50002; }
extend google.protobuf.ServiceOptions { string team = 50003; }
message M {}
service Shop {
  option (team) = "sales";
  rpc Open(M) returns (M);
  rpc Guarded(M) returns (M) {
    option (auth) = { roles: "admin" roles: "owner" };
    option deprecated = true;
  }
  rpc Audited(M) returns (M) { option (audited) = true; }
}
"""


@pytest.mark.parametrize("world", WORLDS)
def test_an_option_applies_middleware_with_its_value(serve: Serve, world: str) -> None:
    """To every method that carries it, custom or standard; a service's option to all of its own."""
    log: list[Any] = []
    app = App(OPTIONS)

    @app.on_option("shop.auth")
    def authorize(context: Any, auth: Any) -> Iterator[None]:
        log.append((context.method.name, "auth", list(auth.roles)))
        yield

    async def audit(context: Any, value: bool) -> AsyncIterator[None]:
        log.append((context.method.name, "audited", value))
        yield

    app.on_option("shop.audited", audit)
    app.on_option("deprecated", audit)

    @app.on_option("shop.team")
    def of_team(context: Any, team: str) -> Iterator[None]:
        log.append((context.method.name, "team", team))
        yield

    M = app.schema.message("shop.M")

    async def answer(_request: Any) -> Any:
        return M()

    for method in ("Open", "Guarded", "Audited"):
        app.add(answer if world == "async" else lambda request: M(), f"shop.Shop/{method}")
    with serve(app) as client:
        for method in ("Open", "Guarded", "Audited"):
            client.call(f"shop.Shop/{method}", M())
    assert log == [
        ("Open", "team", "sales"),
        ("Guarded", "auth", ["admin", "owner"]),
        ("Guarded", "audited", True),
        ("Guarded", "team", "sales"),
        ("Audited", "audited", True),
        ("Audited", "team", "sales"),
    ]


def test_an_option_that_nobody_declares_is_an_error() -> None:
    """The nearest name is told when the server is made."""
    app = App(OPTIONS)

    @app.on_option("shop.auht")
    def authorize(_context: Any, _value: Any) -> Iterator[None]:
        yield

    with pytest.raises(Exception, match="on_option") as caught:
        app.server()
    assert str(caught.value) == (
        "on_option('shop.auht'): no option of methods or services has that name; did you mean"
        " 'shop.auth'?"
    )


def test_what_is_no_middleware_is_refused() -> None:
    """At once, with what is expected."""

    def plain(context: Any) -> None: ...

    def greedy(context: Any, other: Any) -> Iterator[None]:
        yield

    line = greedy.__code__.co_firstlineno
    app = App(ECHO)
    expected = "expected a generator function with one yield: def around(context): ...; yield; ..."
    for given, text in [
        (plain, f"got {plain!r} as middleware, {expected}"),
        (5, f"got 5 as middleware, {expected}"),
        (greedy, f"middleware {greedy.__qualname__} ({__file__}:{line}) does not take (context)"),
        (
            _Interceptor,
            "got the class _Interceptor as an interceptor, expected an object of it:"
            " _Interceptor()",
        ),
    ]:
        with pytest.raises(TypeError) as caught:
            app.add_middleware(given)  # type: ignore[arg-type]
        assert str(caught.value) == text
    assert app.around == ((), ())
    with pytest.raises(TypeError, match=r"does not take \(context, value\)"):
        app.on_option("deprecated", around("sync", "x", []))


class _Interceptor(grpc.ServerInterceptor):
    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return continuation(handler_call_details)


def test_decorators_return_the_function() -> None:
    """It can be called, and used again."""
    app = App(ECHO)
    mine = around("sync", "x", [])
    assert app.middleware(mine) is mine
    assert app.service("echo.Echo").middleware(mine) is mine
    assert [m.where for m in app.around.middleware] == [Middleware(mine).where]
