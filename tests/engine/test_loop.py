"""The loop that sleeps in the completion queue, and how it comes to lead."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest

from dynserve.engine.queue import QueueEngine, poller
from dynserve.engine.queue.loop import QueueLoop
from dynserve.engine.queue.plan import Plan
from tests.engine.test_queue_ends import until

WAIT = 20.0
unary = grpc.unary_unary_rpc_method_handler


@pytest.fixture
def loop() -> Iterator[QueueLoop]:
    """A loop that is closed in the end."""
    loop = QueueLoop()
    yield loop
    loop.close()


class Served:
    """An engine on the loop, and what it is asked."""

    def __init__(self, engine: QueueEngine, channel: Any) -> None:
        self.poller = engine._poller
        self.engine = engine
        self.channel = channel

    def call(self, method: str, request: bytes = b"") -> Any:
        """Call a method from another thread; to be awaited."""
        multi = self.channel.unary_unary(f"/a.B/{method}")
        return asyncio.to_thread(multi, request, timeout=WAIT)

    async def until_the_loop_leads(self) -> None:
        """Async calls, one after the other."""
        for _ in range(self.poller._patience + 1):
            assert await self.call("Async", b"x") == b"x"
        leads = asyncio.Event()
        while not self.poller._loop_leads:  # the turn after the one in which it is asked to
            asyncio.get_running_loop().call_soon(leads.set)
            await leads.wait()
            leads.clear()


async def start(**handlers: Any) -> tuple[QueueEngine, grpc.Channel]:
    """An engine that serves the handlers, a sync and an async echo among them."""

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    handlers.update(Async=unary(echo), Sync=unary(lambda request, context: request))
    engine = QueueEngine([grpc.method_handlers_generic_handler("a.B", handlers)])
    port = engine.add_port("127.0.0.1:0")
    await engine.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    channels.append(channel)
    return engine, channel


def serve(
    loop: QueueLoop, main: Callable[[Served], Awaitable[Any]], stop: bool = True, **handlers: Any
) -> Any:
    """Run ``main`` on the loop, which serves the handlers."""

    async def run() -> Any:
        engine, channel = await start(**handlers)
        try:
            return await main(Served(engine, channel))
        finally:
            if stop:
                await engine.stop(None)

    return loop.run_until_complete(asyncio.wait_for(run(), WAIT * 2))


channels: list[grpc.Channel] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    """Channels outlive their servers, so that a call's status is the server's."""
    yield
    while channels:
        channels.pop().close()


def test_the_loop_leads_where_calls_are_async(loop: QueueLoop) -> None:
    """After a row of them no other thread polls; a sync call ends that, and the row is longer."""

    async def main(served: Served) -> None:
        assert not served.poller._loop_leads
        await served.until_the_loop_leads()
        assert served.poller._patience == poller._PATIENCE
        assert await served.call("Sync", b"y") == b"y"
        assert not served.poller._loop_leads
        assert served.poller._patience == 2 * poller._PATIENCE
        await served.until_the_loop_leads()
        assert await served.call("Async", b"z") == b"z"

    serve(loop, main)


def test_a_sync_call_that_began_before_ends_the_lead_too(loop: QueueLoop) -> None:
    """A thread is needed when its request comes, not when the call begins."""

    async def main(served: Served) -> None:
        may_send = threading.Event()

        def request() -> Iterator[bytes]:
            may_send.wait(WAIT)
            yield b"late"

        calling = served.channel.stream_stream("/a.B/Sync")(request(), timeout=WAIT)
        await asyncio.to_thread(until, lambda: served.poller.open)  # begun, without a request
        await served.until_the_loop_leads()
        may_send.set()
        assert await asyncio.to_thread(list, calling) == [b"late"]
        assert not served.poller._loop_leads

    serve(loop, main)


def test_another_loop_never_leads() -> None:
    """A thread does, however many calls are async."""

    async def main(served: Served) -> None:
        for _ in range(poller._PATIENCE * 2):
            await served.call("Async")
        assert not served.poller._loop_leads

    usual: Any = asyncio.new_event_loop()
    serve(usual, main)
    usual.close()


async def timers(_: Served) -> None:
    start = time.monotonic()
    await asyncio.gather(*(asyncio.sleep(0.05) for _ in range(10)))
    assert 0.04 < time.monotonic() - start < WAIT


async def sockets(_: Served) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for number in range(50):
        writer.write(b"%d\n" % number)
        assert await reader.readline() == b"%d\n" % number
    writer.close()
    server.close()


async def threads(_: Served) -> None:
    running = asyncio.get_running_loop()
    for number in range(50):
        future = running.create_future()
        threading.Timer(0, running.call_soon_threadsafe, (future.set_result, number)).start()
        assert await future == number
        assert await asyncio.to_thread(lambda number: number, number) == number


async def processes(_: Served) -> None:
    child = await asyncio.create_subprocess_exec("echo", "x", stdout=subprocess.PIPE)
    assert (await child.communicate())[0] == b"x\n"


async def calls(served: Served) -> None:
    for _ in range(50):
        assert await served.call("Async", b"x") == b"x"


def test_a_loop_that_leads_is_a_loop(loop: QueueLoop) -> None:
    """Timers, sockets, other threads and subprocesses are heard, alone and all at once."""
    works = (timers, sockets, threads, processes, calls)

    async def main(served: Served) -> None:
        await served.until_the_loop_leads()
        for work in works:
            await work(served)
        await asyncio.gather(*(work(served) for work in works))
        assert served.poller._loop_leads

    asyncio.set_event_loop(loop)  # for the watcher of subprocesses, before Python 3.12
    try:
        serve(loop, main)
    finally:
        asyncio.set_event_loop(None)


def test_a_mix_of_calls_is_served(loop: QueueLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the lead passes to and fro."""
    monkeypatch.setattr(poller, "_PATIENCE", 1)
    monkeypatch.setattr(poller, "_MOST_PATIENCE", 1)

    async def main(served: Served) -> None:
        def many(number: int) -> None:
            for count in range(100):
                method = served.channel.unary_unary(f"/a.B/{'Async' if count % 3 else 'Sync'}")
                assert method(b"%d" % number, timeout=WAIT) == b"%d" % number

        await asyncio.gather(*(asyncio.to_thread(many, number) for number in range(8)))

    serve(loop, main)


def test_a_server_stops_while_its_loop_leads(loop: QueueLoop) -> None:
    """No call is held that would keep it, and calls under way get a status."""
    started = asyncio.Event()

    async def endless(request: bytes, context: Any) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return request

    async def main(served: Served) -> grpc.StatusCode:
        await served.until_the_loop_leads()
        call = served.channel.unary_unary("/a.B/Endless").future(b"", timeout=WAIT)
        await started.wait()
        await asyncio.gather(served.engine.stop(0.05), served.engine.stop(5))
        assert not served.poller._loop_leads
        code: grpc.StatusCode = call.code()
        return code

    code = serve(loop, main, Endless=unary(endless))
    assert code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert files_watched() == 0


def files_watched() -> int:
    """The threads that watch files, once those that end have ended."""
    deadline = time.monotonic() + WAIT
    while threads := [t for t in threading.enumerate() if t.name == "dynserve-files"]:
        if time.monotonic() > deadline:
            break
    return len(threads)


def test_a_loop_that_is_closed_while_it_leads_ends_the_server() -> None:
    """Clients get a status, rather than wait for one."""
    loop = QueueLoop()
    started = threading.Event()

    async def endless(request: bytes, context: Any) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return request

    async def main(served: Served) -> Any:
        await served.until_the_loop_leads()
        assert served.poller._loop_leads
        call = served.channel.unary_unary("/a.B/Endless").future(b"", timeout=WAIT)
        await asyncio.to_thread(started.wait, WAIT)
        return call

    call = serve(loop, main, stop=False, Endless=unary(endless))
    loop.close()
    assert call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert files_watched() == 0


def test_a_loop_that_is_closed_before_it_leads_ends_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was asked to lead, and never came to it: a thread leads, to tell the clients."""
    loop = QueueLoop()
    started, asked, lend = threading.Event(), threading.Event(), poller.Poller._lend

    def lent(self: poller.Poller) -> bool:
        is_lent = lend(self)
        asked.set()
        return is_lent

    async def endless(request: bytes, context: Any) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return request

    async def main(served: Served) -> Any:
        call = served.channel.unary_unary("/a.B/Endless").future(b"", timeout=WAIT)
        await asyncio.to_thread(started.wait, WAIT)
        monkeypatch.setattr(poller.Poller, "_lend", lent)
        monkeypatch.setattr(poller.Poller, "_lead_on_loop", lambda self: None)
        for _ in range(poller._PATIENCE - 2):
            await served.call("Async")
        served.channel.unary_unary("/a.B/Async").future(b"", timeout=WAIT)  # nobody leads then
        await asyncio.to_thread(asked.wait, WAIT)
        return call

    call = serve(loop, main, stop=False, Endless=unary(endless))
    loop.close()
    assert call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


def test_one_server_leads_on_a_loop() -> None:
    """Another on the same one keeps its thread, and leads when the first has stopped."""
    loop = QueueLoop()

    async def first(served: Served) -> None:
        await served.until_the_loop_leads()
        second, channel = await start()
        other = Served(second, channel)
        while other.poller._patience == poller._PATIENCE:  # until it was refused
            await other.call("Async")
        for method in ("Async", "Sync", "Async"):
            assert await served.call(method, b"x") == b"x"
            assert await other.call(method, b"y") == b"y"
        await served.engine.stop(None)
        await other.until_the_loop_leads()
        await second.stop(None)

    serve(loop, first)
    loop.close()
    assert files_watched() == 0


def test_a_loop_that_cannot_lead_leaves_it_to_a_thread(
    loop: QueueLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process has no file or no thread left, calls are served as before."""

    def fails(*_: object) -> Any:
        raise OSError(24, "Too many open files")

    async def main(served: Served) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("dynserve.engine.queue.loop.os.pipe", fails)
            while served.poller._patience == poller._PATIENCE:
                assert await served.call("Async", b"x") == b"x"
        assert not served.poller._loop_leads
        await served.until_the_loop_leads()

    serve(loop, main)


def test_files_are_heard_by_a_loop_that_is_always_busy(loop: QueueLoop) -> None:
    """At the next turn, as by any loop."""

    async def main(served: Served) -> None:
        await served.until_the_loop_leads()
        read, write = os.pipe()
        heard = asyncio.Event()
        turns = 0

        def spin() -> None:
            nonlocal turns
            turns += 1
            end = time.perf_counter() + 0.001
            while time.perf_counter() < end:
                pass
            if not heard.is_set():
                loop.call_soon(spin)

        loop.add_reader(read, heard.set)
        try:
            for _ in range(20):
                heard.clear()
                turns = 0
                spin()
                os.write(write, b"x")
                await heard.wait()
                assert turns <= 3
                os.read(read, 1)
        finally:
            loop.remove_reader(read)
            os.close(read)
            os.close(write)

    serve(loop, main)


def test_a_quick_call_that_began_before_the_loop_led(loop: QueueLoop) -> None:
    """Its request comes when the loop leads, which does not run sync handlers."""
    late = threading.Event()

    def requests() -> Iterator[bytes]:
        late.wait(WAIT)
        yield b"late"

    async def main(served: Served) -> None:
        for _ in range(Plan._TRIAL * 2):
            await served.call("Sync")
        call = served.channel.stream_unary("/a.B/Sync").future(requests(), timeout=WAIT / 2)
        await served.until_the_loop_leads()  # by calls on the same connection, which came later
        late.set()
        assert await asyncio.to_thread(call.result) == b"late"

    serve(loop, main)


def test_lending_and_taking_back_leaves_nothing_behind(
    loop: QueueLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread that watches files, however often."""
    monkeypatch.setattr(poller, "_PATIENCE", 1)
    monkeypatch.setattr(poller, "_MOST_PATIENCE", 1)

    async def main(served: Served) -> None:
        async def rounds(number: int) -> None:
            for _ in range(number):
                await served.until_the_loop_leads()
                await served.call("Sync")

        await rounds(100)
        assert files_watched() == 0
        assert not loop.closers

    serve(loop, main)


def test_closing_a_running_loop_is_refused_as_ever(loop: QueueLoop) -> None:
    """And it goes on leading."""

    async def main(served: Served) -> None:
        await served.until_the_loop_leads()
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()
        assert await served.call("Async", b"x") == b"x"

    serve(loop, main)


SERVER = """
import asyncio, grpc, sys
from dynserve import App
app = App('''
syntax = "proto3";
package s;
message M { int32 n = 1; }
service S { rpc Get(M) returns (M); }
''')
@app.rpc("s.S/Get")
async def get(m):
    return m
server = app.server("127.0.0.1:0", engine="queue", grace=5)
server.run_forever(lambda: print(server.addresses[0], flush=True))
"""


def test_a_signal_wakes_a_loop_that_leads() -> None:
    """SIGTERM stops a server whose main thread sleeps in the queue."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with grpc.insecure_channel(address) as channel:
            method: Any = channel.unary_unary("/s.S/Get")
            for _ in range(poller._PATIENCE * 2):
                method(b"", timeout=WAIT)
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait(WAIT) == 0
