"""How long to wait until a worker that died is started again."""

from __future__ import annotations

__all__ = ["Backoff"]

_FIRST = 0.5
_LONGEST = 30.0
_A_WHILE = 30.0


class Backoff:
    """Seconds to wait: none after the first death, then 0.5, 1, 2, … up to 30.

    A worker that was ready for 30 seconds begins anew.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def delay(self, was_ready_for: float) -> float:
        """The seconds to wait after a death; ``was_ready_for`` is in seconds too."""
        if was_ready_for >= _A_WHILE:
            self._next = 0.0
        now = self._next
        self._next = min(2 * now, _LONGEST) if now else _FIRST
        return now
