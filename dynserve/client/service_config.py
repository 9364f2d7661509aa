"""gRPC's service config: what a channel does by itself, written from Python values.

https://github.com/grpc/grpc/blob/master/doc/service_config.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from dynserve.status import checked_code

__all__ = ["MethodPolicy", "Retry", "service_config"]

_MOST_ATTEMPTS = 5  # more are taken for 5 by every gRPC
_SHORTEST = 0.001  # seconds: gRPC's core counts milliseconds
_LONGEST = 315_576_000_000  # of a google.protobuf.Duration
_MOST_TOKENS = 1000
_LEAST_RATIO = 0.001  # gRPC ignores further decimals


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
        TypeError: a number is none, or a code is none.
        ValueError: a number is out of its range, or there is no code.
    """

    attempts: int = 3
    initial_backoff: float = 0.1
    max_backoff: float = 2.0
    multiplier: float = 2.0
    codes: Iterable[grpc.StatusCode] = (grpc.StatusCode.UNAVAILABLE,)

    def __post_init__(self) -> None:
        _check_whole("attempts", self.attempts, 2, _MOST_ATTEMPTS, ", the first included")
        _check_seconds("initial_backoff", self.initial_backoff)
        _check_seconds("max_backoff", self.max_backoff)
        _check_number("multiplier", self.multiplier)
        if not 0 < self.multiplier < math.inf:
            raise ValueError(f"got multiplier={self.multiplier!r}, expected more than 0")
        if isinstance(self.codes, (str, grpc.StatusCode)) or not isinstance(self.codes, Iterable):
            raise TypeError(f"got codes={self.codes!r}, expected a list of grpc.StatusCode")
        object.__setattr__(self, "codes", tuple(map(checked_code, self.codes)))
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

    Raises:
        TypeError, ValueError: the timeout is no number, or out of its range.
    """

    retry: Retry | None = None
    timeout: float | None = None
    wait_for_ready: bool | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None:
            _check_seconds("timeout", self.timeout)

    def _form(self) -> dict[str, Any]:
        form: dict[str, Any] = {}
        if self.timeout is not None:
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
            or another policy of gRPC's core. Of one that it does not know every call fails with
            INVALID_ARGUMENT.
        health_check: the service name that each server is asked the health of, ``""`` for the
            server as a whole; only with ``round_robin``.
            https://github.com/grpc/proposal/blob/master/A17-client-side-health-checking.md
        retry_throttling: tokens, 1 to 1000, and the part of one that each success gives back, at
            least 0.001: retries stop while no more than half the tokens are left, of which each
            failure takes one.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a number is out of its range, or a name is not of that form.
    """
    every = MethodPolicy(retry, timeout, wait_for_ready)
    configs = [
        {"name": [_name(name)], **policy._form()} for name, policy in (methods or {}).items()
    ]
    if form := every._form():
        configs.append({"name": [{}], **form})
    config: dict[str, Any] = {}
    if load_balancing is not None:
        config["loadBalancingConfig"] = [{_policy_name(load_balancing): {}}]
    if configs:
        config["methodConfig"] = configs
    if retry_throttling is not None:
        config["retryThrottling"] = _throttling(retry_throttling)
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


def _policy_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"got load_balancing={name!r}, expected a name such as 'round_robin'")
    if not name:
        raise ValueError("got load_balancing='', expected a name such as 'round_robin'")
    return name


def _throttling(given: object) -> dict[str, Any]:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"got retry_throttling={given!r}, expected tokens and a ratio")
    tokens, ratio = given
    _check_whole("retry_throttling tokens", tokens, 1, _MOST_TOKENS)
    _check_number("retry_throttling ratio", ratio)
    if not _LEAST_RATIO <= ratio <= _MOST_TOKENS:
        raise ValueError(
            f"got retry_throttling ratio={ratio!r}, expected {_LEAST_RATIO} to {_MOST_TOKENS}"
        )
    return {"maxTokens": tokens, "tokenRatio": ratio}


def _check_number(name: str, number: object) -> None:
    if not isinstance(number, (int, float)) or isinstance(number, bool):
        raise TypeError(f"got {name}={number!r}, expected a number")


def _check_whole(name: str, number: object, least: int, most: int, what: str = "") -> None:
    expected = f"got {name}={number!r}, expected a whole number from {least} to {most}{what}"
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(expected)
    if not least <= number <= most:
        raise ValueError(expected)


def _check_seconds(name: str, number: float) -> None:
    _check_number(name, number)
    if not _SHORTEST <= number <= _LONGEST:
        raise ValueError(f"got {name}={number!r}, expected {_SHORTEST} to {_LONGEST} seconds")


def _seconds(number: float) -> str:
    """A google.protobuf.Duration in its JSON form."""
    return f"{number:.9f}".rstrip("0").rstrip(".") + "s"
