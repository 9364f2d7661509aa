"""Ending the server's own long streams when it stops.

A health watcher or an idle reflection client would keep a graceful stop waiting for its whole grace
time; both expect to be cut off and come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

from dynserve.status import StatusError

__all__ = ["Drain"]

_LAST_WORDS = 0.05  # seconds in which a stream may send what it has and end by itself


class Drain:
    """Runs the bodies of streams, and ends them with UNAVAILABLE when the server drains."""

    def __init__(self) -> None:
        self.is_draining = False
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, body: Coroutine[Any, Any, None]) -> None:
        """Run the body of a stream.

        Raises:
            StatusError: the server drains.
        """
        task = asyncio.ensure_future(body)
        self._tasks.add(task)
        try:
            await task
        except asyncio.CancelledError:
            if not self.is_draining:
                raise
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down") from None
        finally:
            self._tasks.discard(task)

    async def start(self) -> None:
        """End what runs now."""
        self.is_draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS)
        for task in self._tasks:
            task.cancel()
