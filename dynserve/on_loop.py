"""From a worker thread to the engine's loop: what a sync handler returned is awaited there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import AsyncIterable, Awaitable, Iterator
from typing import Any

import grpc

__all__ = ["OnLoop", "close", "close_async"]

_NO_LOOP = "a sync handler returned an awaitable; declare it with 'async def'"


class OnLoop:
    """Awaits on the engine's loop, from a worker thread, what a sync handler returned.

    One thing at a time; what is awaited is cancelled when the call ends.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._loop: asyncio.AbstractEventLoop | None = getattr(call, "event_loop", None)
        self._future: concurrent.futures.Future[Any] | None = None
        call.add_callback(self._cancel)

    def _cancel(self) -> None:
        if self._future is not None:
            self._future.cancel()

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        """The result of the awaitable."""
        if self._loop is None:
            close(awaitable)
            raise TypeError(_NO_LOOP)

        async def wait() -> Any:
            return await awaitable

        self._future = asyncio.run_coroutine_threadsafe(wait(), self._loop)
        if not self._call.is_active():  # it ended before the callback had something to cancel
            self._future.cancel()
        try:
            return self._future.result()
        except concurrent.futures.CancelledError as error:
            if self._call.is_active():
                raise
            raise grpc.RpcError("the call was cancelled") from error

    def iterate(self, responses: AsyncIterable[Any]) -> Iterator[Any]:
        """The items of an async iterable, which is closed at the end."""
        if self._loop is None:
            raise TypeError(_NO_LOOP)
        iterator = aiter(responses)
        end = object()
        try:
            while (response := self.wait(anext(iterator, end))) is not end:
                yield response
        finally:  # not waited for: the call may be over
            asyncio.run_coroutine_threadsafe(close_async(iterator), self._loop)


def close(responses: Any) -> None:
    """Close a generator, or a coroutine that nobody awaits; anything else is left alone."""
    close = getattr(responses, "close", None)
    if close is not None and (inspect.isgenerator(responses) or inspect.iscoroutine(responses)):
        close()


async def close_async(responses: Any) -> None:
    """As :func:`close`; an async generator too."""
    if inspect.isasyncgen(responses):
        await responses.aclose()
    else:
        close(responses)
