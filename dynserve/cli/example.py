"""A request to try a method with, made up from its message type."""

from __future__ import annotations

from typing import Any

__all__ = ["example_of"]

_MAX_FIELDS = 3
_MAX_DEPTH = 2

_SCALARS: dict[int, Any] = {8: True, 9: "text", 12: "AA=="}  # bool, string, bytes; else a number

# The well-known types that have a JSON form of their own.
# https://protobuf.dev/programming-guides/json/
_WELL_KNOWN: dict[str, Any] = {
    "Any": {},
    "BoolValue": True,
    "BytesValue": "AA==",
    "DoubleValue": 1,
    "Duration": "1.5s",
    "Empty": {},
    "FieldMask": "name",
    "FloatValue": 1,
    "Int32Value": 1,
    "Int64Value": "1",
    "ListValue": [],
    "StringValue": "text",
    "Struct": {},
    "Timestamp": "2001-02-03T04:05:06Z",
    "UInt32Value": 1,
    "UInt64Value": "1",
    "Value": "text",
}


def example_of(descriptor: Any) -> Any:
    """A message of that type in protobuf's JSON form: what it requires and its first few fields."""
    return _message(descriptor, ())


def _message(descriptor: Any, outer: tuple[str, ...]) -> Any:
    name: str = descriptor.full_name
    if name.startswith("google.protobuf.") and name.rpartition(".")[2] in _WELL_KNOWN:
        return _WELL_KNOWN[name.rpartition(".")[2]]
    example: dict[str, Any] = {}
    chosen: set[str] = set()  # oneofs that have their member
    for field in descriptor.fields:
        group = field.containing_oneof
        wanted = len(example) < _MAX_FIELDS and (group is None or group.name not in chosen)
        if not (wanted or field.is_required):
            continue
        value = _value(field, (*outer, name))
        if value is not None:
            example[field.name] = [value] if field.is_repeated else value
            if group is not None:
                chosen.add(group.name)
    return example


def _value(field: Any, outer: tuple[str, ...]) -> Any:
    """A value for a field; None where it is left out."""
    if field.enum_type is not None:
        return field.enum_type.values[0].name
    inner = field.message_type
    if inner is None:
        return _SCALARS.get(field.type, 1)
    is_shown = len(outer) <= _MAX_DEPTH and inner.full_name != "google.protobuf.Any"
    if inner.full_name in outer or inner.GetOptions().map_entry:
        return None
    return _message(inner, outer) if is_shown or field.is_required else None
