"""Where the keys of tokens come from, and when they are fetched again."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from typing import Protocol

import grpc

from dynserve.auth.fetching import fetch
from dynserve.auth.keys import Key, KeySet, keys_of_bytes
from dynserve.auth.refusals import RefusalError
from dynserve.auth.steps import Steps, Wait
from dynserve.auth.watched import WatchedFile

__all__ = ["FetchedKeys", "FixedKeys", "KeySource", "WatchedKeys"]

_log = logging.getLogger("dynserve.auth")

# With keys at hand, a call with an unknown one must not hold a thread for long: anyone can send it.
_UNKNOWN_SECONDS = 1.0


class KeySource(Protocol):
    """Finds keys."""

    def find(self, identifier: str | None, algorithm: str) -> Steps[Key | None]:
        """The key for a token's header, as steps; None where there is none."""


class FixedKeys:
    """Keys that are given."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def find(self, identifier: str | None, algorithm: str) -> Steps[Key | None]:
        """The key for a token's header."""
        yield from ()  # nothing to wait for
        return self._keys.find(identifier, algorithm)

    def __repr__(self) -> str:
        return f"{len(self._keys)} key{'' if len(self._keys) == 1 else 's'}"


class WatchedKeys:
    """Keys in a file, a JWKS or PEM, that is read again when it changes."""

    def __init__(self, file: WatchedFile[KeySet]) -> None:
        self._file = file

    def find(self, identifier: str | None, algorithm: str) -> Steps[Key | None]:
        """The key for a token's header."""
        yield from ()  # nothing to wait for
        return self._file.value().find(identifier, algorithm)

    def __repr__(self) -> str:
        return repr(str(self._file.path))


class FetchedKeys:
    """Keys of a JWKS at a URL.

    One fetch runs at a time, on a thread of its own; all who wait for it share it. It is begun:

    * by the first call, which waits for it, as do all until there are keys;
    * when the keys are older than ``max_age``: nobody waits. Where they are more than twice as old,
      as after an idle night, calls wait, since a key may have been withdrawn;
    * by a token that names an unknown key, which waits at most a second.

    Two begin at least ``pause`` apart, whatever is sent. While the server cannot be reached, the
    keys that were fetched last stay in use, and the log says so.

    Args:
        url: of the JWKS.
        seconds: the longest that a fetch takes, and that a call waits for one.
        max_age: seconds.
        pause: seconds.
    """

    def __init__(self, url: str, seconds: float, max_age: float, pause: float) -> None:
        self._url = url
        self._seconds = seconds
        self._max_age = max_age
        self._pause = pause
        self._lock = threading.Lock()
        self._flight: Future[None] | None = None
        self._next = 0.0  # the monotonic time from which on a fetch may begin
        self._keys: KeySet | None = None
        self._fetched = 0.0  # the monotonic time when the keys came
        self._has_failed = False  # the last fetch

    def __repr__(self) -> str:
        return repr(self._url)

    def find(self, identifier: str | None, algorithm: str) -> Steps[Key | None]:
        """The key for a token's header, as steps.

        Raises:
            RefusalError: UNAVAILABLE, there are no keys, or the server could not be asked for an
                unknown one.
        """
        age = time.monotonic() - self._fetched
        if self._keys is None or age > self._max_age:
            flight = self._begin()
            is_old = age > 2 * self._max_age and not self._has_failed
            if flight and (self._keys is None or is_old):
                yield Wait(flight, self._seconds)
        if self._keys is None:
            raise _unavailable()
        key = self._keys.find(identifier, algorithm)
        if key is None and identifier is not None:
            flight = self._begin()
            is_done = flight is None or (yield Wait(flight, min(self._seconds, _UNKNOWN_SECONDS)))
            key = self._keys.find(identifier, algorithm)
            if key is None and (self._has_failed or not is_done):
                raise _unavailable()
        return key

    def _begin(self) -> Future[None] | None:
        """The fetch that runs, or one that begins now; None where it is too early for another."""
        with self._lock:
            if self._flight is not None or time.monotonic() < self._next:
                return self._flight
            self._next = time.monotonic() + self._pause
            flight: Future[None] = Future()
            thread = threading.Thread(
                target=self._fetch, args=(flight,), name="dynserve-jwks", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the process has no more threads, or is ending
                _log.warning("the keys at %s cannot be fetched: no thread can start", self._url)
                self._has_failed = True
                return None
            self._flight = flight
            return flight

    def _fetch(self, flight: Future[None]) -> None:
        try:
            keys = keys_of_bytes(fetch(self._url, self._seconds))
        except Exception as error:
            self._has_failed = True
            stays = "; those that were fetched before stay in use" if self._keys else ""
            _log.warning("the keys at %s cannot be fetched: %s%s", self._url, error, stays)
        else:
            self._keys = keys
            self._fetched = time.monotonic()
            self._has_failed = False
            _log.info("%d keys were fetched from %s", len(keys), self._url)
        finally:
            with self._lock:
                self._flight = None
            flight.set_result(None)


def _unavailable() -> RefusalError:
    return RefusalError(
        "tokens cannot be verified at the moment: their keys cannot be fetched; try again",
        code=grpc.StatusCode.UNAVAILABLE,
    )
