"""Running an event loop as a program's main one: until signals, and to its very end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

__all__ = ["first_of", "on_signals", "run_loop", "run_main"]


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Wait for the first to end, and raise what it raised; the others are cancelled."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        task.result()


def run_main(main: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    """What ``asyncio.run`` does, with a loop of ours, also on Python 3.10."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        _close_loop(loop)


def run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, and close it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        _close_loop(loop)


def _close_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_until_complete(_end_all_tasks(loop))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _end_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """What asyncio.run() does at its end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            message = "a task failed while the server's event loop was ended"
            context = {"message": message, "exception": task.exception(), "task": task}
            loop.call_exception_handler(context)


class Stopping:
    """What was asked of a server that runs: to stop, and to stop at once. Used on one loop.

    ``first`` is set when it is to stop, ``again`` when calls under way are not to be waited for.
    ``drains`` tells whether load balancers are to be told first, ``is_replaced`` whether another
    process has taken over.

    Args:
        counts: whether a second signal is ``again``, and a third one ends the process; a worker's
            supervisor sees to that, and tells it by other means.
    """

    def __init__(self, counts: bool) -> None:
        self.first, self.again = asyncio.Event(), asyncio.Event()
        self.drains = self.is_replaced = False
        self._left = 2 if counts else None

    def on_signal(self, number: int, act: Callable[[Callable[[], object]], object]) -> None:
        """A signal came; ``act`` does something on the loop. Not on the loop, maybe."""
        if self._left == 0:
            os._exit(128 + number)  # as shells have it
        if self._left == 1:
            act(self.again.set)
        elif not self.first.is_set():
            self.drains = number == signal.SIGTERM
            act(self.first.set)
        if self._left is not None:
            self._left -= 1

    def on_stop(self, why: str) -> None:
        """A supervisor says so: all are ``"stopping"`` or ``"interrupted"``, or this is
        ``"replaced"``.
        """
        if not self.first.is_set():
            self.is_replaced, self.drains = why == "replaced", why == "stopping"
            self.first.set()


@contextlib.contextmanager
def on_signals(
    step: Callable[[int, Callable[[Callable[[], object]], object]], object],
    others: Mapping[signal.Signals, Callable[[], object]],
) -> Iterator[None]:
    """Call ``step`` with the number of each SIGINT and SIGTERM, and with what acts on the loop.

    ``others`` are called on the loop for other signals. By ``signal.signal``, not by the loop's own
    means: a handler may keep the loop from running.
    """
    loop = asyncio.get_running_loop()

    def on_signal(number: int, _frame: object) -> None:
        step(number, loop.call_soon_threadsafe)

    def on_other(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(others[signal.Signals(number)])

    handlers = {signal.SIGINT: on_signal, signal.SIGTERM: on_signal}
    handlers |= dict.fromkeys(others, on_other)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with _woken_by_signals(loop):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have every signal wake the loop.

    Python takes note of a signal and calls its handler later; one that comes just as the loop falls
    asleep would be handled when the loop wakes for another reason, hours later maybe.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if before != -1:  # the loop sees to it itself, as uvloop's does
            signal.set_wakeup_fd(before)
            yield
            return
        loop.add_reader(reader, reader.recv, 4096)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            loop.remove_reader(reader)
