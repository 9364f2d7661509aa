"""A small file that is read again when it changes."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from dynserve.errors import CredentialsError

__all__ = ["MAX_BYTES", "WatchedFile"]

_log = logging.getLogger("dynserve.auth")

MAX_BYTES = 1024 * 1024  # of a file; more is a mistake
_CHECK_SECONDS = 1.0  # at most this often is the file asked for its time

_T = TypeVar("_T")


class WatchedFile(Generic[_T]):
    """What a file holds, at most a second old.

    A check is one ``stat`` in the thread of a caller; no other caller waits for it. What was read
    last stays while the file is missing, cannot be read, or makes no sense, and the log says so
    once for each such state: that a file is being replaced must not lock everyone out. To take
    access away, write a file without it.

    Args:
        path: of the file; links are followed, as mounted secrets need it.
        parse: from its bytes to the value; ValueError where they make no sense, with a text that
            holds nothing secret.
        name: the argument that named the file, for errors.
        is_secret: warn where everyone on the machine can read or write it.

    Raises:
        CredentialsError: the file cannot be read, or makes no sense.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        parse: Callable[[bytes], _T],
        name: str,
        *,
        is_secret: bool = False,
    ) -> None:
        self.path = Path(path)
        self._parse = parse
        self._is_secret = is_secret
        self._lock = threading.Lock()
        self._next_check = time.monotonic() + _CHECK_SECONDS
        self._seen = _signature(self.path)
        try:
            self._value = self._read()
        except ValueError as error:
            raise CredentialsError(name, str(error)) from error

    def value(self) -> _T:
        """What the file holds."""
        if time.monotonic() >= self._next_check and self._lock.acquire(blocking=False):
            try:
                self._check()
            finally:
                self._next_check = time.monotonic() + _CHECK_SECONDS
                self._lock.release()
        return self._value

    def _check(self) -> None:
        seen = _signature(self.path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._value = self._read()
        except ValueError as error:
            _log.warning("what was read before stays in use: %s", error)
        else:
            _log.info("%s was read again", self.path)

    def _read(self) -> _T:
        """The value; every error becomes a ValueError that names the file."""
        path = str(self.path)
        try:
            mode = self.path.stat().st_mode
            if not stat.S_ISREG(mode):  # reading a pipe would wait, and a second time find nothing
                raise ValueError(f"{path!r} is not a regular file")
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ValueError(f"cannot read {path!r}: {error.strerror}") from error
        if len(data) > MAX_BYTES:
            raise ValueError(f"{path!r} is larger than {MAX_BYTES} bytes")
        if self._is_secret and os.name != "nt" and mode & (stat.S_IROTH | stat.S_IWOTH):
            _log.warning("%s is open to everyone on this machine; run: chmod 600 %s", path, path)
        try:
            return self._parse(data)
        except ValueError as error:
            raise ValueError(f"{path!r}: {error}") from error


def _signature(path: Path) -> tuple[int, ...] | None:
    """What differs between two states of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
