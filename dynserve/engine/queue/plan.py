"""What is known of a method handler, kept for its next call."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["Plan", "plan_of"]


def plan_of(handler: Any, path: str, is_exempt: Callable[[str], bool]) -> Plan:
    """The plan of a method handler, which serves a path. It is kept on the handler.

    Raises:
        AttributeError: it is no ``grpc.RpcMethodHandler``.
    """
    plan = getattr(handler, "_dynserve_plan", None)
    if type(plan) is not Plan:
        plan = Plan(handler, is_exempt(path))
        with contextlib.suppress(AttributeError):  # a class with slots: made again for each call
            handler._dynserve_plan = plan
    return plan


class Plan:
    """What a method handler is, and how quick it is.

    ``is_quick`` is about a sync handler of one request and one response: it runs on the leader, for
    its runs are so short that a switch of threads would cost more. It is found out without a lock;
    a race makes it a little less precise. On a worker a run may seem long because others had the
    interpreter, so it is good runs that count there, and the name is given on trial. On the leader,
    who is held up, the mean counts; a single long run may be the system's doing. A method that
    loses the name has to show more to get another trial.
    """

    __slots__ = (
        "_mean",
        "_score",
        "_wanted",
        "behaviour",
        "deserialize",
        "is_async",
        "is_exempt",
        "is_quick",
        "is_unary",
        "serialize",
        "streams_in",
        "streams_out",
    )

    _QUICK, _SLOW = 200e-6, 1e-3  # seconds: up to where a run is good, from where it is bad
    _TRIAL, _MOST_WANTED = 64, 512  # good runs for the first trial, and for any other at most
    _LONGEST, _SHARE = 2e-3, 1 / 64  # seconds that a run counts for at most, and its share

    def __init__(self, handler: Any, is_exempt: bool = False) -> None:
        self.is_exempt = is_exempt  # from the limits of the engine
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
        self._score = 0  # of good runs on workers
        self._wanted = self._TRIAL
        self._mean = 0.0  # seconds of late, on the leader

    def forget(self) -> None:
        """A run on the leader takes too long, or they do on the whole."""
        self._score, self._mean, self.is_quick = 0, 0.0, False
        self._wanted = min(self._wanted * 2, self._MOST_WANTED)

    def learn(self, seconds: float, on_leader: bool) -> None:
        """A run took that long: on the clock, for what matters is how long a thread is away."""
        if on_leader != self.is_quick:  # late news
            return
        if on_leader:
            self._mean += (min(seconds, self._LONGEST) - self._mean) * self._SHARE
            if self._mean > self._QUICK:
                self.forget()
        elif seconds < self._QUICK:
            self._score += 1
            self.is_quick = self._score >= self._wanted
        else:
            self._score = max(0, self._score - (1 if seconds < self._SLOW else 8))


def _is_async(behaviour: Any) -> bool:
    functions = (behaviour, getattr(behaviour, "__call__", None))  # noqa: B004 - not whether
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in functions)
