"""Calls that end in every way, of each kind, by sync and async handlers, for observers to see."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple

import grpc
import pytest

from dynserve import App, Kind, StatusError
from dynserve.observer import CallRecord
from tests.conftest import Client
from tests.echo import PATHS, Item, app_with, request_for

__all__ = [
    "ENDS",
    "METADATA",
    "WAIT",
    "End",
    "Kept",
    "app_that",
    "called",
    "every_call",
    "messages_of",
]

WAIT = 20.0
METADATA = (("x-request-id", "r-1"),)
Code = grpc.StatusCode


class End(NamedTuple):
    """A way for a call to end: what the handler does at its end, and what the client does."""

    name: str
    code: grpc.StatusCode
    error: type[BaseException] | None = None  # that the handler raises
    waits: bool = False
    timeout: float = WAIT
    cancels: bool = False

    @property
    def seen(self) -> set[grpc.StatusCode]:
        """What the server may take it for: a client that is late cancels, at the same moment."""
        return {self.code, Code.CANCELLED} if self.timeout < WAIT else {self.code}

    def __str__(self) -> str:
        return self.name


ENDS = [
    End("ok", Code.OK),
    End("status", Code.NOT_FOUND, StatusError),
    End("fault", Code.UNAVAILABLE, StatusError),
    End("exception", Code.INTERNAL, ValueError),
    End("cancelled", Code.CANCELLED, waits=True, cancels=True),
    End("deadline", Code.DEADLINE_EXCEEDED, waits=True, timeout=0.3),
]


def every_call(test: Any) -> Any:
    """The test for each kind, sync and async, and each way to end."""
    for mark in (
        pytest.mark.parametrize("end", ENDS, ids=str),
        pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"]),
        pytest.mark.parametrize("kind", list(Kind), ids=str),
    ):
        test = mark(test)
    return test


class Kept:
    """An observer that keeps records; given first it is told last of the end of a call."""

    error: BaseException | None = None  # of the last call that has ended

    def __init__(self) -> None:
        self._ended: queue.Queue[CallRecord] = queue.Queue()

    def begin(self, record: CallRecord, /) -> None:
        """Nothing."""

    def end(self, record: CallRecord, token: None, /) -> None:
        """Keep it."""
        self.error = record.error  # the record itself drops it
        self._ended.put(record)

    def next(self) -> CallRecord:
        """The next call that has ended."""
        return self._ended.get(timeout=WAIT)


def _ending(end: End) -> BaseException | None:
    if end.error is ValueError:
        return ValueError("secret")
    return None if end.error is None else StatusError(end.code, "told")


def app_that(
    kind: Kind, is_async: bool, end: End, began: threading.Event, act: Callable[[], None]
) -> App:
    """An app whose handler answers every request, and then ends its call in that way.

    ``act`` is called in the handler when it begins; ``began`` is set when it has only to end.
    """
    make = _async_handler if is_async else _sync_handler
    return app_with(make(kind, end, began, act), kind)


def _sync_handler(
    kind: Kind, end: End, began: threading.Event, act: Callable[[], None]
) -> Callable[..., Any]:
    def items(request: Any) -> Iterable[Any]:
        act()
        return request if kind.request_streaming else [request]

    def finish(context: Any) -> None:
        over = threading.Event()
        if end.waits and not context.add_callback(over.set):
            over.set()
        began.set()
        if end.waits:
            over.wait(WAIT)
            raise StatusError(Code.ABORTED, "nobody is there")
        if error := _ending(end):
            raise error

    def unary(request: Any, context: Any) -> Any:
        total = sum(item.number for item in items(request))
        finish(context)
        return Item(number=total)

    def stream(request: Any, context: Any) -> Any:
        yield from items(request)
        finish(context)

    return stream if kind.response_streaming else unary


def _async_handler(
    kind: Kind, end: End, began: threading.Event, act: Callable[[], None]
) -> Callable[..., Any]:
    async def items(request: Any) -> AsyncIterator[Any]:
        act()
        if kind.request_streaming:
            async for item in request:
                yield item
        else:
            yield request

    async def finish() -> None:
        began.set()
        if end.waits:
            await asyncio.Event().wait()
        if error := _ending(end):
            raise error

    async def unary(request: Any) -> Any:
        total = sum([item.number async for item in items(request)])
        await finish()
        return Item(number=total)

    async def stream(request: Any) -> Any:
        async for item in items(request):
            yield item
        await finish()

    return stream if kind.response_streaming else unary


def called(
    client: Client,
    kind: Kind,
    end: End,
    began: threading.Event,
    metadata: tuple[tuple[str, str], ...] = METADATA,
) -> tuple[grpc.StatusCode, str]:
    """Make the call; code and text of its status, as the client sees them."""
    method = client.method(PATHS[kind])
    requests = request_for(kind, 1, 2)
    given = iter(requests) if kind.request_streaming else requests
    make = method if kind.response_streaming else method.future
    call = make(given, timeout=end.timeout, metadata=metadata)
    if end.cancels:
        assert began.wait(WAIT)
        call.cancel()
    with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
        _ = list(call) if kind.response_streaming else call.result()
    return call.code(), call.details() or ""


def messages_of(kind: Kind, end: End) -> dict[str, int]:
    """How many messages, and bytes of them, each way; an item is two bytes."""
    requests = 2 if kind.request_streaming else 1
    responses = requests if kind.response_streaming else int(end.code is Code.OK)
    return {
        "request_messages": requests,
        "request_bytes": 2 * requests,
        "response_messages": responses,
        "response_bytes": 2 * responses,
    }
