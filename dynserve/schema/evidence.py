"""What a resolution of imports saw on disk: where nothing of it changed, it would end the same.

So the next start compares the times and sizes of files rather than read and search them all. A file
that was changed so lately that a later change could leave it with the same time is no evidence
(https://git-scm.com/docs/racy-git has the reasoning).
"""

from __future__ import annotations

import os
import stat
import time
from typing import TypeAlias

__all__ = ["Evidence", "Facts"]

_RECENT = 2_000_000_000  # ns; no file system in use has coarser times

_Seen: TypeAlias = "tuple[int, ...]"
# Files with what they were; paths with whether there is one; folders with whether all can write.
Facts: TypeAlias = "tuple[dict[str, _Seen], dict[str, bool], dict[str, bool]]"


class Evidence:
    """Looks at the disk, and remembers what it saw."""

    def __init__(self) -> None:
        self._started = time.time_ns()
        self._files: dict[str, None] = {}
        self._exists: dict[str, bool] = {}
        self._is_shared: dict[str, bool] = {}

    def uses(self, path: str) -> None:
        """The content of the file matters."""
        self._files[path] = None

    def is_file(self, path: str) -> bool:
        """Whether there is a regular file of that path; it matters then."""
        if os.path.isfile(path):
            self._files[path] = None
            return True
        self._exists[path] = os.path.exists(path)
        return False

    def exists(self, path: str) -> bool:
        """Whether there is anything of that path."""
        self._exists[path] = os.path.exists(path)
        return self._exists[path]

    def is_shared(self, folder: str) -> bool:
        """Whether every user can put files into the folder."""
        self._is_shared[folder] = _is_shared(folder)
        return self._is_shared[folder]

    def facts(self) -> Facts | None:
        """All that was seen, None where it could change unnoticed."""
        try:
            files = {path: _seen(path) for path in self._files}
        except OSError:
            return None
        latest = self._started - _RECENT
        if any(modified >= latest or changed >= latest for modified, changed, *_ in files.values()):
            return None
        return files, self._exists, self._is_shared

    @staticmethod
    def holds(facts: Facts) -> bool:
        """Whether all is still as it was seen."""
        files, exists, is_shared = facts
        try:
            return (
                all(_seen(path) == seen for path, seen in files.items())
                and all(os.path.exists(path) is seen for path, seen in exists.items())
                and all(_is_shared(folder) is seen for folder, seen in is_shared.items())
            )
        except OSError:
            return False


def _seen(path: str) -> _Seen:
    now = os.stat(path)
    return now.st_mtime_ns, now.st_ctime_ns, now.st_size, now.st_ino, now.st_dev, now.st_mode


def _is_shared(folder: str) -> bool:
    return bool(os.stat(folder).st_mode & stat.S_ISVTX)
