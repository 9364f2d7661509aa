"""Compiled descriptor sets on disk, by the content that they were compiled from.

An entry is a header, a checksum over key and set, and the set, in a file named after the key. It is
written beside its place and moved there in one step, so processes may share the folder; one that
does not check out is as good as absent, and so is one that another user could have written: what it
says would be served, and cutting it short under a mapping would end this process. A cache that
cannot be used costs time, never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import stat
import sys
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Cache", "default_folder"]

_log = logging.getLogger(__name__)
_MAGIC = b"dynserve set 2\n\0"  # 16 bytes; another layout gets another number
_CHECK = 4
_MAX_ENTRIES, _MAX_BYTES = 256, 1 << 30
_NEW = ".new-"  # of a file that is being written
_MAX_AGE = 24 * 60 * 60  # seconds after which such a file is one of a process that was killed


def default_folder() -> Path | None:
    """``$DYNSERVE_CACHE_DIR``, or a folder in the user's cache directory; None for no such user."""
    try:
        return _default_folder()
    except RuntimeError as error:  # pathlib's: no $HOME, and an id that is nobody's
        _log.warning("nothing is cached: %s", error)
        return None


def _default_folder() -> Path:
    named = os.environ.get("DYNSERVE_CACHE_DIR")
    if named:
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        named = os.environ.get("XDG_CACHE_HOME") or ""
        # the XDG base directory specification: a relative path is to be ignored
        base = named if os.path.isabs(named) else Path.home() / ".cache"
    return Path(base) / "dynserve"


class Cache:
    """A folder of compiled sets; it is made when the first entry is stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def key(parts: Iterable[bytes]) -> str:
        """The name of the entry for these parts; no two sequences of parts share one."""
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.hexdigest()

    def load(self, key: str) -> memoryview | None:
        """The set stored under ``key``, mapped into memory, or None."""
        path = self._path(key)
        try:
            with open(path, "rb", opener=_open) as file:
                if not _is_own(os.fstat(file.fileno())):
                    _log.warning("cache entry %s is not used: others may have written it", path)
                    return None
                mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # mmap: ValueError for an empty file
            _log.warning("cache entry %s cannot be read: %s", path, error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the entries used last are the ones kept
        data = mapped[len(_MAGIC) + _CHECK :]
        header = _header(key, data)
        if mapped[: len(header)] != header:
            _log.warning("cache entry %s is damaged and will be replaced", path)
            return None
        return data

    def store(self, key: str, data: bytes) -> None:
        """Keep ``data`` under ``key``; a failure is logged and nothing else."""
        import tempfile  # slow to import, not needed when the entry is there

        path = self._path(key)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix=_NEW)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_header(key, data))
                    file.write(data)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
            self._prune()
        except OSError as error:
            _log.warning("cache folder %s cannot be written: %s", self.folder, error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.binpb"

    def _prune(self) -> None:
        """Remove the entries used longest ago until few enough are left, and what was cut off."""
        entries: list[tuple[float, int, str]] = []
        with os.scandir(self.folder) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):  # another process prunes too
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(".binpb"):
                        entries.append((status.st_mtime, status.st_size, entry.path))
                    elif entry.name.startswith(_NEW) and status.st_mtime < time.time() - _MAX_AGE:
                        os.unlink(entry.path)
        size = 0
        for count, (_, taken, path) in enumerate(sorted(entries, reverse=True)):
            size += taken
            if count and (count >= _MAX_ENTRIES or size > _MAX_BYTES):
                Path(path).unlink(missing_ok=True)


def _header(key: str, data: bytes | memoryview) -> bytes:
    return _MAGIC + zlib.crc32(data, zlib.crc32(key.encode())).to_bytes(_CHECK, "big")


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would block for ever


def _is_own(status: os.stat_result) -> bool:
    """Whether only this user, or root, can have written the file."""
    if not hasattr(os, "geteuid"):  # not a POSIX system: the folder is in the user's own
        return True
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return not writable and status.st_uid in (os.geteuid(), 0)
