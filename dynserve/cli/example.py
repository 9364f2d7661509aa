"""A request to try a method with, made up from its message type."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["example_of", "template_of"]

_MAX_FIELDS = 3
_MAX_DEPTH = 2
_MAX_TEMPLATE_DEPTH = 4

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
    return _Maker(_MAX_FIELDS, _MAX_DEPTH, is_whole=False).message(descriptor, ())


def template_of(descriptor: Any) -> Any:
    """A message of that type in protobuf's JSON form with all its fields; of a oneof the first."""
    return _Maker(sys.maxsize, _MAX_TEMPLATE_DEPTH, is_whole=True).message(descriptor, ())


class _Maker:
    def __init__(self, most_fields: int, most_depth: int, is_whole: bool) -> None:
        self._most_fields = most_fields
        self._most_depth = most_depth
        self._is_whole = is_whole

    def message(self, descriptor: Any, outer: tuple[str, ...]) -> Any:
        name: str = descriptor.full_name
        if name.startswith("google.protobuf.") and name.rpartition(".")[2] in _WELL_KNOWN:
            return _WELL_KNOWN[name.rpartition(".")[2]]
        example: dict[str, Any] = {}
        chosen: set[str] = set()  # oneofs that have their member
        for field in descriptor.fields:
            group = field.containing_oneof
            has_room = len(example) < self._most_fields
            wanted = has_room and (group is None or group.name not in chosen)
            if not (wanted or field.is_required):
                continue
            value = self._value(field, (*outer, name))
            if value is not None:
                is_list = field.is_repeated and not _is_map(field)
                example[field.name] = [value] if is_list else value
                if group is not None:
                    chosen.add(group.name)
        return example

    def _value(self, field: Any, outer: tuple[str, ...]) -> Any:
        """A value for a field; None where it is left out."""
        if field.enum_type is not None:
            return field.enum_type.values[0].name
        inner = field.message_type
        if inner is None:
            return _SCALARS.get(field.type, 1)
        if _is_map(field):
            return self._map(inner, outer) if self._is_whole else None
        is_telling = self._is_whole or inner.full_name != "google.protobuf.Any"
        is_shown = is_telling and len(outer) <= self._most_depth
        if inner.full_name in outer:
            return None
        return self.message(inner, outer) if is_shown or field.is_required else None

    def _map(self, entry: Any, outer: tuple[str, ...]) -> dict[str, Any]:
        """A map with one entry; in JSON every key is text."""
        key = self._value(entry.fields_by_name["key"], outer)
        value = self._value(entry.fields_by_name["value"], outer)
        return {} if value is None else {_key(key): value}


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _key(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
