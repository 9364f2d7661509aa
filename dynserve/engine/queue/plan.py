"""What is known of a method handler, kept for its next call."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["Plan", "plan_of"]


def plan_of(handler: Any) -> Plan:
    """The plan of a method handler. It is kept on the handler, and goes with it.

    Raises:
        AttributeError: it is no ``grpc.RpcMethodHandler``.
    """
    plan = getattr(handler, "_dynserve_plan", None)
    if type(plan) is not Plan:
        plan = Plan(handler)
        with contextlib.suppress(AttributeError):  # a class with slots: made again for each call
            handler._dynserve_plan = plan
    return plan


class Plan:
    """What a method handler is, and how quick it was.

    ``is_quick`` is about a sync handler of one request and one response: its runs have all been
    short of late, so short that a switch of threads would cost more. It is learned without a lock;
    a race makes it a little less precise.
    """

    __slots__ = (
        "_score",
        "behaviour",
        "deserialize",
        "is_async",
        "is_quick",
        "is_unary",
        "serialize",
        "streams_in",
        "streams_out",
    )

    _QUICK, _SLOW = 200e-6, 1e-3  # seconds: what counts as quick, and what ends the good name
    _PROVEN = 64  # quick runs that make a good name

    def __init__(self, handler: Any) -> None:
        self.streams_in: bool = handler.request_streaming
        self.streams_out: bool = handler.response_streaming
        self.is_unary = not (self.streams_in or self.streams_out)
        self.behaviour: Callable[[Any, Any], Any] = (
            handler.stream_stream
            or handler.stream_unary
            or handler.unary_stream
            or handler.unary_unary
        )
        self.deserialize: Callable[[bytes], Any] | None = handler.request_deserializer
        self.serialize: Callable[[Any], bytes] | None = handler.response_serializer
        self.is_async = _is_async(self.behaviour)
        self.is_quick = False
        self._score = 0

    def forget(self) -> None:
        """A run takes too long; it has not ended."""
        self._score, self.is_quick = 0, False

    def learn(self, seconds: float) -> None:
        """A run took that long: on the clock, for what matters is how long a thread is away."""
        if seconds < self._QUICK:
            if self._score < self._PROVEN:
                self._score += 1
                self.is_quick = self._score == self._PROVEN
        elif seconds < self._SLOW:
            self._score = max(0, self._score - 8)
        else:
            self.forget()


def _is_async(behaviour: Any) -> bool:
    functions = (behaviour, getattr(behaviour, "__call__", None))  # noqa: B004 - not whether
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in functions)
