"""Lines of .proto text: indentation, empty lines, and comments where protoc finds them again.

A comment belongs to what stands in front of it, behind it or to neither by the empty lines around
it: google/protobuf/io/tokenizer.h, ``Tokenizer::NextWithComments``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from .source import NO_COMMENTS, Comments

__all__ = ["Writer"]

_INDENT = "  "


class Writer:
    """Takes statements and blocks of statements one after the other."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0
        self._is_first = True  # of its block
        self._wants_gap = False  # an empty line comes before whatever comes next

    def text(self) -> str:
        """All that was written."""
        return "\n".join(self._lines).rstrip("\n") + "\n"  # no empty line below a remark

    def gap(self) -> None:
        """An empty line comes before what is written next."""
        self._wants_gap = True

    def statement(self, lines: Sequence[str], comments: Comments = NO_COMMENTS) -> None:
        """A statement of one or more lines, with the sign that ends it."""
        self._begin(comments, is_apart=len(lines) > 1)
        self._put(lines)
        self._trail(comments)
        self._wants_gap |= len(lines) > 1

    @contextlib.contextmanager
    def block(self, head: Sequence[str], comments: Comments = NO_COMMENTS) -> Iterator[None]:
        """A statement with a body, which the ``with`` statement writes."""
        self._begin(comments, is_apart=True)
        self._put([*head[:-1], f"{head[-1]} {{"])
        opening = len(self._lines)
        self._depth += 1
        self._trail(comments)
        self._is_first = True
        yield
        self._depth -= 1
        if not self._lines[-1]:  # below a remark
            self._lines.pop()
        if len(self._lines) == opening and not comments.trailing:
            self._lines[-1] += "}"
        else:
            self._put(["}"])
        self._is_first = False
        self._wants_gap = True

    def remark(self, lines: Sequence[str]) -> None:
        """A comment that was not in the source; empty lines keep it from what is around it."""
        if lines:
            self._begin(Comments(detached=(tuple(f" {line}" for line in lines),)), is_apart=False)

    def _begin(self, comments: Comments, *, is_apart: bool) -> None:
        is_apart |= bool(comments.leading)
        if self._wants_gap or comments.detached or (is_apart and not self._is_first):
            self._blank()
        for paragraph in comments.detached:
            self._comment(paragraph)
            self._blank()
        self._comment(comments.leading)
        self._is_first = self._wants_gap = False

    def _trail(self, comments: Comments) -> None:
        """One line goes behind the statement; more go below, with an empty line behind them."""
        if len(comments.trailing) == 1:
            self._lines[-1] += f"  //{comments.trailing[0]}"
        else:
            self._comment(comments.trailing)
            self._wants_gap = bool(comments.trailing)

    def _comment(self, lines: Sequence[str]) -> None:
        self._put([f"//{line}" for line in lines])

    def _blank(self) -> None:
        if self._lines and self._lines[-1]:
            self._lines.append("")

    def _put(self, lines: Sequence[str]) -> None:
        self._lines += [_INDENT * self._depth + line for line in lines]
