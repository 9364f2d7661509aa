"""Threads for what is sync inside of a grpc.aio interceptor."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["NoThreadError", "ThreadPool", "Threads"]

_IDLE_SECONDS = 10.0
_UNARY, _STREAMS = 64, 1000  # threads
_MOST_WAITING = 10_000  # tasks


class NoThreadError(Exception):
    """A task cannot be run now."""


class ThreadPool:
    """Daemon threads that are started on demand, and end when they were idle for some seconds.

    Args:
        limit: how many threads there are at most.
        most_waiting: how many tasks may wait for a thread.
        idle_seconds: after which a thread ends.
    """

    def __init__(
        self, limit: int, most_waiting: int = 0, idle_seconds: float = _IDLE_SECONDS
    ) -> None:
        self._limit = limit
        self._most_waiting = most_waiting
        self._idle_seconds = idle_seconds
        self._changed = threading.Condition()
        self._tasks: deque[Callable[[], object]] = deque()
        self._threads = self._idle = 0

    def submit(self, task: Callable[[], object]) -> None:
        """Run ``task``, which must not raise, on a thread.

        Raises:
            NoThreadError: there is none, and too many tasks wait for one.
        """
        with self._changed:
            if self._idle > len(self._tasks):
                self._tasks.append(task)
                self._changed.notify()
            elif self._threads < self._limit:
                self._start(task)
            elif len(self._tasks) - self._idle < self._most_waiting:
                self._tasks.append(task)
            else:
                raise NoThreadError

    def _start(self, task: Callable[[], object]) -> None:
        try:
            threading.Thread(
                target=self._work, args=([task],), name="dynserve-interceptor", daemon=True
            ).start()
        except RuntimeError as error:  # the system has no more threads, for now
            raise NoThreadError from error
        self._threads += 1

    def _work(self, first: list[Callable[[], object]]) -> None:
        task: Callable[[], object] | None = first.pop()
        while task is not None:
            task()
            task = None  # and what it holds, while the thread is idle
            task = self._next()

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._tasks, self._idle_seconds)
            self._idle -= 1
            if self._tasks:
                return self._tasks.popleft()
            self._threads -= 1
            return None


class Threads:
    """The threads of an app's interceptors: unary calls wait for one, streams do not.

    Args:
        unary: how many unary calls have a thread at the same time.
        streams: how many threads other calls have.
    """

    def __init__(self, unary: int = _UNARY, streams: int = _STREAMS) -> None:
        self.unary = ThreadPool(unary, _MOST_WAITING)
        self.streams = ThreadPool(streams)
