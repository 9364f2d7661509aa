"""Python values → messages of a schema's own pool.

What becomes a message, at the top and in every message field:
  * a message of the very class; one of another pool with the same full name (by its bytes);
  * a mapping or a dataclass instance, its keys being field names or their JSON names; None leaves
    a field unset;
  * for the well-known types: ``datetime`` (naive: UTC) or RFC 3339 text for Timestamp,
    ``timedelta`` or JSON text for Duration, a scalar for a wrapper, a mapping for Struct, a list
    for ListValue, JSON-like data for Value, a message or ``{"@type": …}`` for Any, names for
    FieldMask, None for Empty.
An enum is given by number or name. What does not fit is a :class:`MessageError` with the field's
path. A converter is made once for each message type; the path of a value costs nothing until
there is an error.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

from google.protobuf.message import Message

from dynserve.errors import MessageError, did_you_mean

if TYPE_CHECKING:
    from .pool import Descriptor, FieldDescriptor, LazyPool

__all__ = ["Converter"]

_SCALARS = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32",
    8: "bool", 9: "string", 12: "bytes", 13: "uint32", 15: "sfixed32", 16: "sfixed64",
    17: "sint32", 18: "sint64",
}  # fmt: skip
_ENUM = 14  # FieldDescriptor.TYPE_ENUM
_WRAPPERS = {
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}
_MAX_SHOWN = 60

Convert = Callable[[Any], Any]


class Converter:
    """Makes messages of one pool from Python values."""

    def __init__(self, pool: LazyPool) -> None:
        self._pool = pool
        self._plans: dict[str, _Plan] = {}

    def convert(self, value: object, message: type[Message]) -> Message:
        """``value`` as a message of the class ``message``; one of that class is returned as it is.

        Raises:
            MessageError: it does not fit; the error names the field.
        """
        if type(value) is message:
            return value
        descriptor = message.DESCRIPTOR
        try:
            return self.plan(descriptor).convert(value)
        except MessageError as error:
            raise error.under(descriptor.full_name) from error.__cause__

    def from_json(self, text: str | bytes, message: type[Message]) -> Message:
        """A message from its JSON form.

        Raises:
            MessageError: the text is not JSON, or does not fit.
        """
        from google.protobuf import json_format

        try:
            return json_format.Parse(text, message(), descriptor_pool=cast("Any", self._pool))
        except (json_format.ParseError, UnicodeDecodeError) as error:
            raise MessageError(message.DESCRIPTOR.full_name, str(error)) from error

    def plan(self, descriptor: Descriptor) -> _Plan:
        """How values become messages of this type."""
        plan = self._plans.get(descriptor.full_name)
        if plan is None:
            plan = _Plan(self, descriptor, self._pool.message_class(descriptor))
            plan = self._plans.setdefault(descriptor.full_name, plan)
        return plan

    def parse_dict(self, value: Any, message: type[Message]) -> Message:
        """A message from the dict of its JSON form; protobuf's own errors."""
        from google.protobuf import json_format

        return json_format.ParseDict(value, message(), descriptor_pool=cast("Any", self._pool))


class _Plan:
    """The conversion to one message type."""

    def __init__(self, owner: Converter, descriptor: Descriptor, message: type[Message]) -> None:
        self._owner = owner
        self._message = message
        self._name = descriptor.full_name
        self._special = _special(owner, descriptor.full_name, message)
        self._fields: dict[str, tuple[str, Convert | None]] | None = None
        self._oneofs = {
            field.name: oneof.name
            for oneof in descriptor.oneofs
            if len(oneof.fields) > 1
            for field in oneof.fields
        }

    def convert(self, value: object) -> Message:
        if type(value) is self._message:
            return value
        if isinstance(value, Message) and value.DESCRIPTOR.full_name == self._name:
            return self._message.FromString(value.SerializePartialToString())
        if self._special is not None:
            made = self._special(value)
            if made is not None:
                return made
        if isinstance(value, Mapping):
            return self._from_mapping(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return self._from_mapping({name: getattr(value, name) for name in names})
        raise MessageError("", f"got {_shown(value)}, expected {self._name}")

    def _from_mapping(self, value: Mapping[Any, Any]) -> Message:
        fields = self._fields
        if fields is None:
            fields = self._fields = self._prepare()
        given: dict[str, Any] = {}
        for key, item in value.items():
            if item is None:
                continue
            try:
                name, convert = fields[key]
            except (KeyError, TypeError):
                self._unknown(key)
            if name in given:
                raise MessageError(f".{name}", "is given twice, by its name and its JSON name")
            if convert is None:
                given[name] = item
            else:
                try:
                    given[name] = convert(item)
                except MessageError as error:
                    raise error.under(f".{name}") from error.__cause__
        if self._oneofs and len(given) > 1:
            self._check_oneofs(given)
        try:
            return self._message(**given)
        except (TypeError, ValueError) as error:
            self._blame(given, error)

    def _prepare(self) -> dict[str, tuple[str, Convert | None]]:
        fields: dict[str, tuple[str, Convert | None]] = {}
        for field in self._message.DESCRIPTOR.fields:
            fields[field.name] = (field.name, _converter_of(self._owner, field))
        for field in self._message.DESCRIPTOR.fields:
            fields.setdefault(field.json_name, fields[field.name])
        return fields

    def _unknown(self, key: object) -> NoReturn:
        names = [field.name for field in self._message.DESCRIPTOR.fields]
        near = did_you_mean(key, names) if isinstance(key, str) else ""
        raise MessageError("", f"no field {key!r} in {self._name}{near}") from None

    def _check_oneofs(self, given: Mapping[str, Any]) -> None:
        chosen: dict[str, str] = {}
        for name in given:
            oneof = self._oneofs.get(name)
            if oneof is not None and chosen.setdefault(oneof, name) != name:
                raise MessageError(
                    "",
                    f"{chosen[oneof]!r} and {name!r} are both set, but oneof {oneof!r} holds one",
                )

    def _blame(self, given: Mapping[str, Any], error: Exception) -> NoReturn:
        """Find the value that protobuf did not take."""
        for name, value in given.items():
            field = self._message.DESCRIPTOR.fields_by_name[name]
            try:
                self._message(**{name: value})
            except (TypeError, ValueError):
                step, culprit = self._narrow(field, name, value)
                raise MessageError(f".{name}{step}", _problem(field, culprit)) from error
        raise MessageError("", str(error)) from error

    def _narrow(self, field: FieldDescriptor, name: str, value: Any) -> tuple[str, Any]:
        if not field.is_repeated:
            return "", value
        if isinstance(value, Mapping):
            parts: Iterable[tuple[Any, Any]] = value.items()
            single: Callable[[Any, Any], Any] = lambda key, item: {key: item}  # noqa: E731 - a pair
        else:
            parts, single = enumerate(value), lambda _, item: [item]
        for key, item in parts:
            try:
                self._message(**{name: single(key, item)})
            except (TypeError, ValueError):
                return f"[{key!r}]", item
        return "", value


def _converter_of(owner: Converter, field: FieldDescriptor) -> Convert | None:
    """What is done to a field's value; None where protobuf's constructor takes it as it is."""
    one: Convert | None = None
    if field.message_type is not None:
        if field.is_repeated and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            return _mapping(_converter_of(owner, value))
        one = _Later(owner, field.message_type)
    return _sequence(one, _type_name(field)) if field.is_repeated else one


class _Later:
    """A nested message's plan, made when the first value comes: types may be recursive."""

    __slots__ = ("_convert", "_descriptor", "_owner")

    def __init__(self, owner: Converter, descriptor: Descriptor) -> None:
        self._owner = owner
        self._descriptor = descriptor
        self._convert: Convert | None = None

    def __call__(self, value: Any) -> Any:
        if self._convert is None:
            self._convert = self._owner.plan(self._descriptor).convert
        return self._convert(value)


def _sequence(one: Convert | None, expected: str) -> Convert:
    def convert(values: Any) -> list[Any]:
        if isinstance(values, (str, bytes, Mapping, Message)) or not isinstance(values, Iterable):
            raise MessageError("", f"got {_shown(values)}, expected a list of {expected}")
        if one is None:
            return list(values)
        made = []
        for position, value in enumerate(values):
            try:
                made.append(one(value))
            except MessageError as error:
                raise error.under(f"[{position}]") from error.__cause__
        return made

    return convert


def _mapping(one: Convert | None) -> Convert:
    def convert(values: Any) -> dict[Any, Any]:
        if not isinstance(values, Mapping):
            raise MessageError("", f"got {_shown(values)}, expected a mapping")
        if one is None:
            return dict(values)
        made = {}
        for key, value in values.items():
            try:
                made[key] = one(value)
            except MessageError as error:
                raise error.under(f"[{key!r}]") from error.__cause__
        return made

    return convert


def _special(owner: Converter, name: str, message: Any) -> Callable[[Any], Message | None] | None:
    """How a well-known type takes values that are no message; None from it: not this value."""
    if name in _WRAPPERS:
        return lambda value: _wrapped(message, value)
    makers: dict[str, Callable[[Any, Any], Message | None]] = {
        "google.protobuf.Timestamp": _timestamp,
        "google.protobuf.Duration": _duration,
        "google.protobuf.FieldMask": _field_mask,
        "google.protobuf.Struct": lambda _, value: _json_like(owner, message, value, Mapping),
        "google.protobuf.ListValue": lambda _, value: _json_like(
            owner, message, value, (list, tuple)
        ),
        "google.protobuf.Value": lambda _, value: _json_like(owner, message, value, object),
        "google.protobuf.Any": lambda _, value: _any(owner, message, value),
        "google.protobuf.Empty": lambda _, value: message() if value is None else None,
    }
    maker = makers.get(name)
    return None if maker is None else lambda value: maker(message, value)


def _wrapped(message: Any, value: Any) -> Message | None:
    if isinstance(value, (Mapping, Message)) or dataclasses.is_dataclass(value) or value is None:
        return None
    try:
        return cast("Message", message(value=value))
    except (TypeError, ValueError) as error:
        field = message.DESCRIPTOR.fields_by_name["value"]
        raise MessageError("", _problem(field, value)) from error


def _timestamp(message: Any, value: Any) -> Message | None:
    made = message()
    try:
        if isinstance(value, datetime.datetime):
            made.FromDatetime(value)
        elif isinstance(value, str):
            made.FromJsonString(value)
        else:
            return None
    except ValueError as error:
        raise MessageError("", f"got {_shown(value)}: {error}") from error
    return cast("Message", made)


def _duration(message: Any, value: Any) -> Message | None:
    made = message()
    try:
        if isinstance(value, datetime.timedelta):
            made.FromTimedelta(value)
        elif isinstance(value, str):
            made.FromJsonString(value)
        else:
            return None
    except ValueError as error:
        raise MessageError("", f"got {_shown(value)}: {error}") from error
    return cast("Message", made)


def _field_mask(message: Any, value: Any) -> Message | None:
    if isinstance(value, str):
        made = message()
        made.FromJsonString(value)
        return cast("Message", made)
    if isinstance(value, (list, tuple)) and all(isinstance(path, str) for path in value):
        return cast("Message", message(paths=value))
    return None


def _json_like(owner: Converter, message: Any, value: Any, kind: Any) -> Message | None:
    if not isinstance(value, kind) or isinstance(value, Message):
        return None
    if isinstance(value, tuple):
        value = list(value)
    try:
        return owner.parse_dict(value, message)
    except Exception as error:  # json_format lets AttributeError and more through here
        raise MessageError("", f"got {_shown(value)}, which is not JSON-like data") from error


def _any(owner: Converter, message: Any, value: Any) -> Message | None:
    if isinstance(value, Message):
        made = message()
        made.Pack(value)
        return cast("Message", made)
    if isinstance(value, Mapping) and "@type" in value:
        try:
            return owner.parse_dict(value, message)
        except Exception as error:  # as above
            raise MessageError("", f"got {_shown(value)}: {error}") from error
    return None


def _problem(field: FieldDescriptor, value: Any) -> str:
    if isinstance(value, int) and field.type in _SCALARS and "int" in _SCALARS[field.type]:
        return f"got {value}, which is out of range for {_SCALARS[field.type]}"
    return f"got {_shown(value)}, expected {_type_name(field)}"


def _type_name(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return field.message_type.full_name
    if field.type == _ENUM and field.enum_type is not None:
        names = ", ".join(list(field.enum_type.values_by_name)[:8])
        return f"a value of enum {field.enum_type.full_name} ({names})"
    return _SCALARS[field.type]


def _shown(value: object) -> str:
    if isinstance(value, Message):
        return f"message {value.DESCRIPTOR.full_name}"
    if value is None:
        return "None"
    text = repr(value)
    text = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
    return f"{text} ({type(value).__name__})"
