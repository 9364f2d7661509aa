"""Where the elements of a file stood in its source, and the comments on them.

google/protobuf/descriptor.proto, ``SourceCodeInfo.Location``, says how a path leads to an element
and which comment belongs to which.
"""

from __future__ import annotations

import bisect
import re
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import SourceCodeInfo

__all__ = ["NOWHERE", "NO_COMMENTS", "Comments", "Locations", "Path", "Position"]

Path: TypeAlias = tuple[int, ...]
Position: TypeAlias = tuple[int, int]  # line and column
Lines: TypeAlias = tuple[str, ...]

NOWHERE: Position = (1 << 32, 0)  # after all that stands somewhere

# NUL ends a comment for protoc's tokenizer, so that the rest of it would be read as declarations;
# escape sequences do what they like to a terminal.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Comments(NamedTuple):
    """The comments on an element, line by line without the comment signs.

    ``leading`` stands in front of it, ``trailing`` behind it; ``detached`` are further in front,
    each with an empty line behind it.
    """

    leading: Lines = ()
    trailing: Lines = ()
    detached: tuple[Lines, ...] = ()


NO_COMMENTS = Comments()


class Locations:
    """The source locations of a file by path; there may be none."""

    def __init__(self, info: SourceCodeInfo) -> None:
        self._by_path: dict[Path, list[SourceCodeInfo.Location]] = {}
        self._starts: dict[Path, list[Position]] = {}
        for location in info.location:
            self._by_path.setdefault(tuple(location.path), []).append(location)

    def start(self, path: Path) -> Position:
        """Where the element begins."""
        for location in self._by_path.get(path, ()):
            return _start(location)
        return NOWHERE

    def comments(self, path: Path, statement: int = 0) -> Comments:
        """The comments on an element; on one of several statements that have the same path."""
        locations = self._by_path.get(path, ())
        if statement >= len(locations):
            return NO_COMMENTS
        location = locations[statement]
        return Comments(
            _lines(location.leading_comments),
            _lines(location.trailing_comments),
            tuple(map(_lines, location.leading_detached_comments)),
        )

    def statement(self, path: Path, item: Path) -> int:
        """Which of the statements with this path an item stands in: one ``extend`` of several."""
        if path not in self._starts:
            self._starts[path] = [_start(location) for location in self._by_path.get(path, ())]
        return max(0, bisect.bisect_right(self._starts[path], self.start(item)) - 1)


def _start(location: SourceCodeInfo.Location) -> Position:
    line, column = (*location.span[:2], 0, 0)[:2]
    return line, column


def _lines(text: str | bytes) -> Lines:
    if isinstance(text, bytes):  # what protobuf makes of a text that is not UTF-8
        text = text.decode(errors="replace")
    # All line ends that anybody knows: a comment must not end sooner for some reader of it.
    lines = (_CONTROL.sub("\N{REPLACEMENT CHARACTER}", line) for line in text.splitlines())
    return tuple(line.rstrip() for line in lines)
