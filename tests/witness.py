"""An observer for tests, and the handlers and calls that it sees."""

from __future__ import annotations

import queue
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import grpc

from dynserve import Kind
from dynserve.observer import CallRecord
from tests.conftest import Client
from tests.echo import PATHS, Item, request_for

__all__ = ["ERROR_ID", "WAIT", "Told", "Witness", "handler_of", "status_of"]

Code = grpc.StatusCode
WAIT = 20
ERROR_ID = re.compile(r"\(error id ([0-9a-f]{16})\)$")


class Told(NamedTuple):
    """What an observer knows of a call at its end."""

    path: str
    method: str
    code: grpc.StatusCode | None
    details: str
    error: str
    request: tuple[int, int]  # messages and bytes
    response: tuple[int, int]
    identity: Any


class Witness:
    """An observer that keeps what it is told at the end of each call."""

    def __init__(self) -> None:
        self._ended: queue.Queue[Told] = queue.Queue()
        self.begun: list[str] = []

    def begin(self, record: CallRecord, /) -> str:
        """Nothing is known yet but what is asked for; the token is a text."""
        assert (record.code, record.details, record.error, record.seconds) == (None, "", None, 0.0)
        self.begun.append(record.path)
        return f"token of {record.path}"

    def end(self, record: CallRecord, token: str, /) -> None:
        """Keep it."""
        assert token == f"token of {record.path}"
        assert record.seconds > 0
        found = ERROR_ID.search(record.details)
        assert record.error_id == (found[1] if found else "")
        context: Any = record.context
        self._ended.put(
            Told(
                record.path,
                "" if record.method is None else str(record.method),
                record.code,
                ERROR_ID.sub("(error id ID)", record.details),
                "" if record.error is None else repr(record.error),
                (record.request_messages, record.request_bytes),
                (record.response_messages, record.response_bytes),
                context.identity,
            )
        )

    def told(self) -> Told:
        """The next that has ended; the id of an error as ID, once it is in the details."""
        return self._ended.get(timeout=WAIT)


def handler_of(kind: Kind, world: str, finish: Callable[[Any], object]) -> Any:
    """A handler that takes all requests, and answers once; ``finish`` is called in between."""

    def unary(request: Any, context: Any) -> Any:
        _ = list(request) if kind.request_streaming else request
        finish(context)
        return Item(number=1)

    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield unary(request, context)

    async def unary_async(request: Any, context: Any) -> Any:
        if kind.request_streaming:
            async for _ in request:
                pass
        finish(context)
        return Item(number=1)

    async def stream_async(request: Any, context: Any) -> AsyncIterator[Any]:
        yield await unary_async(request, context)

    if world == "sync":
        return stream if kind.response_streaming else unary
    return stream_async if kind.response_streaming else unary_async


def status_of(client: Client, kind: Kind, **options: Any) -> tuple[grpc.StatusCode, str]:
    """What a call with the items 1 and 2, or only 1, ends with for the client."""
    try:
        client.call(PATHS[kind], request_for(kind, 1, 2), **options)
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code(), failed.details()
    return Code.OK, ""
