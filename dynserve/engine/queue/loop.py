"""An event loop that can sleep in the completion queue, so that an async call costs no switch.

A loop sleeps in the system's selector, so another thread has to sleep in the queue and wake it.
While this loop leads it is the other way round: ``select`` sleeps in the queue, and a thread
watches the loop's file descriptors, all of them through the one descriptor of their selector. What
interrupts the sleep is a batch of no operations, which completes at once; the core wants a call to
start it on, any call that the queue ever had.
"""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["QueueLoop"]

_LONGEST = 1.0  # seconds of sleep; the queue goes by the system's clock, which may be set

Poll = Callable[[float], None]  # until that time


class QueueLoop(asyncio.SelectorEventLoop):
    """An asyncio loop; the usual one until :meth:`lead`."""

    def __init__(self) -> None:
        self._sleeper = _Sleeper()
        self.closers: list[Callable[[], None]] = []  # called before it is closed; any thread's
        super().__init__(self._sleeper)

    @staticmethod
    def is_possible() -> bool:
        """Whether this system's selector can be watched as a whole."""
        return hasattr(selectors.DefaultSelector, "fileno")

    def lead(self, poll: Poll, call: Any) -> bool:
        """Sleep in ``poll`` from here on, which is interrupted by batches on ``call``. On the loop.

        False where it sleeps in another queue. Before the loop is closed one of its ``closers`` has
        to call :meth:`leave`.

        Raises:
            OSError, RuntimeError: no file, or no thread, can be had; the loop sleeps as before.
        """
        return self._sleeper.attach(poll, call)

    def leave(self) -> None:
        """Sleep as usual from here on, and let the call go. On the loop."""
        self._sleeper.detach()

    def close(self) -> None:
        """Close the loop; see asyncio."""
        if not self.is_running():
            self._run_closers()
        super().close()
        self._run_closers()  # of a thread that could not know yet

    def _run_closers(self) -> None:
        while self.closers:
            self.closers.pop()()

    def _write_to_self(self) -> None:
        # asyncio's own name, in every version, for what call_soon_threadsafe ends with
        if not self._sleeper.wake():
            super()._write_to_self()  # type: ignore[misc]


class _Sleeper(selectors.BaseSelector):
    """The system's selector, or the queue."""

    def __init__(self) -> None:
        self._files: Any = selectors.DefaultSelector()
        self._poll: Poll | None = None
        self._watch: _Watch | None = None

    def attach(self, poll: Poll, call: Any) -> bool:
        if self._watch is not None:
            return False
        self._watch = _Watch(self._files.fileno(), call)
        self._poll = poll
        return True

    def detach(self) -> None:
        watch, self._watch, self._poll = self._watch, None, None
        if watch is not None:
            watch.end()

    def wake(self) -> bool:
        watch = self._watch  # any thread
        return watch is not None and watch.wake()

    def select(self, timeout: float | None = None) -> Any:
        watch, poll = self._watch, self._poll
        if watch is None or poll is None:
            return self._files.select(timeout)
        watch.go_on()
        is_busy = timeout is not None and timeout <= 0
        poll(0.0 if is_busy or watch.is_ready else time.time() + min(timeout or _LONGEST, _LONGEST))
        # A busy loop looks by itself: it leaves the watching thread hardly a moment to tell.
        is_ready = watch.is_ready
        ready = self._files.select(0) if is_ready or is_busy else []
        watch.was_looked_at = is_ready
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        return self._files.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> Any:
        return self._files.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> Any:
        return self._files.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._files.get_map()

    def get_key(self, fileobj: Any) -> Any:
        return self._files.get_key(fileobj)

    def close(self) -> None:
        self.detach()
        self._files.close()


class _Watch:
    """A thread that waits for a file descriptor to be ready, and then interrupts the sleep once."""

    def __init__(self, file: int, call: Any) -> None:
        self.is_ready = False  # set by the thread, taken back by the loop
        self.was_looked_at = False  # what was ready; the loop's
        self._call = call
        self._file = file
        self._ending, self._end = os.pipe()
        self._seen = threading.Semaphore(0)  # the loop has looked at what was ready
        try:
            threading.Thread(target=self._run, name="dynserve-files", daemon=True).start()
        except RuntimeError:  # the system has no more threads; then none runs
            os.close(self._ending)
            os.close(self._end)
            raise

    def wake(self) -> bool:
        """Interrupt the sleep; False where there is none to come. Any thread."""
        call = self._call
        if call is None:
            return False
        call.start_server_batch((), _ignore)
        return True

    def go_on(self) -> None:
        """What was ready, if it was looked at, was dealt with. On the loop."""
        if self.was_looked_at:
            self.was_looked_at = self.is_ready = False
            self._seen.release()

    def end(self) -> None:
        """On the loop."""
        self._call = None
        os.close(self._end)
        self._seen.release()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        poll.register(self._ending, 0)  # tells when the other end is closed
        while self._call is not None:
            if any(file == self._file for file, _ in poll.poll()) and self._call is not None:
                self.is_ready = True
                self.wake()
                self._seen.acquire()
        os.close(self._ending)


def _ignore(_event: Any) -> None:
    """The tag of an interruption."""
