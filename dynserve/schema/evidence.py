"""What a resolution of imports saw on disk: where nothing of it changed, it would end the same.

So the next start compares the times and sizes of files rather than read and search them all. What
says too little is no evidence: a file that was changed so lately that a later change could leave it
with the same time (https://git-scm.com/docs/racy-git has the reasoning), and one whose time of
change is none of a clock, as in images that are built to be the same every time.
"""

from __future__ import annotations

import os
import stat
import time
from typing import TypeAlias

__all__ = ["Evidence", "Facts"]

_RECENT = 2_000_000_000  # ns; no file system in use has coarser times
_SECOND = 1_000_000_000  # ns
_POSIX = os.name == "posix"  # elsewhere ctime is when a file was made

_Seen: TypeAlias = "tuple[int, ...]"
# What there is by its path, with what it was; questions and paths with the answers.
Facts: TypeAlias = "tuple[dict[str, _Seen], dict[tuple[str, str], bool]]"


class Evidence:
    """Looks at the disk, and remembers what it saw first."""

    def __init__(self) -> None:
        self._started = time.time_ns()
        self._files: dict[str, _Seen] = {}
        self._answers: dict[tuple[str, str], bool] = {}
        self._is_sure = True

    def uses(self, path: str) -> None:
        """The content of the file matters; to be said before it is read."""
        if path not in self._files:
            self.is_file(path)

    def is_file(self, path: str) -> bool:
        """Whether there is a regular file of that path."""
        try:
            seen = _seen(path)
        except (OSError, ValueError):  # ValueError: no file can have that name
            self._note("exists", path, False)
            return False
        self._is_sure &= self._files.setdefault(path, seen) == seen
        return stat.S_ISREG(seen[-1])

    def exists(self, path: str) -> bool:
        """Whether there is anything of that path."""
        return self._note("exists", path, os.path.exists(path))

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder of that path; what is in it is another question."""
        return self._note("is_folder", path, os.path.isdir(path))

    def is_shared(self, folder: str) -> bool:
        """Whether every user can put files into the folder."""
        return self._note("is_shared", folder, _is_shared(folder))

    def facts(self) -> Facts | None:
        """All that was seen; None where it says too little, or changed meanwhile."""
        if not self._is_sure or not all(map(self._says_enough, self._files.values())):
            return None
        return self._files, self._answers

    @staticmethod
    def holds(facts: Facts) -> bool:
        """Whether all is still as it was seen."""
        files, answers = facts
        try:
            return all(_seen(path) == seen for path, seen in files.items()) and all(
                _QUESTIONS[question](path) is answer for (question, path), answer in answers.items()
            )
        except OSError:
            return False

    def _note(self, question: str, path: str, answer: bool) -> bool:
        self._is_sure &= self._answers.setdefault((question, path), answer) is answer
        return answer

    def _says_enough(self, seen: _Seen) -> bool:
        modified, changed, *_ = seen
        last = changed if _POSIX else modified
        return last < self._started - _RECENT and last % _SECOND != 0


def _seen(path: str) -> _Seen:
    now = os.stat(path)
    return now.st_mtime_ns, now.st_ctime_ns, now.st_size, now.st_ino, now.st_dev, now.st_mode


def _is_shared(folder: str) -> bool:
    return bool(os.stat(folder).st_mode & stat.S_ISVTX)


_QUESTIONS = {"exists": os.path.exists, "is_folder": os.path.isdir, "is_shared": _is_shared}
