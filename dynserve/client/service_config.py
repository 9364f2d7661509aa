"""gRPC's service config: what a channel does by itself, written from Python values.

https://github.com/grpc/grpc/blob/master/doc/service_config.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

__all__ = ["MethodPolicy", "Retry", "service_config"]

_MOST_ATTEMPTS = 5  # more are taken for 5 by every gRPC


@dataclass(frozen=True)
class Retry:
    """When a call is tried again: while nothing of its answer has come.

    https://github.com/grpc/proposal/blob/master/A6-client-retries.md

    Args:
        attempts: how many there are at most, the first included; from 2 to 5.
        initial_backoff: seconds that are waited before the second attempt, at most: the time is
            chosen at random.
        max_backoff: the longest wait, in seconds.
        multiplier: what the wait grows by from one attempt to the next.
        codes: what an attempt must have ended with for there to be another.

    Raises:
        ValueError: a number is out of its range, or there is no code.
    """

    attempts: int = 3
    initial_backoff: float = 0.1
    max_backoff: float = 2.0
    multiplier: float = 2.0
    codes: Iterable[grpc.StatusCode] = (grpc.StatusCode.UNAVAILABLE,)

    def __post_init__(self) -> None:
        if not 2 <= self.attempts <= _MOST_ATTEMPTS:
            raise ValueError(
                f"got attempts={self.attempts}, expected 2 to {_MOST_ATTEMPTS}, the first included"
            )
        for name in ("initial_backoff", "max_backoff", "multiplier"):
            if not getattr(self, name) > 0:
                raise ValueError(f"got {name}={getattr(self, name)!r}, expected more than 0")
        object.__setattr__(self, "codes", tuple(self.codes))
        if not self.codes:
            raise ValueError("got codes=(), expected at least one status code")

    def _form(self) -> dict[str, Any]:
        return {
            "maxAttempts": self.attempts,
            "initialBackoff": _seconds(self.initial_backoff),
            "maxBackoff": _seconds(self.max_backoff),
            "backoffMultiplier": self.multiplier,
            "retryableStatusCodes": [code.name for code in self.codes],
        }


@dataclass(frozen=True)
class MethodPolicy:
    """What holds for a method.

    Args:
        retry: when a call is tried again.
        timeout: seconds until the call ends with DEADLINE_EXCEEDED; the sooner of it and the call's
            own counts. It is kept by the client: the server is told the call's own.
        wait_for_ready: whether a call waits for a connection rather than fail with UNAVAILABLE.
    """

    retry: Retry | None = None
    timeout: float | None = None
    wait_for_ready: bool | None = None

    def _form(self) -> dict[str, Any]:
        form: dict[str, Any] = {}
        if self.timeout is not None:
            if not self.timeout > 0:
                raise ValueError(f"got timeout={self.timeout!r}, expected more than 0 seconds")
            form["timeout"] = _seconds(self.timeout)
        if self.wait_for_ready is not None:
            form["waitForReady"] = self.wait_for_ready
        if self.retry is not None:
            form["retryPolicy"] = self.retry._form()
        return form


def service_config(
    *,
    retry: Retry | None = None,
    timeout: float | None = None,
    wait_for_ready: bool | None = None,
    methods: Mapping[str, MethodPolicy] | None = None,
    load_balancing: str | None = None,
    health_check: str | None = None,
    retry_throttling: tuple[int, float] | None = None,
) -> str:
    """A service config in JSON, for ``connect(…, service_config=…)``.

    Args:
        retry, timeout, wait_for_ready: what holds for every method that ``methods`` does not name;
            see :class:`MethodPolicy`.
        methods: by ``pkg.Service/Method``, or ``pkg.Service`` for all methods of a service.
        load_balancing: ``"pick_first"``, which is what gRPC does by default, ``"round_robin"``,
            or another policy of gRPC's core.
        health_check: the service name that each server is asked the health of, ``""`` for the
            server as a whole; only with ``round_robin``.
            https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md
        retry_throttling: tokens, and the part of one that each success gives back: retries stop
            while fewer than half the tokens are left, of which each failure takes one.

    Raises:
        ValueError: a number is out of its range, or a method's name is not of that form.
    """
    every = MethodPolicy(retry, timeout, wait_for_ready)
    configs = [
        {"name": [_name(name)], **policy._form()} for name, policy in (methods or {}).items()
    ]
    if form := every._form():
        configs.append({"name": [{}], **form})
    config: dict[str, Any] = {}
    if load_balancing is not None:
        config["loadBalancingConfig"] = [{load_balancing: {}}]
    if configs:
        config["methodConfig"] = configs
    if retry_throttling is not None:
        tokens, ratio = retry_throttling
        config["retryThrottling"] = {"maxTokens": tokens, "tokenRatio": ratio}
    if health_check is not None:
        config["healthCheckConfig"] = {"serviceName": health_check}
    return json.dumps(config)


def _name(path: str) -> dict[str, str]:
    service, _, method = path.removeprefix("/").partition("/")
    if not service or "/" in method:
        raise ValueError(
            f"got {path!r} as a method, expected 'pkg.Service/Method' or 'pkg.Service'"
        )
    return {"service": service, "method": method} if method else {"service": service}


def _seconds(number: float) -> str:
    """A google.protobuf.Duration in its JSON form."""
    return f"{number:.9f}".rstrip("0").rstrip(".") + "s"
