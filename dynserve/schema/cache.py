"""What was compiled, on disk, by a key of what it was compiled from.

An entry is a header, a checksum over key and data, and the data, in a file named after the key. It
is written beside its place and moved there in one step, so processes may share the folder; one that
does not check out is as good as absent, and so is one that another user could have written: what it
says would be served, and cutting it short under a mapping would end this process. A cache that
cannot be used costs time, never an error.
"""

from __future__ import annotations

import contextlib
import logging
import marshal
import os
import stat
import sys
import time
import zlib
from collections.abc import Iterable
from typing import Any

__all__ = ["Cache", "default_folder", "pack", "unpack"]

_log = logging.getLogger(__name__)
_told: set[tuple[str, str]] = set()  # what was said of which folder
_MAGIC = b"dynserve set 2\n\0"  # 16 bytes; another layout gets another number
_CHECK = 4
_SMALL = 1 << 16  # bytes; an entry so small is not worth a mapping, and the module for it
_MAX_ENTRIES, _MAX_BYTES = 256, 1 << 30
_NEW = ".new-"  # of a file that is being written
_MAX_AGE = 24 * 60 * 60  # seconds after which such a file is one of a process that was killed


def pack(value: Any) -> bytes:
    """Plain values as bytes for an entry, in a form that every Python reads."""
    return marshal.dumps(value, 4)


def unpack(data: memoryview) -> Any:
    """What :meth:`Cache.load` gave of :func:`pack`.

    Of nothing else: damage would end the process. An entry has a checksum, and is used only where
    nobody but this user, or root, can have written it.
    """
    return marshal.loads(data)  # noqa: S302 - as said


def default_folder() -> str | None:
    """``$DYNSERVE_CACHE_DIR``, or a folder in the user's cache directory; None for no such user."""
    named = os.environ.get("DYNSERVE_CACHE_DIR")
    if named:
        return named
    base = _base_folder()
    if base.startswith("~"):  # no $HOME, and an id that is nobody's
        _log.warning("nothing is cached: Could not determine home directory.")
        return None
    return os.path.join(base, "dynserve")


def _base_folder() -> str:
    if sys.platform == "win32":
        named, path = os.environ.get("LOCALAPPDATA"), ("AppData", "Local")
    elif sys.platform == "darwin":
        named, path = None, ("Library", "Caches")
    else:
        named, path = os.environ.get("XDG_CACHE_HOME"), (".cache",)
        # the XDG base directory specification: a relative path is to be ignored
        named = named if named and os.path.isabs(named) else None
    return named or os.path.join(os.path.expanduser("~"), *path)


class Cache:
    """Entries of one sort in a folder, which is made when the first is stored.

    Args:
        folder: may hold entries of other sorts, too.
        suffix: of the files of this sort.
    """

    def __init__(self, folder: str | os.PathLike[str], suffix: str = ".binpb") -> None:
        self.folder = os.fspath(folder)
        self._suffix = suffix

    @staticmethod
    def key(parts: Iterable[bytes]) -> str:
        """The name of the entry for these parts; no two sequences of parts share one."""
        digest = _digest()
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return str(digest.hexdigest())

    def load(self, key: str) -> memoryview | None:
        """What is stored under ``key``, mapped into memory if it is large, or None."""
        path = self._path(key)
        try:
            with open(path, "rb", opener=_open) as file:
                status = os.fstat(file.fileno())
                if not _is_own(status):
                    _log.warning("cache entry %s is not used: others may have written it", path)
                    return None
                whole = memoryview(
                    file.read() if 0 < status.st_size <= _SMALL else _mapped(file.fileno())
                )
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # mmap: ValueError for an empty file
            self._tell("cache entry %s cannot be read: %s", path, error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the entries used last are the ones kept
        data = whole[len(_MAGIC) + _CHECK :]
        header = _header(key, data)
        if whole[: len(header)] != header:
            _log.warning("cache entry %s is damaged and will be replaced", path)
            return None
        with contextlib.suppress(AttributeError, ValueError, OSError):
            # The checksum had all of it read; most of it may never be asked for again.
            whole.obj.madvise(sys.modules["mmap"].MADV_DONTNEED)  # type: ignore[attr-defined]
        return data

    def store(self, key: str, data: bytes | memoryview) -> None:
        """Keep ``data`` under ``key``; a failure is logged and nothing else."""
        import tempfile  # slow to import, not needed when the entry is there

        path = self._path(key)
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
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
            self._tell("cache folder %s cannot be written: %s", self.folder, error)

    def _tell(self, what: str, *about: object) -> None:
        """Log it, once a folder: it is the same with the next entry, and the next cache."""
        if (what, self.folder) not in _told:
            _told.add((what, self.folder))
            _log.warning(what, *about)

    def _path(self, key: str) -> str:
        return os.path.join(self.folder, key + self._suffix)

    def _prune(self) -> None:
        """Remove the entries used longest ago until few enough are left, and what was cut off."""
        entries: list[tuple[float, int, str]] = []
        with os.scandir(self.folder) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):  # another process prunes too
                    status = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(self._suffix):
                        entries.append((status.st_mtime, status.st_size, entry.path))
                    elif entry.name.startswith(_NEW) and status.st_mtime < time.time() - _MAX_AGE:
                        os.unlink(entry.path)
        size = 0
        for count, (_, taken, path) in enumerate(sorted(entries, reverse=True)):
            size += taken
            if count and (count >= _MAX_ENTRIES or size > _MAX_BYTES):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


def _digest() -> Any:
    try:
        from _blake2 import blake2b  # hashlib loads OpenSSL: 1 ms of a start
    except ImportError:  # a Python that follows FIPS, or another than CPython
        from hashlib import sha256

        return sha256()
    return blake2b(digest_size=32)


def _header(key: str, data: bytes | memoryview) -> bytes:
    return _MAGIC + zlib.crc32(data, zlib.crc32(key.encode())).to_bytes(_CHECK, "big")


def _mapped(descriptor: int) -> Any:  # a buffer
    import mmap

    return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)


def _open(path: str, flags: int) -> int:
    # A pipe would block for ever, and where a link leads may be somebody else's choice.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))


def _is_own(status: os.stat_result) -> bool:
    """Whether only this user, or root, can have written the file."""
    if not hasattr(os, "geteuid"):  # not a POSIX system: the folder is in the user's own
        return True
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # A second link may be somebody else's, who chose a file of this user to be the entry.
    return not writable and status.st_nlink == 1 and status.st_uid in (os.geteuid(), 0)
