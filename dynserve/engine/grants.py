"""Grants: holds the calls of grpc.aio to the limits of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

from .limits import EXPIRED, TOO_MANY, CallLimits

__all__ = ["Grants"]

Run = Callable[[Any, Any], Awaitable[Any]]


class Grants:
    """Counts the calls that run, and ends those whose time is over. Used on one loop."""

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self._running = 0

    def around(self, run: Run, path: str) -> Run:
        """What runs a behaviour, within the limits; as it is where none is for that path."""
        limits = self._limits
        if limits.is_exempt(path):
            return run
        if limits.default_timeout is not None or limits.max_timeout is not None:
            run = self._timed(run)
        return run if limits.maximum_concurrent_rpcs is None else self._counted(run)

    def _counted(self, run: Run) -> Run:
        async def counted(request: Any, raw: Any) -> Any:
            if self._running >= (self._limits.maximum_concurrent_rpcs or 0):
                await raw.abort(*TOO_MANY)
            self._running += 1
            try:
                return await run(request, raw)
            finally:
                self._running -= 1

        return counted

    def _timed(self, run: Run) -> Run:
        async def timed(request: Any, raw: Any) -> Any:
            seconds = self._limits.timeout(raw.time_remaining())
            if seconds is None:
                return await run(request, raw)
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(run(request, _Timed(raw, loop.time() + seconds)))
            try:
                # Not wait_for: a sync handler that goes on does not keep the client waiting.
                done, _ = await asyncio.wait({task}, timeout=seconds)
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait({task})
                raise
            if not done:
                task.cancel()
                await asyncio.wait({task})
                if not task.cancelled():
                    task.exception()  # its business: nobody is there to be told
                await raw.abort(*EXPIRED)
            return task.result()

        return timed


class _Timed:
    """A call of grpc.aio's that knows of its shortened deadline."""

    def __init__(self, raw: Any, end: float) -> None:
        self._raw = raw
        self._end = end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def time_remaining(self) -> float:
        """Seconds until it is ended here."""
        return max(0.0, self._end - asyncio.get_running_loop().time())
