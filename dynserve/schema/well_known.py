"""How the well-known types take Python values that are no messages.

https://protobuf.dev/reference/protobuf/google.protobuf/
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from google.protobuf.message import Message

from dynserve.errors import MessageError

from .refusal import refusal, step_to

if TYPE_CHECKING:
    from .values import Plan

__all__ = ["is_dataclass", "special_for"]

# A value → the message of the plan's type, or None where it is not a value of this sort.
Special: TypeAlias = "Callable[[Plan, Any], Message | None]"


def is_dataclass(value: object) -> bool:
    """What the module ``dataclasses`` says; whoever has such a value has imported it already."""
    return hasattr(value if isinstance(value, type) else type(value), "__dataclass_fields__")


def _wrapped(plan: Plan, value: Any) -> Message | None:
    if isinstance(value, (Mapping, Message)) or is_dataclass(value) or value is None:
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
    if not isinstance(value, Mapping):
        return None
    made: Any = plan.empty()
    _fill_fields(plan, made, value)
    return cast("Message", made)


def _list_value(plan: Plan, value: Any) -> Message | None:
    if not isinstance(value, (list, tuple)):
        return None
    made: Any = plan.empty()
    _fill_values(plan, made, value)
    return cast("Message", made)


def _value(plan: Plan, value: Any) -> Message | None:
    made = plan.empty()
    return made if _fill(plan, made, value) else None


def _fill(plan: Plan, made: Any, value: Any) -> bool:
    """Set the Value in place, where its parent holds it; False where it is not JSON-like data.

    To build the parts first would copy each as often as it is deep.
    """
    match value:
        case None:
            made.null_value = 0
        case bool():
            made.bool_value = value
        case int() | float():
            try:
                made.number_value = value
            except OverflowError as error:
                raise refusal(value, "double") from error
        case str():
            try:
                made.string_value = value
            except ValueError as error:  # a lone surrogate
                raise refusal(value, "string") from error
        case Mapping():
            made.struct_value.SetInParent()
            _fill_fields(plan, made.struct_value, value)
        case list() | tuple():
            made.list_value.SetInParent()
            _fill_values(plan, made.list_value, value)
        case _:
            return False
    return True


def _fill_fields(plan: Plan, struct: Any, value: Mapping[Any, Any]) -> None:
    fields = struct.fields
    for key, item in value.items():
        try:
            made = fields[key]
        except (TypeError, ValueError) as error:
            raise refusal(key, "string as key").under(step_to(key)) from error
        _fill_item(plan, made, item, key)


def _fill_values(plan: Plan, made: Any, value: Sequence[Any]) -> None:
    values = made.values
    for position, item in enumerate(value):
        _fill_item(plan, values.add(), item, position)


def _fill_item(plan: Plan, made: Any, item: Any, key: object) -> None:
    try:
        if not _fill(plan, made, item):
            made.CopyFrom(plan.of(made.DESCRIPTOR).convert(item))
    except MessageError as error:
        raise error.under(step_to(key)) from error.__cause__


def _any(plan: Plan, value: Any) -> Message | None:
    if isinstance(value, Message):
        return plan.packed(value)
    if isinstance(value, Mapping) and isinstance(value.get("@type"), str):
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
