"""Clock: what is done about calls when their time is over."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest

from dynserve.engine.limits import CallLimits
from dynserve.engine.queue.clock import Clock
from tests.engine.test_engines import WAIT, Channel, generic, run


class _Call:
    """Stands in for a call: a clock knows it by its identity, and leaves a mark."""

    is_timed = False


def on_loop(main: Any) -> Any:
    return asyncio.run(asyncio.wait_for(main(), WAIT))


def test_the_shortest_time_comes_first() -> None:
    """Also where a longer one was set before it."""
    due: list[str] = []

    async def main() -> None:
        clock, ended = Clock(asyncio.get_running_loop()), asyncio.Event()
        long, short = _Call(), _Call()
        clock.set(long, WAIT * 2, lambda _call: due.append("long"))  # type: ignore[arg-type]
        await asyncio.sleep(0)  # it is armed for that

        def then(_call: Any) -> None:
            due.append("short")
            ended.set()

        clock.set(short, 0.01, then)  # type: ignore[arg-type]
        await ended.wait()
        clock.stop()

    on_loop(main)
    assert due == ["short"]


def test_what_was_forgotten_or_stopped_is_not_due() -> None:
    """And does not keep what comes later from being so."""
    due: list[str] = []

    async def main() -> None:
        clock, ended = Clock(asyncio.get_running_loop()), asyncio.Event()
        first, second, third = _Call(), _Call(), _Call()

        def then(call: Any) -> None:
            due.append("first" if call is first else "second" if call is second else "third")
            ended.set()

        clock.set(first, 0.01, then)  # type: ignore[arg-type]
        clock.set(second, 0.02, then)  # type: ignore[arg-type]
        clock.forget(first)  # type: ignore[arg-type]
        await ended.wait()
        clock.set(third, 0.01, then)  # type: ignore[arg-type]
        clock.stop()
        await asyncio.sleep(0.05)

    on_loop(main)
    assert due == ["second"]


def test_times_are_set_on_any_thread() -> None:
    """Hundreds, by several threads at once; each is due once."""
    due: list[Any] = []
    calls = [_Call() for _ in range(400)]

    async def main() -> None:
        clock, ended = Clock(asyncio.get_running_loop()), asyncio.Event()

        def then(call: Any) -> None:
            due.append(call)
            if len(due) == len(calls):
                ended.set()

        def work(number: int) -> None:
            for place, call in enumerate(calls[number::4]):
                clock.set(call, 0.01 * (1 + place % 3), then)  # type: ignore[arg-type]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        await ended.wait()

    on_loop(main)
    assert (len(due), set(due)) == (len(calls), set(calls))


def test_a_loop_that_was_closed() -> None:
    """Nothing is due any more, and who sets a time is not disturbed."""
    loop = asyncio.new_event_loop()
    clock = Clock(loop)
    loop.close()
    call = _Call()
    clock.set(call, 0.01, pytest.fail)  # type: ignore[arg-type]
    assert call.is_timed


@pytest.mark.usefixtures("engine")
def test_a_call_that_gets_its_thread_too_late_has_a_status() -> None:
    """Its time was over while it waited: it does not run, and is told so."""
    release = threading.Event()
    ran: list[bytes] = []

    def one(request: bytes, _context: Any) -> bytes:
        ran.append(request)
        if request == b"first":
            release.wait(WAIT)
        return request

    def client(channel: Channel) -> Any:
        method = channel.unary_unary("/a.B/One")
        ended = []
        for number in range(30):
            first = method.future(b"first", timeout=WAIT)
            queued = [method.future(b"queued") for _ in range(3)]
            threading.Timer(0.05 + number % 3 * 0.001, release.set).start()
            for call in queued:  # its time is over as the thread comes free
                error = call.exception(timeout=WAIT)
                ended.append("served" if error is None else error.code().name)
            first.cancel()
            release.clear()
        return set(ended)

    handlers = generic(One=grpc.unary_unary_rpc_method_handler(one))
    limits = CallLimits(default_timeout=0.05, max_queue_wait=WAIT)
    assert run(handlers, client, limits=limits, threads=1) <= {"served", "DEADLINE_EXCEEDED"}
