"""Names, numbers and strings as .proto text.

https://protobuf.dev/reference/protobuf/proto2-spec/#lexical_elements
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

__all__ = [
    "Type",
    "braced",
    "bracketed",
    "decimal",
    "default_value",
    "is_full_name",
    "is_identifier",
    "quote",
    "ranges",
    "scalar",
]


class Type:
    """Those that are told apart here: FieldDescriptorProto.Type."""

    DOUBLE, FLOAT, BOOL, STRING, GROUP, MESSAGE, BYTES, ENUM = 1, 2, 8, 9, 10, 11, 12, 14


_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_FULL_NAME = re.compile(rf"{_IDENTIFIER.pattern}(?:\.{_IDENTIFIER.pattern})*")
_INTEGER = re.compile("-?[0-9]+")
_DECIMAL = re.compile(r"-?(?:inf|nan|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)")
_BOOLEAN = re.compile("true|false")

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t", '"': r"\"", "\\": r"\\"}
_MEANING = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13} | {
    sign: sign[0] for sign in (b"\\", b"'", b'"', b"?")
}
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.?))", re.DOTALL)
_WIDTH = 80  # characters of what is written on one line, its indentation not counted


def is_identifier(name: object) -> TypeGuard[str]:
    """Whether an element can be called so; what is not UTF-8 comes from protobuf as bytes."""
    return isinstance(name, str) and _IDENTIFIER.fullmatch(name) is not None


def is_full_name(name: object) -> TypeGuard[str]:
    """Whether it is identifiers with dots between them."""
    return isinstance(name, str) and _FULL_NAME.fullmatch(name) is not None


def quote(value: str | bytes) -> str:
    """A string literal of this value; what could not be seen on a screen is escaped.

    Where the value is bytes, so is all that is not ASCII.
    """
    # A byte that is not ASCII becomes a surrogate, which never is printable.
    text = value.decode("ascii", "surrogateescape") if isinstance(value, bytes) else value
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if char.isprintable():
        return char
    # always three digits: what follows may be a digit too
    return "".join(f"\\{byte:03o}" for byte in char.encode(errors="surrogateescape"))


def _unescaped(text: str | bytes) -> bytes:
    """The bytes that a C-escaped text stands for; ValueError where it is not one."""

    def meant(match: re.Match[bytes]) -> bytes:
        octal, hexadecimal, sign = match.groups()
        if octal or hexadecimal:
            code = int(octal, 8) if octal else int(hexadecimal, 16)
        else:
            code = _MEANING.get(sign, 256)
        if code > 255:
            raise ValueError(f"{match[0]!r} is not an escape")
        return bytes([code])

    return _ESCAPE.sub(meant, text.encode() if isinstance(text, str) else text)


def decimal(value: float, *, is_single: bool = False) -> str:
    """The shortest number that is read as this one; of single precision where the field is."""
    if math.isnan(value):
        return "-nan" if math.copysign(1, value) < 0 else "nan"
    if math.isinf(value) or not is_single:
        return repr(value)
    exact = struct.pack("f", value)
    texts = (f"{value:.{digits}g}" for digits in (6, 7, 8))
    return next((text for text in texts if _is_single(text, exact)), f"{value:.9g}")


def _is_single(text: str, exact: bytes) -> bool:
    return struct.pack("f", float(text)) == exact


def scalar(field: Any, value: Any) -> str:
    """A value of a field of an option, which is anything but a message.

    A number that its enum has no name for stays a number, which only text format can have.
    """
    match field.type:
        case Type.STRING | Type.BYTES:
            return quote(value)
        case Type.BOOL:
            return "true" if value else "false"
        case Type.ENUM:
            named = field.enum_type.values_by_number.get(value)
            return str(value) if named is None else str(named.name)
        case Type.DOUBLE | Type.FLOAT:
            return decimal(value, is_single=field.type == Type.FLOAT)
    return str(value)


def default_value(text: str | bytes, field_type: int) -> str:
    """What stands after ``default =``; ValueError where it is no value of a field of this type.

    A descriptor has it as text, which may be anything.
    """
    match field_type:
        case Type.STRING:
            return quote(text)
        case Type.BYTES:
            return quote(_unescaped(text))
        case Type.BOOL:
            pattern = _BOOLEAN
        case Type.DOUBLE | Type.FLOAT:
            pattern = _DECIMAL
        case Type.ENUM:
            pattern = _IDENTIFIER
        case Type.MESSAGE | Type.GROUP:
            raise ValueError("a message has no default")
        case _:
            pattern = _INTEGER
    if not (isinstance(text, str) and pattern.fullmatch(text)):
        raise ValueError(f"{text!r} is no value of its type")
    return text


def braced(entries: list[list[str]]) -> list[str]:
    """The lines of a message in text format from those of its fields; one line if it is short.

    https://protobuf.dev/reference/protobuf/textformat-spec/#messages
    """
    if not entries:
        return ["{}"]
    if all(len(lines) == 1 for lines in entries):
        flat = f"{{ {', '.join(line for (line,) in entries)} }}"
        if len(flat) <= _WIDTH:
            return [flat]
    return ["{", *(f"  {line}" for lines in entries for line in lines), "}"]


def ranges(pairs: Iterable[tuple[int, int]], maximum: int) -> str:
    """Numbers from … to …, both included.

    https://protobuf.dev/reference/protobuf/proto2-spec/#reserved
    """
    return ", ".join(
        str(first) if first == last else f"{first} to {'max' if last == maximum else last}"
        for first, last in pairs
    )


def bracketed(head: str, entries: Sequence[Sequence[str]], remarks: Sequence[str]) -> list[str]:
    """The lines of a statement with its options in brackets, without the sign that ends it.

    Remarks stand within the statement: protoc takes comments there for nobody's.
    """
    block = _in_brackets(entries, _WIDTH - len(head)) if entries else []
    if remarks:
        inner = [*(f"// {remark}" for remark in remarks), *(block or [""])]
        return [head, *(f"    {line}" for line in inner)]
    return [f"{head} {block[0]}", *block[1:]] if block else [head]


def _in_brackets(entries: Sequence[Sequence[str]], width: int) -> list[str]:
    if all(len(lines) == 1 for lines in entries):
        flat = f"[{', '.join(line for (line,) in entries)}]"
        if len(flat) <= width:
            return [flat]
    inner: list[str] = []
    for *lines, last in entries:
        inner += [*lines, f"{last},"]
    inner[-1] = inner[-1].removesuffix(",")
    return ["[", *(f"  {line}" for line in inner), "]"]
