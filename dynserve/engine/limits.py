"""What an engine grants a call: a place among those that run, and time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import grpc

__all__ = ["EXPIRED", "NO_LIMITS", "TOO_LONG", "TOO_MANY", "CallLimits"]

TOO_MANY = grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls are open on this server"
TOO_LONG = grpc.StatusCode.RESOURCE_EXHAUSTED, "the call waited too long for a thread"
EXPIRED = grpc.StatusCode.DEADLINE_EXCEEDED, "the time that this server grants a call is over"


def _none(_path: str) -> bool:
    return False


class CallLimits(NamedTuple):
    """The limits of an engine; None where there is none.

    ``maximum_concurrent_rpcs`` calls run at the same time. ``default_timeout`` is the deadline, in
    seconds, of calls that have none, ``max_timeout`` the longest. A unary call waits for a thread
    for ``max_queue_wait`` seconds. ``is_exempt`` tells by its path which call neither counts nor
    has a deadline of the server's making.
    """

    maximum_concurrent_rpcs: int | None = None
    default_timeout: float | None = None
    max_timeout: float | None = None
    max_queue_wait: float | None = None
    is_exempt: Callable[[str], bool] = _none

    def timeout(self, remaining: float | None) -> float | None:
        """The seconds that a call gets here; None where its own deadline, or none, is as good.

        ``remaining`` is what it has by its own.
        """
        if remaining is None:
            if self.default_timeout is None or self.max_timeout is None:
                return self.default_timeout or self.max_timeout
            return min(self.default_timeout, self.max_timeout)
        if self.max_timeout is not None and remaining > self.max_timeout:
            return self.max_timeout
        return None


NO_LIMITS = CallLimits()
