"""The pipe between the loop and a thread: order, bounds, ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dynserve.engine.bridge import ClosedError, Pipe

WAIT = 20.0


def run(main: Callable[[Pipe], Awaitable[Any]]) -> Any:
    """Run a test's coroutine with a pipe of its loop."""

    async def body() -> Any:
        return await asyncio.wait_for(main(Pipe(asyncio.get_running_loop())), WAIT)

    return asyncio.run(body())


def in_thread(function: Callable[[], Any]) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().run_in_executor(None, function)


def messages(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 5000])
def test_thread_to_loop_keeps_order(count: int) -> None:
    """All that a thread puts arrives on the loop, in order, then the end."""

    async def main(pipe: Pipe) -> list[bytes]:
        def put() -> None:
            for item in messages(count):
                pipe.put(item)
            pipe.end()

        putting = in_thread(put)
        got = []
        while (item := await pipe.receive()) is not None:
            got.append(item)
        await putting
        return got

    assert run(main) == messages(count)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 5000])
def test_loop_to_thread_keeps_order(count: int) -> None:
    """All that the loop sends arrives on a thread, in order, then the end."""

    async def main(pipe: Pipe) -> Any:
        taking = in_thread(lambda: list(pipe))
        for item in messages(count):
            await pipe.send(item)
        pipe.end()
        return await taking

    assert run(main) == messages(count)


@pytest.mark.parametrize(("size", "fits"), [(1, 64), (1 << 20, 1), (300_000, 4)])
def test_a_thread_waits_while_the_pipe_is_full(size: int, fits: int) -> None:
    """At most 64 messages, or the one that passes 1 MiB, are ahead of the reader."""

    async def main(pipe: Pipe) -> None:
        count = 0
        stuck = threading.Event()

        def put() -> None:
            nonlocal count
            for number in range(fits + 1):
                if number == fits:
                    stuck.set()
                pipe.put(bytes(size))
                count += 1

        putting = in_thread(put)
        assert await in_thread(lambda: stuck.wait(WAIT))
        assert count == fits
        await pipe.receive()
        await putting
        assert count == fits + 1

    run(main)


def test_the_loop_waits_while_the_pipe_is_full() -> None:
    """Sending past the bound waits for the thread."""

    async def main(pipe: Pipe) -> None:
        for item in messages(64):
            await pipe.send(item)
        waiting = asyncio.ensure_future(pipe.send(b"more"))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert await in_thread(lambda: next(iter(pipe))) == b"0"
        await waiting

    run(main)


def test_an_error_comes_after_what_was_sent() -> None:
    """end(error) raises at the other side, once the messages before it are taken."""

    async def main(pipe: Pipe) -> None:
        pipe.put(b"a")
        pipe.end(ValueError("x"))
        pipe.end()  # the first end counts
        assert await pipe.receive() == b"a"
        with pytest.raises(ValueError, match=r"^x$"):
            await pipe.receive()

    run(main)


def test_close_wakes_everybody() -> None:
    """A closed pipe raises ClosedError for readers and writers, on both sides, also waiting."""

    async def main(pipe: Pipe) -> None:
        reader = in_thread(lambda: list(pipe))
        pipe.close()
        with pytest.raises(ClosedError):
            await reader
        with pytest.raises(ClosedError):
            await pipe.receive()
        with pytest.raises(ClosedError):
            await pipe.send(b"")
        with pytest.raises(ClosedError):
            pipe.put(b"")

    run(main)


def test_close_wakes_a_writer_that_waits_for_room() -> None:
    """A thread that waits for a reader which has gone does not wait for ever."""

    async def main(pipe: Pipe) -> None:
        full = threading.Event()

        def put() -> None:
            for item in messages(64):
                pipe.put(item)
            full.set()
            pipe.put(b"more")

        putting = in_thread(put)
        assert await in_thread(lambda: full.wait(WAIT))
        sending = asyncio.ensure_future(pipe.send(b"more"))
        await asyncio.sleep(0)
        pipe.close()
        for waiting in (putting, sending):
            with pytest.raises(ClosedError):
                await waiting

    run(main)


def test_a_pipe_outlives_its_loop() -> None:
    """A thread that ends its pipe after the loop was closed gets no error."""
    loop = asyncio.new_event_loop()
    pipe = Pipe(loop)
    loop.close()
    pipe.end()
    pipe.close()
