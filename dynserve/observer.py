"""Observer: what sees every call of a user's service, around everything else.

Access log, traces and metrics are observers. What gRPC's core refuses itself, such as a message
that is too large, never becomes a call of Python's and is not seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import grpc

if TYPE_CHECKING:
    from dynserve.context import AsyncContext, Context
    from dynserve.method import MethodInfo

__all__ = ["CallRecord", "Observer", "Watched"]

_log = logging.getLogger("dynserve.server")


class CallRecord:
    """What is known of a call; complete when it has ended.

    Attributes:
        path: what was asked for, ``/pkg.Service/Method``; a peer's text where ``method`` is None.
        method: what serves it, None where no such method is served.
        context: what the handler gets.
        started: when it began, by ``time.perf_counter()``.
        request_messages, request_bytes, response_messages, response_bytes: what was taken by the
            handler and given by it, in messages and in their bytes before compression.
        code: what the call ended with, None before.
        details: the text that was sent with it.
        error: what the handler, or what runs around it, raised; gone when observers were told,
            for its traceback holds what holds it.
        error_id: what the peer got in place of the text of an error that nobody foresaw.
        seconds: how long it took.
    """

    __slots__ = (
        "code",
        "context",
        "details",
        "error",
        "error_id",
        "method",
        "path",
        "request_bytes",
        "request_messages",
        "response_bytes",
        "response_messages",
        "seconds",
        "started",
    )

    def __init__(
        self, path: str, method: MethodInfo | None, context: Context | AsyncContext[Any]
    ) -> None:
        self.path = path
        self.method = method
        self.context = context
        self.started = time.perf_counter()
        self.request_messages = self.request_bytes = 0
        self.response_messages = self.response_bytes = 0
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.error: BaseException | None = None
        self.error_id = ""
        self.seconds = 0.0


class Observer(Protocol):
    """Sees the beginning and the end of each call.

    Both are called where the handler runs: on its thread or in its task, and in its contextvars
    context. They have to be quick, and must not block. What they raise is logged.
    """

    def begin(self, record: CallRecord, /) -> Any:
        """A call begins. What this returns is given to :meth:`end`."""

    def end(self, record: CallRecord, token: Any, /) -> None:
        """The call has its status; the record is complete."""


class Watched:
    """A call under the eyes of observers."""

    __slots__ = ("_begun", "record")

    def __init__(self, observers: Sequence[Observer], record: CallRecord) -> None:
        self.record = record
        self._begun: list[tuple[Observer, Any]] = []
        for observer in observers:
            try:
                self._begun.append((observer, observer.begin(record)))
            except Exception:
                _log.exception("observer %r failed at the beginning of a call", observer)

    def end(self, code: grpc.StatusCode, details: str = "") -> None:
        """The call has a status; the last that began is told first."""
        record = self.record
        record.code, record.details = code, details
        record.seconds = time.perf_counter() - record.started
        for observer, token in reversed(self._begun):
            try:
                observer.end(record, token)
            except Exception:
                _log.exception("observer %r failed at the end of a call", observer)
        record.error = None
