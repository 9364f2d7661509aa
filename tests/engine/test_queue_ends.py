"""However a call ends, nothing is left of it: no count, no thread, no task, no status unsent."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from dynserve.engine.limits import CallLimits
from dynserve.engine.queue import QueueEngine
from tests.engine.test_engines import WAIT, Channel, generic

unary = grpc.unary_unary_rpc_method_handler
down = grpc.unary_stream_rpc_method_handler
up = grpc.stream_unary_rpc_method_handler
chat = grpc.stream_stream_rpc_method_handler


def serve(
    handlers: grpc.GenericRpcHandler,
    client: Callable[[QueueEngine, Channel], Any],
    **options: Any,
) -> Any:
    """Run the client, see that nothing is left of its calls, and stop."""

    async def main() -> Any:
        before = asyncio.all_tasks()
        engine = QueueEngine([handlers], **options)
        port = engine.add_port("127.0.0.1:0")
        await engine.start()
        try:
            answer = await asyncio.to_thread(call, engine, port)
            await asyncio.to_thread(settled, engine)
        finally:
            await engine.stop(None)
        assert asyncio.all_tasks() == before
        return answer

    def call(engine: QueueEngine, port: int) -> Any:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            return client(engine, channel)

    return asyncio.run(asyncio.wait_for(main(), WAIT * 1.5))


def settled(engine: QueueEngine) -> None:
    """Wait until no call is counted any more."""
    until(lambda: not engine._poller.serving and not engine._poller.open)


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not is_so():
        assert time.monotonic() < deadline


def status(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str] | None:
    """How a call failed, if it did."""
    try:
        call()
    except grpc.RpcError as error:
        told: Any = error
        return told.code(), told.details()
    return None


def echo(request: bytes, context: Any) -> bytes:
    return request


class Held(grpc.GenericRpcHandler):
    """Holds up the leader, where it looks up a handler, until it is told."""

    def __init__(self, inner: grpc.GenericRpcHandler) -> None:
        self._inner = inner
        self.let_go, self.is_held = threading.Event(), threading.Event()
        self.let_go.set()

    def service(self, handler_call_details: Any) -> Any:
        if not self.let_go.is_set():
            self.is_held.set()
            self.let_go.wait(WAIT)
        return self._inner.service(handler_call_details)


# ---- a call that never runs


def test_a_call_that_is_taken_back_from_the_queue_for_a_thread_is_not_counted_on() -> None:
    """It would count against the limit for ever."""
    release, started = threading.Event(), threading.Event()

    def one(request: bytes, context: Any) -> bytes:
        started.set()
        release.wait(WAIT)
        return request

    def client(engine: QueueEngine, channel: Channel) -> Any:
        method = channel.unary_unary("/a.B/One")
        first = method.future(b"first", timeout=WAIT)
        assert started.wait(WAIT)
        waiting = [method.future(b"", timeout=WAIT) for _ in range(5)]
        until(lambda: len(engine._poller.serving) == 6)
        for call in waiting:
            call.cancel()
        until(lambda: len(engine._poller.serving) == 1)
        release.set()
        return first.result(), method(b"next", timeout=WAIT)

    handlers = generic(One=unary(one))
    answers = serve(handlers, client, threads=1, limits=CallLimits(6))
    assert answers == (b"first", b"next")


def test_a_burst_goes_on_where_its_first_quick_handler_blocks() -> None:
    """Who leads on finds what was left behind, though no event follows; workers run it."""
    release, threads = threading.Event(), []

    def one(request: bytes, context: Any) -> bytes:
        threads.append(threading.current_thread().name)
        if request == b"block":
            assert release.wait(WAIT)
        return request

    held = Held(generic(One=unary(one)))

    def client(engine: QueueEngine, channel: Channel) -> Any:
        method = channel.unary_unary("/a.B/One")
        while threads[-1:] != ["dynserve-poller-1"]:
            method(b"", timeout=WAIT)
        settled(engine)
        held.let_go.clear()
        first = method.future(b"block", timeout=WAIT)
        assert held.is_held.wait(WAIT)
        more = [method.future(b"more", timeout=WAIT) for _ in range(5)]
        held.let_go.set()
        answers = [call.result(WAIT) for call in more]
        release.set()
        return [first.result(), *answers]

    assert serve(held, client) == [b"block", *[b"more"] * 5]


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_call_that_begins_when_all_were_cancelled_does_not_keep_the_server(world: str) -> None:
    """The core handed it over before the end, and its handler would run as long as it likes."""
    release = threading.Event()

    def one(request: bytes, context: Any) -> bytes:
        release.wait(WAIT)
        return request

    async def async_one(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(WAIT)
        return request

    held = Held(generic(One=unary(one if world == "sync" else async_one)))

    async def main() -> float:
        engine = QueueEngine([held])
        port = engine.add_port("127.0.0.1:0")
        await engine.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            held.let_go.clear()
            method: Any = channel.unary_unary("/a.B/One")
            call = method.future(bytes(100), timeout=WAIT)
            assert await asyncio.to_thread(held.is_held.wait, WAIT)
            begun = time.monotonic()
            stopping = asyncio.ensure_future(engine.stop(None))
            await asyncio.sleep(0)  # it has asked for the end of all calls
            held.let_go.set()
            await stopping
            assert status(call.result) is not None
        release.set()
        return time.monotonic() - begun

    assert asyncio.run(main()) < WAIT / 2


# ---- a handler that is not done when its call is


@pytest.mark.parametrize("world", ["sync", "async"])
def test_who_still_reads_when_the_call_has_its_status_gets_the_end(world: str) -> None:
    """A thread, or a task, that a handler left reading does not wait for ever."""
    ended = threading.Event()

    def sync_chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        first = threading.Event()

        def read() -> None:
            for _ in requests:
                first.set()
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        assert first.wait(WAIT)
        yield b"done"

    async def async_chat(_: Any, context: Any) -> None:
        first = asyncio.Event()

        async def read() -> None:
            while await context.read() is not grpc.aio.EOF:
                first.set()
            ended.set()

        context.reading = asyncio.ensure_future(read())  # a task needs somebody who holds it
        await first.wait()
        await context.write(b"done")

    def client(engine: QueueEngine, channel: Channel) -> None:
        release = threading.Event()

        def requests() -> Iterator[bytes]:
            yield b"x"
            release.wait(WAIT)

        call = channel.stream_stream("/a.B/Chat")(requests(), timeout=WAIT)
        assert list(call) == [b"done"]
        assert ended.wait(WAIT)
        release.set()

    serve(generic(Chat=chat(sync_chat if world == "sync" else async_chat)), client)


def test_a_handler_that_is_slow_to_end_is_counted_until_it_has() -> None:
    """The limit is for handlers at work, those of calls that were cancelled too."""
    cancelled, counted = threading.Event(), []
    release: list[asyncio.Event] = []

    async def one(request: bytes, context: Any) -> bytes:
        release.append(asyncio.Event())
        try:
            await asyncio.sleep(WAIT)
        except asyncio.CancelledError:
            cancelled.set()
            await release[0].wait()
        return request

    def client(engine: QueueEngine, channel: Channel) -> None:
        call = channel.unary_unary("/a.B/One").future(b"", timeout=WAIT)
        until(lambda: release)
        call.cancel()
        assert cancelled.wait(WAIT)
        until(lambda: not engine._poller.open)
        counted.append(len(engine._poller.serving))
        engine._poller.loop.call_soon_threadsafe(release[0].set)

    serve(generic(One=unary(one)), client)
    assert counted == [1]


# ---- what users' code does wrong


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (lambda c: c.set_code([]), (grpc.StatusCode.UNKNOWN, "the handler failed")),
        (lambda c: c.set_details(None), (grpc.StatusCode.UNKNOWN, "the handler failed")),
        (lambda c: c.set_details("\udcff"), None),
        (lambda c: c.set_code(5), (grpc.StatusCode.NOT_FOUND, "")),
        (lambda c: c.set_code(99), (grpc.StatusCode.UNKNOWN, "")),
        (lambda c: c.set_trailing_metadata(None), None),
        (
            lambda c: c.set_trailing_metadata([("x", 1)]),
            (grpc.StatusCode.INTERNAL, "the answer cannot be sent"),
        ),
    ],
)
def test_whatever_a_handler_says_of_its_end_there_is_one(
    kind: str, world: str, said: Callable[[Any], None], expected: Any
) -> None:
    """A status that cannot be made is an error of the handler's, not silence."""

    def one(request: bytes, context: Any) -> bytes:
        said(context)
        return request

    def items(request: bytes, context: Any) -> Iterator[bytes]:
        yield one(request, context)

    async def async_one(request: bytes, context: Any) -> bytes:
        return one(request, context)

    async def async_items(request: bytes, context: Any) -> Any:
        yield one(request, context)

    handlers = generic(
        One={
            ("unary_unary", "sync"): unary(one),
            ("unary_unary", "async"): unary(async_one),
            ("unary_stream", "sync"): down(items),
            ("unary_stream", "async"): down(async_items),
        }[kind, world]
    )

    def client(engine: QueueEngine, channel: Channel) -> Any:
        method = getattr(channel, kind)("/a.B/One")
        collect: Any = bytes if kind == "unary_unary" else list
        return status(lambda: collect(method(b"", timeout=WAIT)))

    assert serve(handlers, client) == expected


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_code_that_was_set_before_an_error_is_the_status(world: str) -> None:
    """As in grpc.server and grpc.aio: the handler has said what its error means."""

    def one(request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("no such thing")
        raise LookupError("secret")

    async def async_one(request: bytes, context: Any) -> bytes:
        return one(request, context)

    def client(engine: QueueEngine, channel: Channel) -> Any:
        return status(lambda: channel.unary_unary("/a.B/One")(b"", timeout=WAIT))

    handlers = generic(One=unary(one if world == "sync" else async_one))
    assert serve(handlers, client) == (grpc.StatusCode.NOT_FOUND, "no such thing")


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), asyncio.CancelledError()])
def test_no_look_up_ends_the_leader(error: BaseException) -> None:
    """Whatever a generic handler raises or returns, the next call is served."""

    class Odd(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            if handler_call_details.method == "/a.B/Raise":
                raise error
            return unary(echo) if handler_call_details.method == "/a.B/One" else 5

    def client(engine: QueueEngine, channel: Channel) -> Any:
        said = [
            status(lambda: channel.unary_unary(path)(b"", timeout=WAIT))  # noqa: B023 - at once
            for path in ("/a.B/Raise", "/a.B/Five")
        ]
        return said, channel.unary_unary("/a.B/One")(b"x", timeout=WAIT)

    failed = grpc.StatusCode.INTERNAL, "the method could not be looked up"
    assert serve(Odd(), client) == ([failed, failed], b"x")


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(), ValueError()])
def test_a_callback_that_fails_takes_no_other_call_with_it(error: BaseException) -> None:
    """What else the loop was given with it is still done."""
    called = threading.Semaphore(0)

    async def one(request: bytes, context: Any) -> bytes:
        def fail(_: Any) -> None:
            called.release()
            raise error

        context.add_done_callback(fail)
        return request

    def client(engine: QueueEngine, channel: Channel) -> Any:
        method = channel.unary_unary("/a.B/One")
        calls = [method.future(b"%d" % number, timeout=WAIT) for number in range(50)]
        answers = [call.result(WAIT) for call in calls]
        assert all(called.acquire(timeout=WAIT) for _ in calls)
        return answers

    assert serve(generic(One=unary(one)), client) == [b"%d" % number for number in range(50)]


@pytest.mark.parametrize("world", ["sync", "async"])
def test_what_a_callback_sets_is_not_seen_by_other_calls(world: str) -> None:
    """Each has a copy of the context that the server was made in."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    called = threading.Event()

    def end(*_: Any) -> None:
        variable.set("leaked")
        called.set()

    def one(request: bytes, context: Any) -> bytes:
        context.add_callback(end)
        return variable.get().encode()

    async def async_one(request: bytes, context: Any) -> bytes:
        context.add_done_callback(end)
        return variable.get().encode()

    def client(engine: QueueEngine, channel: Channel) -> Any:
        method = channel.unary_unary("/a.B/One")
        method(b"", timeout=WAIT)
        assert called.wait(WAIT)
        return method(b"", timeout=WAIT)

    assert serve(generic(One=unary(one if world == "sync" else async_one)), client) == b"none"


def test_handlers_that_are_replaced_are_let_go() -> None:
    """A server whose handlers are made anew keeps none of the old ones alive."""
    made: list[weakref.ref[Any]] = []

    class Anew(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            def one(request: bytes, context: Any) -> bytes:
                return request

            made.append(weakref.ref(one))
            return unary(one)

    def client(engine: QueueEngine, channel: Channel) -> int:
        for _ in range(20):
            channel.unary_unary("/a.B/One")(b"", timeout=WAIT)
        settled(engine)
        gc.collect()
        return sum(one() is not None for one in made)

    assert serve(Anew(), client) <= 2  # of the last calls, whose events are still held


# ---- all of it at once


class Storm:
    """Handlers of both worlds that do what their request says, and a client that ends calls."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.running = 0
        self.wrong: list[Any] = []

    def _run(self, change: int) -> None:
        with self._lock:
            self.running += change

    def sync(self, requests: Any, context: Any) -> Iterator[bytes]:
        thread = threading.get_ident()
        self._run(1)
        try:
            for request in requests:
                if request == b"abort":
                    context.abort(grpc.StatusCode.ABORTED, "as asked")
                yield request
        finally:
            self._run(-1)
            if threading.get_ident() != thread:
                self.wrong.append("closed on another thread")

    async def async_(self, _: Any, context: Any) -> None:
        self._run(1)
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                if request == b"abort":
                    await context.abort(grpc.StatusCode.ABORTED, "as asked")
                await context.write(request)
        finally:
            self._run(-1)

    def sync_one(self, request: bytes, context: Any) -> bytes:
        return b"".join(self.sync([request], context))

    async def async_one(self, request: bytes, context: Any) -> bytes:
        self._run(1)
        try:
            await asyncio.sleep(0)
            if request == b"abort":
                await context.abort(grpc.StatusCode.ABORTED, "as asked")
            return request
        finally:
            self._run(-1)

    def call(self, channel: Channel) -> None:
        """Make a call, and end it somehow."""
        choose = self._random.choice
        timeout, message = choose([WAIT, WAIT, 0.001, 0.01]), choose([b"x", b"x", b"abort"])
        if choose([True, False]):
            call = channel.unary_unary(choose(["/a.B/SyncOne", "/a.B/AsyncOne"])).future(
                message, timeout=timeout
            )
            if choose([True, False]):
                call.cancel()
            call.exception() if not call.cancelled() else None
            return
        count, stop = choose([0, 1, 100, 500]), choose([0, 1, 50, 1000])
        requests = [b"y" * choose([1, 3000]) for _ in range(count)] + [message]
        stream = channel.stream_stream(choose(["/a.B/Sync", "/a.B/Async"]))(
            iter(requests), timeout=timeout
        )
        try:
            got = list(itertools.islice(stream, stop))
            if got != requests[:stop]:
                self.wrong.append((len(got), count, stop))
            stream.cancel()
        except grpc.RpcError as error:
            told: Any = error
            if told.code() not in (grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED):
                self.wrong.append(told.code())


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_left_after_a_storm(seed: int) -> None:
    """Calls that are cancelled, late, aborted or complete: every count is zero, every task gone."""
    storms = [Storm(seed * 10 + number) for number in range(6)]
    handlers = generic(
        Sync=chat(storms[0].sync),
        Async=chat(storms[0].async_),
        SyncOne=unary(storms[0].sync_one),
        AsyncOne=unary(storms[0].async_one),
    )

    def client(engine: QueueEngine, channel: Channel) -> None:
        threads = [
            threading.Thread(target=lambda s: [s.call(channel) for _ in range(40)], args=(storm,))
            for storm in storms
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        settled(engine)
        until(lambda: not storms[0].running)

    serve(handlers, client, threads=2)
    assert [storm.wrong for storm in storms] == [[]] * 6
