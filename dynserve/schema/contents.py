"""What the ``Any`` messages in a message hold, by the names of the types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from .schema import Schema

__all__ = ["unknown_contents"]

_ANY = "google.protobuf.Any"


def unknown_contents(message: Any, schema: Schema) -> list[str]:
    """The types in its ``Any`` fields that the schema has not; what it has is looked into."""
    return list(dict.fromkeys(_unknown(message, schema)))


def _unknown(message: Any, schema: Schema) -> Iterator[str]:
    if message.DESCRIPTOR.full_name == _ANY:
        name = message.type_url.rpartition("/")[2]
        if not name:
            return
        if not schema.has_message(name):
            yield name
            return
        try:
            content = schema.message(name).FromString(message.value)
        except DecodeError:
            return  # who prints it says so
        yield from _unknown(content, schema)
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            yield from _unknown(value, schema)
        elif not field.message_type.GetOptions().map_entry:
            for item in value:
                yield from _unknown(item, schema)
        elif field.message_type.fields_by_name["value"].message_type is not None:
            for item in value.values():
                yield from _unknown(item, schema)
