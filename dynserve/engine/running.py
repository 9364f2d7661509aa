"""What runs right now, as an engine tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["RunningCall", "unwound"]

_UNWINDS = 2.0  # seconds that handlers which were cancelled have for what they do in the end


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


async def unwound(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Wait for handlers on the loop that have no call any more; what they use may go then."""
    left = {task for task in tasks if task is not None} - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=_UNWINDS)
