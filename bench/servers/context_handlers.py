"""`bench.Echo` as services in production write it: metadata read and sent, and three wrappers.

The wrappers are plain decorators, each with a little of what middlewares do.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from handlers import AsyncEcho, SyncEcho

Handler = Callable[[Any, Any], Any]
AsyncHandler = Callable[[Any, Any], Awaitable[Any]]

calls = 0
slowest = 0.0


def _count() -> None:
    global calls  # noqa: PLW0603  # a counter of the process, as metrics are
    calls += 1


def _time(start: float) -> None:
    global slowest  # noqa: PLW0603
    slowest = max(slowest, time.perf_counter() - start)


def _look(context: Any) -> str:
    """What the innermost wrapper looks at before it lets a call through."""
    left = context.time_remaining()
    if left is not None and left < 0:
        raise TimeoutError
    return str(dict(context.invocation_metadata()).get("x-request-id") or context.peer())


def wrapped(handler: Handler) -> Handler:
    """Three functions around a sync handler."""

    def counted(request: Any, context: Any) -> Any:
        _count()
        return timed(request, context)

    def timed(request: Any, context: Any) -> Any:
        start = time.perf_counter()
        try:
            return identified(request, context)
        finally:
            _time(start)

    @functools.wraps(handler)
    def identified(request: Any, context: Any) -> Any:
        context.set_trailing_metadata((("x-request-id", _look(context)),))
        return handler(request, context)

    return counted


def wrapped_async(handler: AsyncHandler) -> AsyncHandler:
    """Three coroutines around an async handler."""

    async def counted(request: Any, context: Any) -> Any:
        _count()
        return await timed(request, context)

    async def timed(request: Any, context: Any) -> Any:
        start = time.perf_counter()
        try:
            return await identified(request, context)
        finally:
            _time(start)

    @functools.wraps(handler)
    async def identified(request: Any, context: Any) -> Any:
        context.set_trailing_metadata((("x-request-id", _look(context)),))
        return await handler(request, context)

    return counted


class SyncContextEcho(SyncEcho):
    """SyncEcho, whose Say stands behind the wrappers."""

    def __init__(self, reply: Any, item: Any) -> None:
        super().__init__(reply, item)
        # On the object: its own attribute comes before the method of the class.
        self.Say = wrapped(super().Say)  # type: ignore[method-assign,assignment]


class AsyncContextEcho(AsyncEcho):
    """AsyncEcho, whose Say stands behind the wrappers."""

    def __init__(self, reply: Any, item: Any) -> None:
        super().__init__(reply, item)
        self.Say = wrapped_async(super().Say)  # type: ignore[method-assign,assignment]
