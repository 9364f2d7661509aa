"""What only the queue engine does."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from dynserve.engine.queue import QueueEngine, core
from dynserve.engine.queue.plan import Plan, plan_of
from dynserve.engine.queue.probe import probe
from dynserve.engine.queue.sync_call import Gate
from dynserve.engine.threads import ThreadPool
from tests.engine.test_engines import WAIT, Channel, generic, run
from tests.engine.test_queue_ends import serve, until


@pytest.fixture(autouse=True)
def queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue engine."""
    monkeypatch.setenv("DYNSERVE_ENGINE", "queue")


unary = grpc.unary_unary_rpc_method_handler
down = grpc.unary_stream_rpc_method_handler
up = grpc.stream_unary_rpc_method_handler


def echo(request: bytes, context: Any) -> bytes:
    return request


async def async_echo(request: bytes, context: Any) -> bytes:
    return request


def status(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """How a call failed."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details()


# ---- what the specification forbids


@pytest.mark.parametrize("behaviour", [echo, async_echo])
@pytest.mark.parametrize(
    ("messages", "got"),
    [([], "none"), ([b"1", b"2"], "more than one"), ([b""] * 9, "more than one")],
)
def test_a_unary_call_has_one_request(behaviour: Any, messages: list[bytes], got: str) -> None:
    """Others are UNIMPLEMENTED, as the specification says, and the handler is not run."""
    ran = []

    def counted(request: bytes, context: Any) -> Any:
        ran.append(request)
        return behaviour(request, context)

    handler: Any = unary(behaviour if behaviour is async_echo else counted)

    def client(channel: Channel) -> Any:
        return status(lambda: channel.stream_unary("/a.B/One")(iter(messages), timeout=WAIT))

    told = f"expected one request message, got {got}"
    assert run(generic(One=handler), client) == (grpc.StatusCode.UNIMPLEMENTED, told)
    assert ran == []


# ---- quick handlers


def test_a_handler_that_proves_quick_runs_on_the_poller() -> None:
    """A worker runs it at first; when it has been short often enough, no thread is switched."""
    threads: list[str] = []

    def one(request: bytes, context: Any) -> bytes:
        threads.append(threading.current_thread().name)
        return request

    def client(channel: Channel) -> None:
        method = channel.unary_unary("/a.B/One")
        while len(threads) < 5000 and threads[-1:] != ["dynserve-poller-1"]:
            method(b"", timeout=WAIT)

    run(generic(One=unary(one)), client)
    assert threads[0] == "dynserve-unary-1"
    assert threads[-1] == "dynserve-poller-1"
    assert len(threads) > Plan._TRIAL


def test_a_quick_handler_that_blocks_holds_up_nobody() -> None:
    """Another thread leads on, and the method is a worker's again; so for all that block."""
    release = threading.Event()
    blocked, threads = threading.Semaphore(0), []

    def one(request: bytes, context: Any) -> bytes:
        threads.append(threading.current_thread().name)
        if request == b"block":
            blocked.release()
            assert release.wait(WAIT)
        return request

    def client(channel: Channel) -> Any:
        method = channel.unary_unary("/a.B/One")
        while threads[-1:] != ["dynserve-poller-1"]:
            method(b"", timeout=WAIT)
        first = method.future(b"block", timeout=WAIT)
        assert blocked.acquire(timeout=WAIT)
        assert method(b"next", timeout=WAIT) == b"next"
        assert threads[-1].startswith("dynserve-unary-")
        more = [method.future(b"block", timeout=WAIT) for _ in range(5)]
        for _ in more:
            assert blocked.acquire(timeout=WAIT)
        assert channel.unary_unary("/a.B/Async")(b"x", timeout=WAIT) == b"x"
        release.set()
        return [call.result() for call in (first, *more)]

    handlers = generic(One=unary(one), Async=unary(async_echo))
    assert run(handlers, client) == [b"block"] * 6


def test_a_quick_handler_of_a_call_past_its_deadline_does_not_run() -> None:
    """Nobody waits for the answer; nor does it teach how quick the handler is."""
    ran = []

    def one(request: bytes, context: Any) -> bytes:
        ran.append(request)
        return request

    def block(request: bytes, context: Any) -> bytes:
        started.set()
        assert release.wait(WAIT)
        return request

    started, release = threading.Event(), threading.Event()

    def client(engine: QueueEngine, channel: Channel) -> None:
        blocking = channel.unary_unary("/a.B/Block").future(b"", timeout=WAIT)
        assert started.wait(WAIT)
        late = channel.unary_unary("/a.B/One").future(b"late", timeout=0.05)
        assert late.exception(timeout=WAIT).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: engine._poller.open == 1)  # the server's clock runs a little behind
        release.set()
        blocking.result(WAIT)
        assert channel.unary_unary("/a.B/One")(b"next", timeout=WAIT) == b"next"

    handler: Any = unary(one)
    serve(generic(One=handler, Block=unary(block)), client, threads=1)
    assert ran == [b"next"]
    assert plan_of(handler, "/a.B/One", bool)._score <= 1  # of the next one; 0 on a busy machine


# ---- what cannot be sent


def test_a_response_that_is_too_large_ends_the_call() -> None:
    """Unary and in a stream, sync and async: the client gets a status, not silence."""

    def items(request: bytes, context: Any) -> Iterator[bytes]:
        yield b"small"
        yield bytes(2000)
        for _ in range(1000):
            yield b"more"

    async def async_items(request: bytes, context: Any) -> Any:
        for item in items(request, context):
            yield item

    handlers = generic(
        One=unary(lambda request, context: bytes(2000)),
        Down=down(items),
        AsyncDown=down(async_items),
    )

    def client(channel: Channel) -> Any:
        return [
            status(lambda: channel.unary_unary("/a.B/One")(b"", timeout=WAIT))[0],
            status(lambda: list(channel.unary_stream("/a.B/Down")(b"", timeout=WAIT)))[0],
            status(lambda: list(channel.unary_stream("/a.B/AsyncDown")(b"", timeout=WAIT)))[0],
        ]

    options = [("grpc.max_send_message_length", 1000)]
    assert run(handlers, client, options=options) == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(
    ("metadata", "logged"),
    [
        ((("x", 3),), True),
        (((b"x", "y", "z"),), True),
        ((("UPPER", "x"),), False),  # the core says it itself
        ((("x", "\n"),), False),
    ],
)
def test_metadata_that_the_core_refuses_ends_the_call(
    metadata: Any, logged: bool, world: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets an error at once, and the log says whose."""

    def one(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(metadata)
        return request

    async def async_one(request: bytes, context: Any) -> bytes:
        return one(request, context)

    def client(channel: Channel) -> Any:
        return status(lambda: channel.unary_unary("/a.B/One")(b"", timeout=WAIT))[0]

    code = run(generic(One=unary(one if world == "sync" else async_one)), client)
    assert code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    assert ("cannot send what /a.B/One answers" in caplog.text) == logged


def test_a_response_that_is_not_bytes_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """A plain handler without a serializer has to return bytes; the peer is told nothing more."""

    def client(channel: Channel) -> Any:
        return status(lambda: channel.unary_unary("/a.B/One")(b"", timeout=WAIT))

    code = run(generic(One=unary(lambda request, context: "text")), client)
    assert code == (grpc.StatusCode.UNKNOWN, "the handler failed")
    assert "TypeError: a response is str, expected bytes" in caplog.text


def test_a_handler_that_cannot_be_looked_up(caplog: pytest.LogCaptureFixture) -> None:
    """The peer is told that, and nothing of the exception."""

    class Failing(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            raise LookupError("secret")

    def client(channel: Channel) -> Any:
        return status(lambda: channel.unary_unary("/a.B/One")(b"", timeout=WAIT))

    told = (grpc.StatusCode.INTERNAL, "the method could not be looked up")
    assert run(Failing(), client) == told
    assert "secret" in caplog.text


# ---- life


def test_a_stream_in_which_nothing_moves_does_not_keep_the_server() -> None:
    """A handler that never looks at its call is cut off from it when the server stops."""
    started, release = threading.Event(), threading.Event()

    def stuck(request: bytes, context: Any) -> bytes:
        started.set()
        release.wait(WAIT)
        return request

    async def main() -> float:
        engine = QueueEngine([generic(One=unary(stuck))])
        port = engine.add_port("127.0.0.1:0")
        await engine.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            method: Any = channel.unary_unary("/a.B/One")
            call = method.future(b"", timeout=WAIT)
            assert await asyncio.to_thread(started.wait, WAIT)
            start = time.monotonic()
            await engine.stop(None)
            took = time.monotonic() - start
            code = call.code()
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        return took

    took = asyncio.run(main())
    release.set()
    assert took < WAIT / 2


def test_nothing_is_left_of_servers_that_stopped() -> None:
    """Threads, calls and servers go."""

    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("dynserve-")]

    async def main() -> Any:
        engine = QueueEngine([generic(One=unary(echo), Async=unary(async_echo))])
        port = engine.add_port("127.0.0.1:0")
        await engine.start()
        await asyncio.to_thread(client, port)
        await engine.stop(None)
        return weakref.ref(engine)

    def client(port: int) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for name in ("One", "Async") * 70:
                method: Any = channel.unary_unary(f"/a.B/{name}")
                method(b"x", timeout=WAIT)

    engines = [asyncio.run(main()) for _ in range(10)]
    deadline = time.monotonic() + WAIT
    while threads() and time.monotonic() < deadline:
        gc.collect()
    assert threads() == []
    gc.collect()
    assert [engine() for engine in engines] == [None] * 10


def test_a_loop_that_is_closed_ends_the_server() -> None:
    """Clients get a status, rather than wait for one."""

    async def main() -> tuple[QueueEngine, int]:
        engine = QueueEngine([generic(One=unary(async_echo))])
        port = engine.add_port("127.0.0.1:0")
        await engine.start()
        return engine, port

    engine, port = asyncio.run(main())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: Any = channel.unary_unary("/a.B/One")
        code, _ = status(lambda: method(b"", timeout=WAIT))
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert engine._poller._recent is None  # no call of the core's is kept


LEAVING = """
import asyncio, grpc, sys
from dynserve.engine.queue import QueueEngine
handlers = {"One": grpc.unary_unary_rpc_method_handler(lambda request, context: request)}
async def main():
    engine = QueueEngine([grpc.method_handlers_generic_handler("a.B", handlers)])
    port = engine.add_port("127.0.0.1:0")
    await engine.start()
    def call():
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(100):
                channel.unary_unary("/a.B/One")(b"", timeout=20)
    await asyncio.to_thread(call)
    return engine
engine = asyncio.run(main())
print("leaving")
"""


@pytest.mark.parametrize("attempt", range(3))
def test_a_program_may_end_without_stopping_its_server(attempt: int) -> None:
    """It ends at once, with its own exit code."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVING], capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr


def test_stopping_twice_and_before_the_start() -> None:
    """Stopping is for any moment, and from several tasks."""

    async def main() -> None:
        idle = QueueEngine([])
        await idle.stop(None)
        await idle.wait_for_termination()
        engine = QueueEngine([])
        engine.add_port("127.0.0.1:0")
        await engine.start()
        await asyncio.gather(engine.stop(5), engine.stop(None), engine.stop(1))
        await engine.stop(None)
        await engine.wait_for_termination()

    asyncio.run(asyncio.wait_for(main(), WAIT))


# ---- the parts


def test_a_gate_misses_no_wake_up() -> None:
    """Two threads that hand a number back and forth are never both asleep."""
    gate, other = Gate(), Gate()
    turn = [0]

    def partner() -> None:
        for number in range(1, 20_001, 2):
            while turn[0] != number:
                gate.sleep(lambda: turn[0] == number)  # noqa: B023 - asked at once
            turn[0] = number + 1
            other.wake()

    thread = threading.Thread(target=partner)
    thread.start()
    for number in range(0, 20_000, 2):
        while turn[0] != number:
            other.sleep(lambda: turn[0] == number)  # noqa: B023 - asked at once
        turn[0] = number + 1
        gate.wake()
    thread.join(WAIT)
    assert turn[0] == 20_000


def test_a_pool_that_is_closed_lets_its_threads_go() -> None:
    """Idle ones now, others when they are done; what is given to it is still done."""
    pool = ThreadPool(2, "closing")
    release, started, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        release.wait(WAIT)

    pool.submit(work)
    assert started.wait(WAIT)
    pool.close()
    pool.submit(done.set)
    assert done.wait(WAIT)
    release.set()
    deadline = time.monotonic() + WAIT
    while any(t.name.startswith("closing") for t in threading.enumerate()):
        assert time.monotonic() < deadline


def test_the_probe_passes_here() -> None:
    """What CI tests is what the probe tells."""
    probe()


def test_a_call_that_is_over_does_nothing() -> None:
    """It stands in for the core's call, which is freed."""
    call = core.NoCall()
    assert call.start_server_batch((), None) == 0
    call.cancel()
    assert call.peer() == b""


def test_events_that_fail_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The poller goes on."""
    from dynserve.engine.queue.poller import Poller

    class Event:
        @staticmethod
        def tag(event: Any) -> None:
            raise RuntimeError("in a tag")

    with caplog.at_level(logging.ERROR):
        assert Poller._deal(Event())
    assert "in a tag" in caplog.text
