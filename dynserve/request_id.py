"""The id of a call, by which the logs of several services are found together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

__all__ = ["request_id_of"]

_KEY = "x-request-id"
_SANE = re.compile(r"[!-~]{1,128}")  # what a log line may be trusted with


def request_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The client's ``x-request-id`` where it is one to 128 printable characters, else a new one."""
    for key, value in metadata:
        if key == _KEY and isinstance(value, str) and _SANE.fullmatch(value):
            return value
    return os.urandom(16).hex()
