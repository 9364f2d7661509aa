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

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

from google.protobuf.message import DecodeError, EncodeError, Message

from dynserve.errors import MessageError, did_you_mean

from .well_known import special_for

if TYPE_CHECKING:
    from .pool import Descriptor, FieldDescriptor, LazyPool

__all__ = ["Converter"]

_SCALARS = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32",
    8: "bool", 9: "string", 12: "bytes", 13: "uint32", 15: "sfixed32", 16: "sfixed64",
    17: "sint32", 18: "sint64",
}  # fmt: skip
_ENUM = 14  # FieldDescriptor.TYPE_ENUM
_MAX_SHOWN = 60
# What protobuf raises for a value it does not take; OverflowError: an int too large for a float.
_REFUSED = (TypeError, ValueError, OverflowError)

Convert = Callable[[Any], Any]


class Converter:
    """Makes messages of one pool from Python values."""

    def __init__(self, pool: LazyPool) -> None:
        self._pool = pool
        self._plans: dict[str, Plan] = {}

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
        except RecursionError as error:
            raise MessageError(descriptor.full_name, "the value is nested too deeply") from error

    def from_json(self, text: str | bytes, message: type[Message]) -> Message:
        """A message from its JSON form.

        Raises:
            MessageError: the text is not JSON, or does not fit.
        """
        from google.protobuf import json_format

        with _as_message_error(message):
            return json_format.Parse(text, message(), descriptor_pool=cast("Any", self._pool))

    def to_json(self, message: Message, options: Mapping[str, Any]) -> str:
        """The JSON form of a message.

        Raises:
            MessageError: it has none.
        """
        from google.protobuf import json_format

        with _as_message_error(message):
            pool = cast("Any", self._pool)
            return json_format.MessageToJson(message, descriptor_pool=pool, **options)

    def to_dict(self, message: Message, options: Mapping[str, Any]) -> dict[str, Any]:
        """The dict of the JSON form of a message.

        Raises:
            MessageError: it has none.
        """
        from google.protobuf import json_format

        with _as_message_error(message):
            pool = cast("Any", self._pool)
            return json_format.MessageToDict(message, descriptor_pool=pool, **options)

    def plan(self, descriptor: Descriptor) -> Plan:
        """How values become messages of this type."""
        plan = self._plans.get(descriptor.full_name)
        if plan is None:
            plan = Plan(self, descriptor, self._pool.message_class(descriptor))
            plan = self._plans.setdefault(descriptor.full_name, plan)
        return plan

    def parse_dict(self, value: Any, message: type[Message]) -> Message:
        """A message from the dict of its JSON form; protobuf's own errors."""
        from google.protobuf import json_format

        return json_format.ParseDict(value, message(), descriptor_pool=cast("Any", self._pool))


@contextlib.contextmanager
def _as_message_error(message: Message | type[Message]) -> Iterator[None]:
    """json_format raises errors of its own, and lets AttributeError and more through."""
    try:
        yield
    except Exception as error:
        raise MessageError(message.DESCRIPTOR.full_name, str(error)) from error


class Plan:
    """The conversion to one message type."""

    def __init__(self, owner: Converter, descriptor: Descriptor, message: type[Message]) -> None:
        self._owner = owner
        self._message = message
        self._name = descriptor.full_name
        self._special = special_for(descriptor.full_name)
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
            return self._translate(value)
        if self._special is not None:
            made = self._special(self, value)
            if made is not None:
                return made
        if isinstance(value, Mapping):
            return self._from_mapping(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return self._from_mapping({name: getattr(value, name) for name in names})
        raise MessageError("", f"got {_shown(value)}, expected {self._name}")

    def _translate(self, value: Message) -> Message:
        try:
            return self._message.FromString(value.SerializePartialToString())
        except DecodeError as error:
            problem = f"got a {self._name} of another schema, which does not fit this one"
            raise MessageError("", problem) from error

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
        except _REFUSED as error:
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
            if self._refuses(name, value):
                step, problem = self._narrow(self._message.DESCRIPTOR.fields_by_name[name], value)
                raise MessageError(f".{name}{step}", problem) from error
        raise MessageError("", str(error)) from error

    def _refuses(self, name: str, value: Any) -> bool:
        try:
            self._message(**{name: value})
        except _REFUSED:
            return True
        return False

    def _narrow(self, field: FieldDescriptor, value: Any) -> tuple[str, str]:
        """The step to what protobuf did not take within a field, and what is wrong with it."""
        if _is_map(field):
            entry = self._owner.plan(cast("Descriptor", field.message_type))
            for key, item in value.items():
                for part, culprit in (("key", key), ("value", item)):
                    if culprit is None or entry._refuses(part, culprit):
                        problem = _problem(entry._message.DESCRIPTOR.fields_by_name[part], culprit)
                        return f"[{key!r}]", problem + (" as key" if part == "key" else "")
        elif field.is_repeated:
            for position, item in enumerate(value):
                if self._refuses(field.name, [item]):
                    return f"[{position}]", _problem(field, item)
        return "", _problem(field, value)

    def within(self, field: str, value: Any) -> Message:
        """The message with one field set, of which an error's path says nothing."""
        try:
            return self._from_mapping({field: value})
        except MessageError as error:
            path = error.path.removeprefix(f".{field}")
            raise MessageError(path, error.problem) from error.__cause__

    def empty(self) -> Message:
        """The message with nothing set."""
        return self._message()

    def parsed(self, parse: str, value: Any) -> Message:
        """The message that a method of a well-known type reads from the value."""
        made = self._message()
        try:
            getattr(made, parse)(value)
        except _REFUSED as error:
            raise MessageError("", f"got {_shown(value)}: {error}") from error
        return made

    def packed(self, value: Message) -> Message:
        """An ``Any`` with the message in it."""
        made: Any = self._message()
        try:
            made.Pack(value)
        except EncodeError as error:  # a required field is not set
            raise MessageError("", str(error)) from error
        return cast("Message", made)

    def from_json_form(self, value: Any) -> Message:
        """The message from the dict of its JSON form."""
        try:
            return self._owner.parse_dict(value, self._message)
        except Exception as error:  # json_format lets AttributeError and more through here
            raise MessageError("", f"got {_shown(value)}: {error}") from error


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _converter_of(owner: Converter, field: FieldDescriptor) -> Convert | None:
    """What is done to a field's value; None where protobuf's constructor takes it as it is."""
    one: Convert | None = None
    if field.message_type is not None:
        if _is_map(field):
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


def _problem(field: FieldDescriptor, value: Any) -> str:
    expected = _SCALARS.get(field.type, "")
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and ("int" in expected or "fixed" in expected)
    ):
        return f"got {value}, which is out of range for {expected}"
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
