"""Compiled descriptor sets on disk, by the content that they were compiled from.

An entry is a header, a checksum and the set, in a file named after the key. It is written beside
its place and moved there in one step, so processes may share the folder; one that does not check
out is as good as absent. A cache that cannot be used costs time, never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Cache", "default_folder"]

_log = logging.getLogger(__name__)
_MAGIC = b"dynserve set 1\n\0"  # 16 bytes; another layout gets another number
_CHECK = 4
_MAX_ENTRIES = 256


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
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
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
            with path.open("rb") as file:
                mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # mmap: ValueError for an empty file
            _log.warning("cache entry %s cannot be read: %s", path, error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the entries used last are the ones kept
        data = mapped[len(_MAGIC) + _CHECK :]
        header = _MAGIC + zlib.crc32(data).to_bytes(_CHECK, "big")
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
            descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix=".new-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_MAGIC + zlib.crc32(data).to_bytes(_CHECK, "big"))
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
        entries = sorted(self.folder.glob("*.binpb"), key=lambda path: path.stat().st_mtime)
        for path in entries[:-_MAX_ENTRIES]:
            path.unlink(missing_ok=True)
