"""How the well-known types take Python values that are no messages.

https://protobuf.dev/reference/protobuf/google.protobuf/
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf.message import Message

if TYPE_CHECKING:
    from .values import Plan

__all__ = ["special_for"]

# A value → the message of the plan's type, or None where it is not a value of this sort.
Special: TypeAlias = "Callable[[Plan, Any], Message | None]"


def _wrapped(plan: Plan, value: Any) -> Message | None:
    if isinstance(value, (Mapping, Message)) or dataclasses.is_dataclass(value) or value is None:
        return None
    return plan.within("value", value)


def _timestamp(plan: Plan, value: Any) -> Message | None:
    if isinstance(value, datetime.datetime):
        return plan.parsed("FromDatetime", value)
    return plan.parsed("FromJsonString", value) if isinstance(value, str) else None


def _duration(plan: Plan, value: Any) -> Message | None:
    if isinstance(value, datetime.timedelta):
        return plan.parsed("FromTimedelta", value)
    return plan.parsed("FromJsonString", value) if isinstance(value, str) else None


def _field_mask(plan: Plan, value: Any) -> Message | None:
    if isinstance(value, (list, tuple)):
        return plan.within("paths", value)
    return plan.parsed("FromJsonString", value) if isinstance(value, str) else None


def _struct(plan: Plan, value: Any) -> Message | None:
    return plan.within("fields", value) if isinstance(value, Mapping) else None


def _list_value(plan: Plan, value: Any) -> Message | None:
    return plan.within("values", value) if isinstance(value, (list, tuple)) else None


def _value(plan: Plan, value: Any) -> Message | None:
    match value:
        case None:
            return plan.within("null_value", 0)
        case bool():
            return plan.within("bool_value", value)
        case int() | float():
            return plan.within("number_value", value)
        case str():
            return plan.within("string_value", value)
        case Mapping():
            return plan.within("struct_value", value)
        case list() | tuple():
            return plan.within("list_value", value)
    return None


def _any(plan: Plan, value: Any) -> Message | None:
    if isinstance(value, Message):
        return plan.packed(value)
    if isinstance(value, Mapping) and "@type" in value:
        return plan.from_json_form(value)
    return None


def _empty(plan: Plan, value: Any) -> Message | None:
    return plan.empty() if value is None else None


_SPECIAL: dict[str, Special] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.FieldMask": _field_mask,
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list_value,
    "google.protobuf.Value": _value,
    "google.protobuf.Any": _any,
    "google.protobuf.Empty": _empty,
    "google.protobuf.DoubleValue": _wrapped,
    "google.protobuf.FloatValue": _wrapped,
    "google.protobuf.Int64Value": _wrapped,
    "google.protobuf.UInt64Value": _wrapped,
    "google.protobuf.Int32Value": _wrapped,
    "google.protobuf.UInt32Value": _wrapped,
    "google.protobuf.BoolValue": _wrapped,
    "google.protobuf.StringValue": _wrapped,
    "google.protobuf.BytesValue": _wrapped,
}
special_for = _SPECIAL.get
