"""Messages as text, one after the other: cut apart as they come in."""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterable, Iterator

import click

__all__ = ["chunks_of", "json_values", "text_values"]

_SIGNS = re.compile(r'["\\{}\[\]]|\s')
_AT_ONCE = 1 << 16  # bytes
_BETWEEN = "\x1e"  # between messages in the text format, as grpcurl has it


def chunks_of(data: str) -> Iterator[str]:
    """The text of ``--data``, in pieces: ``@FILE`` is read, ``-`` and ``@`` are standard input.

    Raises:
        click.UsageError: the file cannot be read.
    """
    if data in ("-", "@", "@-"):
        return _read(sys.stdin.fileno())
    if not data.startswith("@"):
        return iter([data])
    try:
        descriptor = os.open(data[1:], os.O_RDONLY)
    except OSError as error:
        raise click.UsageError(f"--data {data}: {error.strerror}.") from error
    return _read(descriptor)


def _read(descriptor: int) -> Iterator[str]:
    """What is there as soon as it is: who types a message may wait for its answer."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    while data := os.read(descriptor, _AT_ONCE):
        yield decoder.decode(data)
    yield decoder.decode(b"", final=True)


def json_values(chunks: Iterable[str]) -> Iterator[str]:
    """The JSON values in a text, each as soon as it is whole; what is left at the end comes last.

    Values stand beside each other, or on a line each. They are cut apart, and not checked.
    """
    splitter = _Splitter()
    for chunk in chunks:
        yield from splitter.feed(chunk)
    yield from splitter.feed("\n")
    if splitter.kept:
        yield splitter.kept


class _Splitter:
    """Finds the ends of JSON values by brackets and quotes."""

    def __init__(self) -> None:
        self.kept = ""  # the beginning of a value that is not whole
        self._depth = 0
        self._is_string = False
        self._next = 0  # what comes before it in the chunk is escaped

    def feed(self, chunk: str) -> Iterator[str]:
        start = 0
        for match in _SIGNS.finditer(chunk):
            if match.start() >= self._next and self._is_end(match):
                end = match.end()
                value = (self.kept + chunk[start:end]).strip()
                self.kept, start = "", end
                if value:
                    yield value
        self.kept = (self.kept + chunk[start:]).lstrip()
        self._next = max(0, self._next - len(chunk))

    def _is_end(self, match: re.Match[str]) -> bool:
        """Whether a value ends with this sign."""
        sign = match[0]
        if self._is_string:
            if sign == "\\":
                self._next = match.end() + 1
            self._is_string = sign != '"'
            return not self._is_string and self._depth == 0
        if sign == '"':
            self._is_string = True
        elif sign in "{[":
            self._depth += 1
        elif sign in "}]":
            self._depth = max(0, self._depth - 1)
            return self._depth == 0
        return self._depth == 0 and sign.isspace()


def text_values(chunks: Iterable[str]) -> Iterator[str]:
    """Messages in protobuf's text format, between which is a record separator (0x1E)."""
    kept = ""
    for chunk in chunks:
        *whole, kept = (kept + chunk).split(_BETWEEN)
        yield from whole
    yield kept
