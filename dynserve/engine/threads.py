"""Worker threads for sync handlers."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["NoThreadError", "ThreadPool"]

_IDLE_SECONDS = 30.0
_MAX_WAITING = 10_000  # tasks


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
        self._numbers = itertools.count(1)
        self._tasks: OrderedDict[int, Callable[[], None]] = OrderedDict()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0

    def submit(self, task: Callable[[], None], *, wait: bool = True) -> Callable[[], None]:
        """Run ``task``, which must not raise, on a thread; with ``wait`` as soon as there is one.

        Returns:
            A function that takes the task back, if it has not begun.

        Raises:
            NoThreadError: there is no thread and, with ``wait``, nothing to wait for.
        """
        with self._changed:
            if len(self._tasks) >= self._idle and self._threads >= self._limit and not wait:
                raise NoThreadError
            if len(self._tasks) >= _MAX_WAITING:
                raise NoThreadError
            number = next(self._numbers)
            self._tasks[number] = task
            if len(self._tasks) <= self._idle:
                self._changed.notify()
            elif self._threads < self._limit and not self._start() and not (wait and self._threads):
                del self._tasks[number]
                raise NoThreadError
        return lambda: self._take_back(number)

    def _take_back(self, number: int) -> None:
        with self._changed:
            self._tasks.pop(number, None)

    def _start(self) -> bool:
        name = f"{self._name}-{self._threads + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:  # the system has no more threads, for now
            return False
        self._threads += 1
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                ready = self._changed.wait_for(lambda: self._tasks, timeout=_IDLE_SECONDS)
                self._idle -= 1
                if not ready:
                    self._threads -= 1
                    return
                _, task = self._tasks.popitem(last=False)
            task()
            del task  # an idle thread keeps no call alive
