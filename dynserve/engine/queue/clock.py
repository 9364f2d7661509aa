"""Clock: has something done about calls when their time is over.

There are few different times, the same for many calls, so each has a queue of its own: the call
that came first is due first. One timer of the loop is enough, and a call that ends in time costs
no more than its place in a dict.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .call import Call

__all__ = ["Clock"]

_NEVER = float("inf")
_Queue = dict["Call", float]  # call → when, by time.monotonic(); in that order


class Clock:
    """The times of the calls of one engine."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()  # for all that follows; held for a few instructions
        self._queues: dict[tuple[Callable[[Call], object], float], _Queue] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = _NEVER  # when the timer, or the loop that is asked for one, looks next

    def set(self, call: Call, seconds: float, then: Callable[[Call], object]) -> None:
        """Call ``then`` on the loop when so many seconds are over; any thread."""
        when = time.monotonic() + seconds
        with self._lock:
            call.is_timed = True
            self._queues.setdefault((then, seconds), {})[call] = when
            if self._armed_for <= when:
                return
            self._armed_for = when
        try:
            self._loop.call_soon_threadsafe(self._arm)
        except RuntimeError:  # it was closed, and the server goes with it
            self.stop()

    def forget(self, call: Call) -> None:
        """The call is over; any thread."""
        with self._lock:
            for queue in self._queues.values():
                queue.pop(call, None)

    def stop(self) -> None:
        """Nothing is due any more; any thread."""
        with self._lock:
            self._queues.clear()  # a timer that is left finds nothing

    def _arm(self) -> None:  # loop
        due: list[tuple[Callable[[Call], object], Call]] = []
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            now = time.monotonic()
            self._armed_for = _NEVER
            for (then, _), queue in self._queues.items():
                while queue:
                    call, when = next(iter(queue.items()))
                    if when > now:
                        self._armed_for = min(self._armed_for, when)
                        break
                    del queue[call]
                    due.append((then, call))
            wait = self._armed_for - now
        self._timer = None if wait == _NEVER else self._loop.call_later(wait, self._arm)
        for then, call in due:
            then(call)
