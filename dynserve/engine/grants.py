"""Grants: knows the calls of grpc.aio that run, and holds them to the limits of an engine."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from .limits import EXPIRED, TOO_MANY, CallLimits
from .running import RunningCall

__all__ = ["Grants"]

Run = Callable[[Any, Any], Coroutine[Any, Any, Any]]


class Grants:
    """Knows the calls that run, and ends those whose time is over. Used on one loop."""

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self._running: dict[int, tuple[str, Any, float, object]] = {}  # by number
        self.tasks: dict[int, asyncio.Task[Any] | None] = {}  # the same
        self._numbers = itertools.count()
        self._counted = 0

    def calls(self) -> list[RunningCall]:
        """The calls that run right now, the oldest first."""
        now = time.monotonic()
        return [
            RunningCall(path, str(raw.peer()), now - began, raw.time_remaining(), coroutine)
            for path, raw, began, coroutine in self._running.values()
        ]

    def around(self, run: Run, path: str) -> Run:
        """What runs a behaviour, within the limits for that path."""
        limits = self._limits
        is_exempt = limits.is_exempt(path)
        if not is_exempt and not (limits.default_timeout is None and limits.max_timeout is None):
            run = self._timed(run)
        counts = not is_exempt and limits.maximum_concurrent_rpcs is not None

        async def known(request: Any, raw: Any) -> Any:
            if counts and self._counted >= (limits.maximum_concurrent_rpcs or 0):
                await raw.abort(*TOO_MANY)
            number = next(self._numbers)
            coroutine = run(request, raw)
            self._running[number] = path, raw, time.monotonic(), coroutine
            self.tasks[number] = asyncio.current_task()
            self._counted += counts
            try:
                return await coroutine
            finally:
                self._counted -= counts
                del self._running[number], self.tasks[number]

        return known

    def _timed(self, run: Run) -> Run:
        async def timed(request: Any, raw: Any) -> Any:
            seconds = self._limits.timeout(raw.time_remaining())
            if seconds is None:
                return await run(request, raw)
            task = asyncio.ensure_future(run(request, _Timed(raw, time.monotonic() + seconds)))
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
        return max(0.0, self._end - time.monotonic())
