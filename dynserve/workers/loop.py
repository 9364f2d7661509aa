"""What the supervisor waits in: files, signals and times, on one thread.

Not asyncio: its import alone would be most of what a supervisor takes of time and memory.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Sequence

__all__ = ["Loop", "Timer"]

_PIECE = 4096


class Timer:
    """A call to come, unless it is cancelled."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Do not call."""
        self._call = None

    def run(self) -> None:
        """Call, once."""
        call, self._call = self._call, None
        if call is not None:
            call()


class Loop:
    """Calls what is to be called until there is nothing more to wait for."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._calls: dict[int, Callable[[], object]] = {}  # by file descriptor
        self._timers: list[tuple[float, int, Timer]] = []  # a heap
        self._numbers = itertools.count()

    def after(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call it in so many seconds."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def watch(self, file: int, call: Callable[[], object], for_room: bool = False) -> None:
        """Call it whenever there is something to read, or, with ``for_room``, room to write too."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if for_room else 0)
        if file in self._calls:
            self._selector.modify(file, events)
        else:
            self._selector.register(file, events)
        self._calls[file] = call

    def forget(self, file: int) -> None:
        """Watch it no more, if it is. To be called before it is closed."""
        if self._calls.pop(file, None) is not None:
            self._selector.unregister(file)

    @contextlib.contextmanager
    def signals(self, numbers: Sequence[int], call: Callable[[int], object]) -> Iterator[None]:
        """Call it with the number of each signal that comes, in their order. The main thread's.

        Python's own handlers do nothing: what the C handler writes wakes the loop, so there is no
        moment at which a signal is taken note of and the loop sleeps on.
        """
        reader, writer = os.pipe()  # a pair of sockets holds a few hundred bytes only
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        # First the file, then the handlers: a signal that has a handler is never without a file.
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        handlers = [signal.signal(number, _do_nothing) for number in numbers]

        def read() -> None:
            for number in os.read(reader, _PIECE):
                call(number)

        self.watch(reader, read)
        try:
            yield
        finally:
            self.forget(reader)
            signal.set_wakeup_fd(before)
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def run(self, is_over: Callable[[], bool]) -> None:
        """Wait and call until it is over."""
        while not is_over():
            for key, _ in self._selector.select(self._until_next()):
                call = self._calls.get(key.fd)
                if call is not None:  # else one that was called before has forgotten it
                    call()
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2].run()

    def close(self) -> None:
        """Watch nothing any more."""
        self._selector.close()

    def _until_next(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())


def _do_nothing(_number: int, _frame: object) -> None:
    """A signal that has a handler is told to the wake-up file."""
