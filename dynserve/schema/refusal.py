"""What is said of a value that does not fit."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from dynserve.errors import MessageError

from .field_names import SCALARS

if TYPE_CHECKING:
    from .pool import FieldDescriptor

__all__ = ["cut", "problem_of", "refusal", "shown", "step_to", "type_name"]

_ENUM = 14  # FieldDescriptor.TYPE_ENUM
_MAX_SHOWN = 60


def refusal(value: object, expected: str) -> MessageError:
    """The error for a value that is something else than was expected."""
    return MessageError("", f"got {shown(value)}, expected {expected}")


def step_to(key: object) -> str:
    """The step of a path to what a mapping holds."""
    return f"[{cut(key)}]"


def problem_of(field: FieldDescriptor, value: Any) -> str:
    """What is wrong with a value that protobuf does not take for the field."""
    expected = SCALARS.get(field.type, "")
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and ("int" in expected or "fixed" in expected)
    ):
        return f"got {cut(value)}, which is out of range for {expected}"
    return f"got {shown(value)}, expected {type_name(field)}"


def type_name(field: FieldDescriptor) -> str:
    """What one value of the field has to be."""
    if field.message_type is not None:
        return field.message_type.full_name
    if field.type == _ENUM and field.enum_type is not None:
        names = ", ".join(list(field.enum_type.values_by_name)[:8])
        return f"a value of enum {field.enum_type.full_name} ({names})"
    return SCALARS[field.type]


def shown(value: object) -> str:
    """The value and its type, cut to a line."""
    if isinstance(value, Message):
        return f"message {value.DESCRIPTOR.full_name}"
    if value is None:
        return "None"
    return f"{cut(value)} ({type(value).__name__})"


def cut(value: object) -> str:
    """The beginning of the value's repr: it may be large, endless or fail, and is the peer's."""
    try:
        text = _REPR.repr(value)
    except Exception:  # reprlib goes by the name of a class, which may not be what it says
        text = object.__repr__(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


class _Repr(reprlib.Repr):
    """Looks no further into a value than is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = _MAX_SHOWN // 2
        self.maxother = 1 << 31

    def repr_str(self, x: str, level: int) -> str:
        return repr(x[:_MAX_SHOWN])

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x[:_MAX_SHOWN])

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 2000 else hex(x)  # Python refuses many decimal digits


_REPR = _Repr()
