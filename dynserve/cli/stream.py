"""Messages as text, one after the other: cut apart as they come in."""

from __future__ import annotations

import codecs
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator

import click

__all__ = ["DataError", "chunks_of", "is_streamed", "json_values", "text_values"]

_STDIN = ("-", "@", "@-")
_AT_ONCE = 1 << 16  # bytes
_BOM = "\ufeff"
_BETWEEN = "\x1e"  # between messages in the text format, as grpcurl has it

# What a splitter looks for next: inside a string, inside brackets, and outside both. Only these
# four are white space: https://www.rfc-editor.org/rfc/rfc8259#section-2
_IN_STRING = re.compile(r'["\\]')
_IN_BRACKETS = re.compile(r'["{}\[\]]')
_OUTSIDE = re.compile(r'["{}\[\]]|[ \t\n\r]+')


class DataError(click.ClickException):
    """What was given as data is not what the method takes."""

    exit_code = 2


def is_streamed(data: str) -> bool:
    """Whether ``--data`` says where messages come from, rather than what they are."""
    return data == "-" or data.startswith("@")


def chunks_of(data: str) -> Iterator[str]:
    """The text of ``--data``, in pieces: ``@FILE`` is read, ``-`` and ``@`` are standard input.

    Raises:
        DataError: the file cannot be read, at once or when it is iterated.
    """
    if not is_streamed(data):
        return iter([data.removeprefix(_BOM)])
    if data in _STDIN:
        try:
            return _read(data, sys.stdin.fileno())
        except (AttributeError, ValueError) as error:  # no stdin, or one that is no file
            raise DataError(f"--data {data}: standard input is closed.") from error
    path = data[1:]
    try:
        if not stat.S_ISFIFO(os.stat(path).st_mode):  # whose other end may be opened late
            open(path, "rb").close()
    except OSError as error:
        raise DataError(f"--data {data}: {error.strerror}.") from error
    return _read(data, path)


def _read(data: str, file: int | str) -> Iterator[str]:
    """What is there as soon as it is: who types a message may wait for its answer."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        with open(file, "rb", buffering=0, closefd=isinstance(file, str)) as stream:
            while chunk := os.read(stream.fileno(), _AT_ONCE):
                yield decoder.decode(chunk)
            yield decoder.decode(b"", final=True)
    except OSError as error:
        raise DataError(f"--data {data}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"--data {data}: not UTF-8: {error.reason}.") from error


def json_values(chunks: Iterable[str]) -> Iterator[str]:
    """The JSON values in a text, each as soon as it is whole; what is left at the end comes last.

    Values stand beside each other, or on a line each. They are cut apart, and not checked: all of
    the text but the white space between values is in one of them.
    """
    splitter = _Splitter()
    for chunk in chunks:
        yield from splitter.feed(chunk)
    yield from splitter.end()


class _Splitter:
    """Finds the ends of JSON values by brackets and quotes, looking at each character once."""

    def __init__(self) -> None:
        self._kept: list[str] = []  # the beginning of a value that is not whole
        self._depth = 0
        self._is_string = False
        self._escaped = 0  # characters of the next chunk that are

    def feed(self, chunk: str) -> Iterator[str]:
        start, position = 0, self._escaped
        while match := self._sign().search(chunk, position):
            position = match.end() + (match[0] == "\\")
            if self._is_outside:
                yield from self._value(chunk[start : match.start()])
                start = match.end() if match[0].isspace() else match.start()
            if self._is_end(match[0]):
                yield from self._value(chunk[start:position])
                start = position
        self._escaped = max(0, position - len(chunk))
        self._kept.append(chunk[start:])

    def end(self) -> Iterator[str]:
        """What is left."""
        return self._value("")

    @property
    def _is_outside(self) -> bool:
        return not (self._is_string or self._depth)

    def _sign(self) -> re.Pattern[str]:
        if self._is_string:
            return _IN_STRING
        return _IN_BRACKETS if self._depth else _OUTSIDE

    def _is_end(self, sign: str) -> bool:
        """Take the next sign; whether a value ends with it."""
        if self._is_string:
            self._is_string = sign != '"'
        elif sign == '"':
            self._is_string = True
        elif sign in "{[":
            self._depth += 1
        elif sign in "}]":
            self._depth = max(0, self._depth - 1)
        else:
            return False
        return self._is_outside

    def _value(self, rest: str) -> Iterator[str]:
        value = "".join((*self._kept, rest))
        self._kept.clear()
        if value:
            yield value


def text_values(chunks: Iterable[str]) -> Iterator[str]:
    """Messages in protobuf's text format, between which is a record separator (0x1E).

    One with nothing in it has a text of no length; but no text at all is no message.
    """
    kept: list[str] = []
    separated = False
    for chunk in chunks:
        *ends, rest = chunk.split(_BETWEEN)
        for end in ends:
            yield "".join((*kept, end))
            kept.clear()
            separated = True
        kept.append(rest)
    last = "".join(kept)
    if separated or last.strip():
        yield last
