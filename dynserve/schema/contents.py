"""What the ``Any`` messages in a message hold, by the names of the types."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from .schema import Schema

__all__ = ["unknown_contents"]

_ANY = "google.protobuf.Any"
_FULL_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


_MAX_DEPTH = 100  # of Any in Any; what is deeper cannot be printed either


def unknown_contents(message: Any, schema: Schema) -> list[str]:
    """The types in its ``Any`` fields that the schema has not; what it has is looked into."""
    found: dict[str, None] = {}
    todo = [(message, 0)]
    while todo:
        one, depth = todo.pop()
        if one.DESCRIPTOR.full_name != _ANY:
            todo += [(inner, depth) for inner in _inner(one)]
        elif depth < _MAX_DEPTH:
            name = one.type_url.rpartition("/")[2]
            if _FULL_NAME.fullmatch(name) is None:
                continue
            if not schema.has_message(name):
                found[name] = None
                continue
            with contextlib.suppress(DecodeError):  # who prints it says so
                todo.append((schema.message(name).FromString(one.value), depth + 1))
    return list(found)


def _inner(message: Any) -> Iterator[Any]:
    """The messages in a message's fields."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            yield value
        elif not field.message_type.GetOptions().map_entry:
            yield from value
        elif field.message_type.fields_by_name["value"].message_type is not None:
            yield from value.values()
