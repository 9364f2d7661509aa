"""Lifespan: what an app starts before it serves and ends afterwards, and the state of contexts."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from dynserve import AddressError, App, AsyncContext, Context, Kind
from dynserve.testing import FakeContext
from tests.conftest import Serve
from tests.echo import ECHO, PATHS, Item, app_with, numbers_of, request_for, schema

pytestmark = pytest.mark.usefixtures("engine")


@dataclasses.dataclass
class State:
    number: int


def lifespan_of(
    world: str, log: list[str], name: str = "app", number: int = 5
) -> Callable[[], Any]:
    def sync() -> Iterator[State]:
        log.append(f"{name} starts")
        yield State(number)
        log.append(f"{name} ends")

    async def on_loop() -> AsyncIterator[State]:
        await asyncio.sleep(0)
        log.append(f"{name} starts")
        yield State(number)
        await asyncio.sleep(0)
        log.append(f"{name} ends")

    return sync if world == "sync" else on_loop


def handler_of(kind: Kind, world: str) -> Any:
    """A handler that answers the state."""

    def unary(_request: Any, context: Context[State]) -> Any:
        return Item(number=context.state.number)

    def stream(_request: Any, context: Context[State]) -> Iterator[Any]:
        yield Item(number=context.state.number)

    async def unary_async(_request: Any, context: AsyncContext[State]) -> Any:
        return Item(number=context.state.number)

    async def stream_async(_request: Any, context: AsyncContext[State]) -> AsyncIterator[Any]:
        yield Item(number=context.state.number)

    if world == "sync":
        return stream if kind.response_streaming else unary
    return stream_async if kind.response_streaming else unary_async


@pytest.mark.parametrize("kind", list(Kind), ids=str)
@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("mine", ["sync", "async"])
@pytest.mark.parametrize("surrounded", [False, True])
def test_handlers_reach_the_state(
    serve: Serve, kind: Kind, world: str, mine: str, surrounded: bool
) -> None:
    """What the lifespan yields is the state of every context; it starts before and ends after."""
    log: list[str] = []
    app = app_with(handler_of(kind, world), kind)
    assert app.lifespan(lifespan := lifespan_of(mine, log)) is lifespan
    if surrounded:

        def note(context: Any) -> Iterator[None]:
            log.append(f"called with {context.state}")
            yield

        app.add_middleware(note)
    with serve(app) as client:
        answer = client.call(PATHS[kind], request_for(kind, 0))
        log.append("served")
    called = ["called with State(number=5)"] if surrounded else []
    assert (numbers_of(answer), log) == ([5], ["app starts", *called, "served", "app ends"])


def test_each_app_has_its_own(serve: Serve) -> None:
    """That of the app which mounts starts first and ends last; each run has a state of its own."""
    log: list[str] = []
    root, inner = (
        App('syntax = "proto3"; package other;'),
        app_with(handler_of(Kind.UNARY_UNARY, "sync"), Kind.UNARY_UNARY),
    )
    root.lifespan(lifespan_of("async", log, "root"))
    inner.lifespan(lifespan_of("sync", log, "inner", 7))
    root.mount(inner)
    for _ in range(2):
        with serve(root) as client:
            client.app = inner
            assert client.call(PATHS[Kind.UNARY_UNARY], Item()).number == 7
    assert log == ["root starts", "inner starts", "inner ends", "root ends"] * 2


def test_a_server_that_cannot_listen_ends_what_it_started() -> None:
    """A start that fails leaves nothing behind, and may be repeated."""
    log: list[str] = []
    app = App(schema=schema)
    app.lifespan(lifespan_of("async", log))
    with pytest.raises(AddressError), app.server("nonsense").in_thread():
        pass
    assert log == ["app starts", "app ends"]


@pytest.mark.parametrize("mine", ["sync", "async"])
def test_what_a_lifespan_raises_keeps_the_server_from_starting(mine: str) -> None:
    """The error is raised to who starts it; what was started before ends."""
    log: list[str] = []

    def sync() -> Iterator[None]:
        if log:
            raise ConnectionError("no database")
        yield

    async def on_loop() -> AsyncIterator[None]:
        if log:
            raise ConnectionError("no database")
        yield

    root, inner = App('syntax = "proto3"; package other;'), App(schema=schema)
    root.mount(inner)
    root.lifespan(lifespan_of(mine, log))
    inner.lifespan(sync if mine == "sync" else on_loop)
    with (
        pytest.raises(ConnectionError, match="no database"),
        root.server("127.0.0.1:0").in_thread(),
    ):
        pass
    assert log == ["app starts", "app ends"]


@pytest.mark.parametrize("mine", ["sync", "async"])
@pytest.mark.parametrize("yields", [0, 2])
def test_yields_once(mine: str, yields: int, caplog: pytest.LogCaptureFixture) -> None:
    """Without a yield nothing is served; a second one is logged, and does not keep the server."""

    def wrong() -> Iterator[None]:
        for _ in range(yields):
            yield

    async def wrong_async() -> AsyncIterator[None]:
        for _ in range(yields):
            yield

    function = wrong if mine == "sync" else wrong_async
    app = App(schema=schema)
    app.lifespan(function)
    told = f"lifespan {function.__qualname__} ({__file__}:{function.__code__.co_firstlineno})"
    server = app.server("127.0.0.1:0")
    if yields == 0:
        with pytest.raises(RuntimeError) as caught, server.in_thread():
            pass
        assert str(caught.value) == f"{told} ended without a yield"
        return
    with server.in_thread():
        pass
    [record] = [r for r in caplog.records if r.name == "dynserve.server"]
    assert record.getMessage() == "the lifespan of an app failed at its end"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == f"{told} has more than one yield"


def test_replaced_apps_keep_what_runs(serve: Serve) -> None:
    """A lifespan that runs goes on with new routes; a new one starts, all end with the server."""
    log: list[str] = []
    old = app_with(handler_of(Kind.UNARY_UNARY, "async"), Kind.UNARY_UNARY)
    old.lifespan(lifespan_of("async", log, "old", 1))
    new = app_with(handler_of(Kind.UNARY_UNARY, "async"), Kind.UNARY_UNARY)
    new.lifespan(lifespan_of("async", log, "new", 2))

    async def main() -> None:
        async with old.server("127.0.0.1:0") as server:
            await server.replace(old)
            await server.replace(new)
            await server.replace(old)

    asyncio.run(main())
    assert log == ["old starts", "new starts", "new ends", "old ends"]


def test_what_is_no_lifespan_is_refused() -> None:
    """At once, with what is expected; and one app has one."""

    def plain() -> None: ...

    def greedy(app: Any) -> Iterator[None]:
        yield

    expected = (
        "expected a generator function with one yield and no argument: def lifespan(): ...; yield"
        " state; ..."
    )
    app = App(ECHO)
    where = f"{greedy.__qualname__} ({__file__}:{greedy.__code__.co_firstlineno})"
    cases: list[tuple[Any, str]] = [
        (plain, f"got {plain!r} as a lifespan, {expected}"),
        (greedy, f"lifespan {where} wants arguments, {expected}"),
    ]
    for given, text in cases:
        with pytest.raises(TypeError) as caught:
            app.lifespan(given)
        assert str(caught.value) == text
    mine: Any = lifespan_of("sync", [])
    app.lifespan(mine)
    with pytest.raises(ValueError, match="the app has a lifespan") as again:
        app.lifespan(mine)
    line = mine.__code__.co_firstlineno
    assert str(again.value) == f"the app has a lifespan: {mine.__qualname__} ({__file__}:{line})"


def test_a_state_that_nobody_made_is_an_error() -> None:
    """It tells what to write."""
    with pytest.raises(RuntimeError) as caught:
        _ = FakeContext().state
    assert str(caught.value) == "there is no state: the app has no @app.lifespan that yields it"
    assert FakeContext(state=State(3)).state == State(3)
