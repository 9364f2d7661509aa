"""Python values → messages of a schema's own pool.

What becomes a message, at the top and in every message field:
  * a message of the very class; one of another pool with the same full name (by its bytes);
  * a mapping or a dataclass instance, its keys being field names or their JSON names; None leaves
    a field unset;
  * for the well-known types: ``datetime`` (naive: UTC) or RFC 3339 text for Timestamp,
    ``timedelta`` or JSON text for Duration, a scalar for a wrapper, a mapping for Struct, a list
    for ListValue, JSON-like data for Value, a message or ``{"@type": …}`` for Any, names for
    FieldMask, None for Empty.
An enum is given by number or name, bytes as anything that has a buffer, a repeated field as any
iterable. What does not fit is a :class:`MessageError` with the field's path.

A plan is made once for each message type. Nested values become the arguments of one constructor
call: protobuf copies a message that it is given by serialising and parsing it, once a level. The
path of a value costs nothing until there is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

from google.protobuf.message import DecodeError, EncodeError, Message

from dynserve.errors import MessageError, did_you_mean

from .refusal import cut, problem_of, refusal, shown, step_to, type_name
from .well_known import is_dataclass, special_for

if TYPE_CHECKING:
    from .pool import Descriptor, FieldDescriptor, LazyPool

__all__ = ["Converter"]

_BYTES = 12  # FieldDescriptor.TYPE_BYTES
# What protobuf raises for a value it does not take; OverflowError: an int too large for a float.
_REFUSED = (TypeError, ValueError, OverflowError)
_TOO_DEEP = "the value is nested too deeply"

_NO_LIST = (str, bytes, bytearray, Mapping, Message)  # though they can be iterated

Convert = Callable[[Any], Any]


class Converter:
    """Makes messages of one pool from Python values."""

    def __init__(self, pool: LazyPool) -> None:
        self._pool = pool
        self._plans: dict[Descriptor, Plan] = {}
        self._with_maps: dict[Descriptor, bool] = {}

    def convert(self, value: object, message: type[Message]) -> Message:
        """``value`` as a message of the class ``message``; one of that class is returned as it is.

        Raises:
            MessageError: it does not fit; the error names the field.
        """
        if type(value) is message:
            return value
        descriptor = message.DESCRIPTOR
        try:
            if descriptor not in self._plans:
                self._check_own(descriptor)
            return self.plan(descriptor).convert(value)
        except MessageError as error:
            raise error.under(descriptor.full_name) from error.__cause__
        except (RecursionError, DecodeError) as error:  # DecodeError: a message in it is too deep
            raise MessageError(descriptor.full_name, _TOO_DEEP) from error

    def _check_own(self, descriptor: Descriptor) -> None:
        """A class of another pool would make messages that no field of this one takes."""
        name = descriptor.full_name
        try:
            own = self._pool.FindMessageTypeByName(name)
        except KeyError:
            raise MessageError("", "is not a type of this schema") from None
        if own is not descriptor:
            raise MessageError(
                "", f"the class is of another schema; use this one's, schema.message({name!r})"
            )

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
        import json

        written = {"indent": 2, "sort_keys": False, "ensure_ascii": True}  # as in MessageToJson
        form = {name: value for name, value in options.items() if name not in written}
        written.update((name, options[name]) for name in written.keys() & options.keys())
        return json.dumps(self.to_dict(message, form), **written)  # type: ignore[arg-type]

    def from_text(self, text: str, message: type[Message]) -> Message:
        """A message from protobuf's text format.

        Raises:
            MessageError: the text is not of that form, or does not fit.
        """
        from google.protobuf import text_format

        with _as_message_error(message):
            return text_format.Parse(text, message(), descriptor_pool=cast("Any", self._pool))

    def to_text(self, message: Message, options: Mapping[str, Any]) -> str:
        """A message in protobuf's text format."""
        from google.protobuf import text_format

        pool = cast("Any", self._pool)
        return text_format.MessageToString(message, descriptor_pool=pool, **options)

    def to_dict(self, message: Message, options: Mapping[str, Any]) -> dict[str, Any]:
        """The dict of the JSON form of a message.

        Raises:
            MessageError: it has none.
        """
        from google.protobuf import json_format

        given = dict(options)
        pool: Any = self._pool
        if given.pop("allow_unknown_any", False):
            from .unknown_any import PoolWithUnknown

            pool = PoolWithUnknown(pool)
        with _as_message_error(message):
            form = json_format.MessageToDict(message, descriptor_pool=pool, **given)
            descriptor = message.DESCRIPTOR
            if self._holds_maps(descriptor):
                from .map_order import sort_maps

                form = sort_maps(form, descriptor, pool)
            return form

    def _holds_maps(self, descriptor: Descriptor) -> bool:
        holds = self._with_maps.get(descriptor)
        if holds is None:
            from .map_order import can_hold_maps

            holds = self._with_maps[descriptor] = can_hold_maps(descriptor)
        return holds

    def plan(self, descriptor: Descriptor) -> Plan:
        """How values become messages of this type."""
        plan = self._plans.get(descriptor)
        if plan is None:
            plan = Plan(self, descriptor, self._pool.message_class(descriptor))
            plan = self._plans.setdefault(descriptor, plan)
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
        """The value as a message."""
        made = self.prepare(value)
        return made if isinstance(made, Message) else self._build(made)

    def prepare(self, value: object) -> Message | dict[str, Any]:
        """The value as a message, or as the arguments that the constructor makes one of."""
        if type(value) is self._message:
            return value
        if type(value) is dict and self._special is None:  # the quick way of what follows
            return self._arguments(value)
        if isinstance(value, Message) and value.DESCRIPTOR.full_name == self._name:
            return self._translate(value)
        if self._special is not None:
            made = self._special(self, value)
            if made is not None:
                return made
        if not isinstance(value, Mapping):
            if not is_dataclass(value) or isinstance(value, type):
                raise refusal(value, self._name)
            from dataclasses import fields  # slow to import, and loaded by who made the class

            value = {field.name: getattr(value, field.name) for field in fields(cast("Any", value))}
        given = self._arguments(value)
        # As an argument for a well-known type protobuf takes a dict for other than its fields.
        return given if self._special is None else self._build(given)

    def _translate(self, value: Message) -> Message:
        try:
            return self._message.FromString(value.SerializePartialToString())
        except DecodeError as error:
            problem = f"got a {self._name} of another schema, which does not fit this one"
            raise MessageError("", problem) from error

    def _arguments(self, value: Mapping[Any, Any]) -> dict[str, Any]:
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
        return given

    def _build(self, given: dict[str, Any]) -> Message:
        try:
            return self._message(**given)
        except _REFUSED as error:
            path, problem = self._fault(given) or ("", str(error))
            raise MessageError(path, problem) from error

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
        raise MessageError("", f"no field {cut(key)} in {self._name}{near}") from None

    def _check_oneofs(self, given: Mapping[str, Any]) -> None:
        chosen: dict[str, str] = {}
        for name in given:
            oneof = self._oneofs.get(name)
            if oneof is not None and chosen.setdefault(oneof, name) != name:
                raise MessageError(
                    "",
                    f"{chosen[oneof]!r} and {name!r} are both set, but oneof {oneof!r} holds one",
                )

    def _fault(self, given: Mapping[str, Any]) -> tuple[str, str] | None:
        """The path to the value that protobuf did not take, and what is wrong with it."""
        for name, value in given.items():
            if self._refuses(name, value):
                step, problem = self._narrow(self._message.DESCRIPTOR.fields_by_name[name], value)
                return f".{name}{step}", problem
        return None

    def _refuses(self, name: str, value: Any) -> bool:
        try:
            self._message(**{name: value})
        except _REFUSED:
            return True
        return False

    def _narrow(self, field: FieldDescriptor, value: Any) -> tuple[str, str]:
        """The same within the value of one field."""
        if _is_map(field):
            entry = self._owner.plan(cast("Descriptor", field.message_type))
            fields = entry._message.DESCRIPTOR.fields_by_name
            for key, item in value.items():
                if key is None or entry._refuses("key", key):
                    return step_to(key), f"{problem_of(fields['key'], key)} as key"
                if item is None or entry._refuses("value", item):
                    step, problem = entry._narrow_one(fields["value"], item)
                    return step_to(key) + step, problem
        elif field.is_repeated:
            for position, item in enumerate(value):
                if self._refuses(field.name, [item]):
                    step, problem = self._narrow_one(field, item)
                    return f"[{position}]{step}", problem
        else:
            return self._narrow_one(field, value)
        return "", problem_of(field, value)

    def _narrow_one(self, field: FieldDescriptor, value: Any) -> tuple[str, str]:
        if field.message_type is not None and isinstance(value, dict):  # arguments
            found = self._owner.plan(field.message_type)._fault(value)
            if found is not None:
                return found
        return "", problem_of(field, value)

    def within(self, field: str, value: Any) -> Message:
        """The message with one field set, of which an error's path says nothing."""
        try:
            return self._build(self._arguments({field: value}))
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
            raise MessageError("", f"got {shown(value)}: {error}") from error
        return made

    def of(self, descriptor: Descriptor) -> Plan:
        """The conversion to another type of the same schema."""
        return self._owner.plan(descriptor)

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
            raise MessageError("", f"got {shown(value)}: {error}") from error


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
    elif field.type == _BYTES:
        one = _as_bytes
    return _sequence(one, type_name(field)) if field.is_repeated else one


def _as_bytes(value: Any) -> Any:
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value


class _Later:
    """A nested message's plan, made when the first value comes: types may be recursive."""

    __slots__ = ("_descriptor", "_owner", "_prepare")

    def __init__(self, owner: Converter, descriptor: Descriptor) -> None:
        self._owner = owner
        self._descriptor = descriptor
        self._prepare: Convert | None = None

    def __call__(self, value: Any) -> Any:
        if self._prepare is None:
            self._prepare = self._owner.plan(self._descriptor).prepare
        return self._prepare(value)


def _sequence(one: Convert | None, expected: str) -> Convert:
    def convert(values: Any) -> list[Any]:
        try:
            iterator = None if isinstance(values, _NO_LIST) else iter(values)
        except TypeError:
            iterator = None
        if iterator is None:
            raise refusal(values, f"a list of {expected}")
        if one is None:
            return list(iterator)
        made = []
        for position, value in enumerate(iterator):
            try:
                made.append(one(value))
            except MessageError as error:
                raise error.under(f"[{position}]") from error.__cause__
        return made

    return convert


def _mapping(one: Convert | None) -> Convert:
    def convert(values: Any) -> dict[Any, Any]:
        if not isinstance(values, Mapping):
            raise refusal(values, "a mapping")
        if one is None:
            return dict(values)
        made = {}
        for key, value in values.items():
            try:
                made[key] = one(value)
            except MessageError as error:
                raise error.under(step_to(key)) from error.__cause__
        return made

    return convert
