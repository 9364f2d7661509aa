"""How calls end that cross over to the other world, and that they leave nothing behind."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from dynserve import Kind, StatusError
from dynserve.interceptors import Threads
from dynserve.interceptors.crossing import Flow
from dynserve.interceptors.threads import NoThreadError, ThreadPool
from dynserve.testing import FakeContext
from tests.conftest import Serve
from tests.echo import PATHS, Item
from tests.interceptors import (
    KINDS,
    Sync,
    app_of,
    fit,
    handlers_of,
    outcome,
    plus_ten,
    stack,
)

WAIT = 20
every_world = pytest.mark.parametrize("world", ["sync", "async"])
every_stack = pytest.mark.parametrize("names", ["S", "A", "SA", "AS", "ASA"])

seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="")


# ---- the end of a call


@every_stack
@every_world
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_cancelled_call_ends_its_handler(
    serve: Serve, world: str, names: str, kind: Kind
) -> None:
    """The client cancels: async handlers get CancelledError, sync ones learn it; all end."""
    running, ended = threading.Event(), threading.Event()

    async def unary_async(request: Any, context: Any) -> Any:
        try:
            running.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    async def stream_async(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            running.set()
            while True:
                yield Item()
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    def unary(request: Any, context: Any) -> Any:
        gone = threading.Event()
        assert context.add_callback(gone.set)
        running.set()
        if gone.wait(WAIT) and not context.is_active() and context.peer() == "":
            ended.set()
        assert not context.add_callback(gone.set)
        return Item()

    def stream(request: Any, context: Any) -> Iterator[Any]:
        try:
            while True:
                yield Item()
                running.set()
        finally:
            ended.set()

    streams_out = kind.response_streaming
    handler = {
        ("sync", False): unary,
        ("sync", True): stream,
        ("async", False): unary_async,
        ("async", True): stream_async,
    }[world, streams_out]
    with serve(app_of({kind: handler}, stack(names, []))) as client:
        hold = threading.Event()

        def requests() -> Iterator[Any]:
            yield Item()
            hold.wait(WAIT)

        method = client.method(PATHS[kind])
        request = requests() if kind.request_streaming else Item()
        call = method(request) if streams_out else method.future(request)
        assert running.wait(WAIT)
        call.cancel()
        assert ended.wait(WAIT)
        hold.set()


@pytest.mark.parametrize("names", ["S", "AS"])
def test_callbacks_of_an_async_handler(serve: Serve, names: str) -> None:
    """They run on the loop when the call ends, and are told whether it was cancelled."""
    told: queue.Queue[Any] = queue.Queue()

    async def register(request: Any, context: Any) -> Any:
        def done(context: Any) -> None:
            told.put((context.done(), context.cancelled(), asyncio.get_running_loop() is not None))

        context.add_done_callback(done)
        return Item()

    with serve(app_of({Kind.UNARY_UNARY: register}, stack(names, []))) as client:
        client.call(PATHS[Kind.UNARY_UNARY], Item())
        assert told.get(timeout=WAIT) == (True, False, True)


def _is_ours(task: Any) -> bool:
    return "interceptors" in repr(task.get_coro())


@every_world
@every_stack
def test_nothing_is_left_behind(serve: Serve, world: str, names: str) -> None:
    """After calls that ended well, badly, or not at all, there is no task and no busy thread."""

    def do(request: Any, context: Any) -> Any:
        if request.number == 2:
            raise StatusError(grpc.StatusCode.ABORTED)
        return Item()

    async def count(request: Any) -> Any:
        mine = asyncio.current_task()
        while tasks := [t for t in asyncio.all_tasks() if t is not mine and _is_ours(t)]:
            await asyncio.wait(tasks)
        return Item()

    threads = Threads()
    handlers = handlers_of(world, do)
    del handlers[Kind.UNARY_UNARY]
    app = app_of(handlers, stack(names, []), threads=threads)
    app.add(count, PATHS[Kind.UNARY_UNARY])
    with serve(app) as client:
        for kind in handlers:
            for _ in range(3):
                outcome(client, kind)
        client.call(PATHS[Kind.UNARY_UNARY], Item())
        while any(pool._threads > pool._idle for pool in (threads.unary, threads.streams)):
            threading.Event().wait(0.001)


@pytest.mark.parametrize("names", ["S", "SA", "AS"])
def test_a_cancelled_error_of_the_handlers_own(
    serve: Serve, names: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An async handler that lets one out, but was not cancelled, has failed: the call ends."""

    async def leak(request: Any) -> Any:
        raise asyncio.CancelledError

    with serve(app_of({Kind.UNARY_UNARY: leak}, stack(names, []))) as client:
        assert outcome(client, Kind.UNARY_UNARY)[0] is grpc.StatusCode.INTERNAL
    told = "an async handler let a CancelledError out, but was not cancelled\n"
    assert f"RuntimeError: {told}" in caplog.text


@pytest.mark.parametrize("kind", [Kind.UNARY_UNARY, Kind.UNARY_STREAM], ids=str)
def test_without_a_server(kind: Kind) -> None:
    """Sync code is called as it is; what would need the loop tells what to write."""

    async def late(request: Any) -> Any:
        return [request]

    def called(handler: Any) -> Any:
        response = fit(handler, kind, [Sync()])(Item(number=1), FakeContext())
        return list(response) if kind.response_streaming else response

    direct = {
        Kind.UNARY_UNARY: lambda request: request,
        Kind.UNARY_STREAM: lambda request: [request],
    }
    got = called(direct[kind])
    assert got == ([Item(number=1)] if kind.response_streaming else Item(number=1))
    with pytest.raises(TypeError) as caught:
        called(lambda request: late(request))  # noqa: PLW0108 - it is not async itself
    told = "a sync handler returned an awaitable; declare it with 'async def'"
    assert str(caught.value) == told


def test_sync_code_on_the_loop() -> None:
    """Where waiting for the loop would be for ever, it is refused with a reason."""

    async def main() -> str:
        flow = Flow(None, asyncio.get_running_loop(), Threads(), is_sync=False)
        with pytest.raises(TypeError) as caught:
            flow.wait(main)
        return str(caught.value)

    assert asyncio.run(main()) == (
        "what a sync handler was given was used on the event loop, which would block it; declare"
        " the handler with 'async def'"
    )


def test_a_loop_that_is_gone_and_a_call_that_is_over() -> None:
    """Whatever crosses over late raises, rather than waits for what nobody does any more."""

    async def work() -> None:
        """Not begun."""

    loop = asyncio.new_event_loop()
    over = Flow(None, loop, Threads(), is_sync=False)
    running = threading.Thread(target=loop.run_forever)
    running.start()
    with over:
        pass
    with pytest.raises(grpc.RpcError) as cancelled:
        over.wait(work)
    loop.call_soon_threadsafe(loop.stop)
    running.join()
    loop.close()
    with pytest.raises(grpc.RpcError) as stopped:
        Flow(None, loop, Threads(), is_sync=False).wait(work)
    texts = [str(one.value) for one in (cancelled, stopped)]
    assert texts == ["the call was cancelled", "the server has stopped"]


def test_a_callback_that_fails_or_finds_no_thread(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and does nothing else."""
    threads, logged = Threads(), threading.Event()
    monkeypatch.setattr("dynserve.interceptors.crossing._log.exception", lambda _: logged.set())
    monkeypatch.setattr("dynserve.interceptors.views._log.error", lambda _: logged.set())

    def register(request: Any, context: Any) -> Any:
        context.add_callback(lambda: 1 / 0)
        return Item()

    def no_thread(_task: Any) -> None:
        raise NoThreadError

    app = app_of({Kind.UNARY_UNARY: register}, stack("A", []), threads=threads)
    with serve(app) as client:
        assert outcome(client, Kind.UNARY_UNARY) == [0]
        assert logged.wait(WAIT)
        logged.clear()
        monkeypatch.setattr(threads.streams, "submit", no_thread)
        assert outcome(client, Kind.UNARY_UNARY) == [0]
        assert logged.wait(WAIT)


@pytest.mark.parametrize("names", ["S", "A"])
def test_the_state_of_the_app(serve: Serve, names: str) -> None:
    """What a context says where there is no lifespan is said in the other world too."""

    def ask(request: Any, context: Any) -> Any:
        with pytest.raises(RuntimeError) as caught:
            _ = context.state
        return {"text": str(caught.value)}

    world = "async" if names == "S" else "sync"
    with serve(app_of(handlers_of(world, ask), stack(names, []))) as client:
        text = client.call(PATHS[Kind.UNARY_UNARY], Item()).text
    assert text == "there is no state: the app has no @app.lifespan that yields it"


# ---- threads


def test_threads_are_reused_limited_and_end() -> None:
    """A pool starts threads when it has to, up to its limit; an idle one ends after a while."""
    pool = ThreadPool(1, most_waiting=1, idle_seconds=0.01)
    go, done = threading.Event(), queue.Queue[str]()
    named: Callable[[], None] = lambda: done.put(threading.current_thread().name)  # noqa: E731
    pool.submit(lambda: go.wait(WAIT))
    pool.submit(named)
    with pytest.raises(NoThreadError):
        pool.submit(named)
    go.set()
    assert done.get(timeout=WAIT) == "dynserve-interceptor"
    while pool._threads:
        threading.Event().wait(0.001)
    pool.submit(named)
    assert done.get(timeout=WAIT) == "dynserve-interceptor"


def test_no_thread(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no thread for a sync handler the call is refused at once."""

    def no_thread(_task: Any) -> None:
        raise NoThreadError

    threads = Threads()
    monkeypatch.setattr(threads.unary, "submit", no_thread)
    monkeypatch.setattr(threads.streams, "submit", no_thread)
    with serve(app_of(handlers_of("sync", plus_ten), stack("A", []), threads=threads)) as client:
        got = {outcome(client, kind) for kind in KINDS}
    refused = "too many calls wait for a thread on this server"
    assert got == {(grpc.StatusCode.RESOURCE_EXHAUSTED, refused)}


def test_the_system_has_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no thread too, and the pool does not count it."""

    def start(_thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    pool, done = ThreadPool(1), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(NoThreadError):
            pool.submit(done.set)
    pool.submit(done.set)
    assert done.wait(WAIT)
