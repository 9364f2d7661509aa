"""What runs right now, as an engine tells it."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RunningCall"]


class RunningCall(NamedTuple):
    """A call whose handler has not ended.

    ``seconds`` is how long it has been there, ``remaining`` the seconds until its deadline, None
    without one. ``peer`` is empty once the call is over while its handler goes on. ``coroutine`` is
    what runs on the loop, None where a thread does.
    """

    path: str
    peer: str
    seconds: float
    remaining: float | None
    coroutine: object = None
