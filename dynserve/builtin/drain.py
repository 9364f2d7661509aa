"""Ending the server's own idle streams when it stops.

An idle reflection client would keep a graceful stop waiting for its whole grace time; it expects to
be cut off and to come back. What is being answered is answered first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc

from dynserve.status import StatusError

__all__ = ["Drain", "shutting_down"]

_Result = TypeVar("_Result")


class Drain:
    """Waits on behalf of streams, and stops waiting when the server drains. Used on one loop."""

    def __init__(self) -> None:
        self._is_draining = False
        self._waiting: set[asyncio.Future[Any]] = set()

    async def wait_for(self, awaitable: Awaitable[_Result]) -> _Result:
        """The result of ``awaitable``, which is cancelled if the server drains first.

        Raises:
            StatusError: the server drains: UNAVAILABLE.
        """
        waiting = asyncio.ensure_future(awaitable)
        self._waiting.add(waiting)
        if self._is_draining:
            waiting.cancel()
        try:
            # Not `await waiting`: that could not tell whose cancellation it was.
            await asyncio.wait({waiting})
        finally:
            self._waiting.discard(waiting)
            waiting.cancel()
        if waiting.cancelled() and self._is_draining:
            raise shutting_down()
        return waiting.result()

    def start(self) -> None:
        """Stop waiting, now and from here on."""
        self._is_draining = True
        for waiting in self._waiting:
            waiting.cancel()


def shutting_down() -> StatusError:
    """What a stream ends with that the server has let go; clients then come back."""
    return StatusError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
