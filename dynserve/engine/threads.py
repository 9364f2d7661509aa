"""Worker threads for sync handlers."""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["NoThreadError", "Pools", "ThreadPool"]

_IDLE_SECONDS = 30.0
_MAX_WAITING = 10_000  # tasks
_MAX_UNARY, _CALLBACKS = 64, 8  # threads


class NoThreadError(Exception):
    """A task cannot be run now."""


class ThreadPool:
    """Threads that are started on demand, up to a limit, and end when idle.

    They are daemons: unlike those of ``concurrent.futures`` they do not keep a process from ending
    while a handler blocks; a server that stops has waited its grace time already.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._lock = threading.Lock()  # held for a few instructions, for all that follows
        self._threads = 0
        self._idle: list[_Worker] = []
        self._is_closed = False
        self._waiting: deque[_Cell] = deque()

    def submit(self, task: Callable[[], None], *, wait: bool = True) -> Callable[[], object]:
        """Run ``task``, which must not raise, on a thread; with ``wait`` as soon as there is one.

        Returns:
            A function that takes the task back and returns it, or None where it has begun.

        Raises:
            NoThreadError: there is no thread and, with ``wait``, nothing to wait for.
        """
        cell = [task]
        with self._lock:
            if self._idle:
                self._idle.pop().give(cell)
            elif self._threads < self._limit and self._start(cell):
                self._threads += 1
            elif wait and self._threads and len(self._waiting) < _MAX_WAITING:
                self._waiting.append(cell)
            else:
                raise NoThreadError
        return functools.partial(_taken, cell)

    def close(self) -> None:
        """Let idle threads end now, and the others when they are done; tasks are still taken."""
        with self._lock:
            self._is_closed = True
            for worker in self._idle:
                worker.give([])
            self._idle.clear()

    def is_busy(self) -> bool:
        """Whether a task would have to wait for a thread, as far as is known without the lock."""
        return not self._idle and self._threads >= self._limit

    def _start(self, cell: _Cell) -> bool:
        worker = _Worker()
        worker.give(cell)
        name = f"{self._name}-{self._threads + 1}"
        try:
            threading.Thread(target=self._work, args=(worker,), name=name, daemon=True).start()
        except RuntimeError:  # the system has no more threads, for now
            return False
        return True

    def _work(self, worker: _Worker) -> None:
        cell: _Cell | None = worker.take()
        while cell is not None:
            task = _taken(cell)
            if task is not None:
                task()
            del task  # and what it holds, while the thread is idle
            cell = self._next(worker)

    def _next(self, worker: _Worker) -> _Cell | None:
        """What the worker does next; None: it was idle for long, and ends."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._is_closed:
                self._threads -= 1
                return None
            self._idle.append(worker)
        cell = worker.take(_IDLE_SECONDS)
        if cell is None:
            with self._lock:
                if worker in self._idle:
                    self._idle.remove(worker)
                    self._threads -= 1
                    return None
            cell = worker.take()  # it was given a task just now
        return cell


class Pools:
    """The threads of an engine, by what they are for.

    Args:
        threads: how many unary sync handlers run at the same time, None for a number that fits the
            machine.
        stream_threads: how many streaming sync handlers run at the same time.
        queue_wait: seconds that a unary call waits for a thread; None: as long as it takes.
    """

    def __init__(
        self, threads: int | None, stream_threads: int, queue_wait: float | None = None
    ) -> None:
        self.queue_wait = queue_wait
        fitting = min(_MAX_UNARY, (os.cpu_count() or 1) * 4 + 8)
        self.unary = ThreadPool(threads or fitting, "dynserve-unary")
        self.streams = ThreadPool(stream_threads, "dynserve-stream")
        self.callbacks = ThreadPool(_CALLBACKS, "dynserve-callback")

    def close(self) -> None:
        """Let idle threads end; see :meth:`ThreadPool.close`."""
        for pool in (self.unary, self.streams, self.callbacks):
            pool.close()


_Cell = list[Callable[[], None]]  # the task, or nothing once somebody took it


def _taken(cell: _Cell) -> Callable[[], None] | None:
    """The task, for one of those who ask: the thread that runs it, or who takes it back."""
    try:
        return cell.pop()
    except IndexError:
        return None


class _Worker:
    """A thread's own place, where an idle one is handed its next task."""

    __slots__ = ("_cell", "_given")

    def __init__(self) -> None:
        self._cell: _Cell = []
        self._given = threading.Lock()
        self._given.acquire()

    def give(self, cell: _Cell) -> None:
        """Hand over a task and wake the thread."""
        self._cell = cell
        self._given.release()

    def take(self, seconds: float = -1) -> _Cell | None:
        """The next task; waits for it, None where none came in time."""
        if not self._given.acquire(timeout=seconds):
            return None
        cell, self._cell = self._cell, []
        return cell
