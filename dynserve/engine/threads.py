"""Worker threads for sync handlers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["ThreadPool"]

_IDLE_SECONDS = 30.0


class ThreadPool:
    """Threads that are started on demand, up to a limit, and end when idle.

    They are daemons: unlike those of ``concurrent.futures`` they do not keep a process from ending
    while a handler blocks; a server that stops has waited its grace time already.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._tasks: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0

    def submit(self, task: Callable[[], None]) -> None:
        """Run ``task`` on a thread, as soon as there is one; it must not raise."""
        with self._changed:
            self._tasks.append(task)
            self._staff()

    def try_submit(self, task: Callable[[], None]) -> bool:
        """The same if there is a thread for it now; else nothing, and False."""
        with self._changed:
            if len(self._tasks) >= self._idle and self._threads >= self._limit:
                return False
            self._tasks.append(task)
            self._staff()
            return True

    def _staff(self) -> None:
        if len(self._tasks) <= self._idle:
            self._changed.notify()
        elif self._threads < self._limit:
            self._threads += 1
            name = f"{self._name}-{self._threads}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                ready = self._changed.wait_for(lambda: self._tasks, timeout=_IDLE_SECONDS)
                self._idle -= 1
                if not ready:
                    self._threads -= 1
                    return
                task = self._tasks.popleft()
            task()
            del task  # an idle thread keeps no call alive
