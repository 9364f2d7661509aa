"""Tokens that were verified before, so that not every call of a client pays for a signature."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from dynserve.auth.keys import Key

__all__ = ["Verified", "VerifiedTokens"]

_MOST = 1024


class Verified(NamedTuple):
    """What was found out about a token.

    It counts only as long as ``key`` is what the sources of keys give for ``identifier`` and
    ``algorithm``, and until ``end``, in seconds since 1970.
    """

    identifier: str | None
    algorithm: str
    key: Key
    end: float
    name: str
    claims: Mapping[str, Any]


class VerifiedTokens:
    """The last tokens whose signature was right, by their hash; no token is kept.

    Only who has a valid token can have one remembered, so nobody else fills it.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._found: dict[bytes, Verified] = {}

    def get(self, token: str) -> Verified | None:
        """What is known of a token."""
        return self._found.get(_digest(token))

    def put(self, token: str, verified: Verified) -> None:
        """Remember a token; where there are too many, the one that came first is forgotten."""
        with self._lock:
            if len(self._found) >= self._most:
                del self._found[next(iter(self._found))]
            self._found[_digest(token)] = verified


def _digest(token: str) -> bytes:
    return hashlib.blake2b(token.encode(), digest_size=32).digest()
