"""The options of an element, as the settings that a .proto file has for them.

An option's bytes are read with the schema's own extensions. What is not known to the schema, or has
no .proto text, becomes a remark in place of a setting. Names of what a pool has built are
identifiers: upb builds nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from dynserve.errors import DescriptorError
from dynserve.schema.descriptors import message_class

from .literals import Type, braced, scalar
from .names import Names
from .source import Path

if TYPE_CHECKING:
    from dynserve.schema.schema import Schema

__all__ = ["OptionTexts", "Setting"]

_UNINTERPRETED = 999  # what only a parser knows of an option, before it is looked up


class Setting(NamedTuple):
    """One option: what stands on both sides of the ``=``.

    ``path`` is where it is from the options message on.
    """

    name: str
    lines: Sequence[str]
    path: Path

    def text(self) -> list[str]:
        """The whole, line by line."""
        return [f"{self.name} = {self.lines[0]}", *self.lines[1:]]


class _Found(NamedTuple):
    settings: list[Setting]
    remarks: list[str]


class _Place(NamedTuple):
    """What is in front of a part of an option's name, where that is, and of which element."""

    prefix: str
    path: Path
    scope: str


class _MapEntry(NamedTuple):
    key: Any
    value: Any


class _NoTextError(ValueError):
    """A value that no .proto file can set."""


class OptionTexts:
    """Writes the options of the elements of one file."""

    def __init__(self, schema: Schema, names: Names) -> None:
        self._schema = schema
        self._names = names

    def read(self, options: Message, scope: str) -> tuple[list[Setting], list[str]]:
        """The settings that make these options, and a remark for each that cannot be set.

        Args:
            options: as it stands in the descriptor.
            scope: the full name of the element.

        Raises:
            DescriptorError: the bytes of an option do not fit its type.
        """
        found = _Found([], [])
        if options.ByteSize():
            known = self._known(options, scope)
            found.remarks.extend(
                f"option {path} is not known to the schema" for path in _unknown(known)
            )
            for field, value in known.ListFields():
                if field.number == _UNINTERPRETED:
                    found.remarks.append("an option was not looked up by what made this file")
                else:
                    self._add(found, _Place("", (), scope), field, value)
        return found.settings, list(dict.fromkeys(found.remarks))

    def _known(self, options: Message, element: str) -> Message:
        """The same options with every extension that the schema knows."""
        name = options.DESCRIPTOR.full_name
        known = self._schema.has_message(name)
        own = self._schema.message(name) if known else message_class(name.rpartition(".")[2])
        try:
            message: Message = own.FromString(options.SerializeToString())
        except DecodeError as error:
            raise DescriptorError(element, f"damaged options: {error}") from error
        return message

    def _add(self, found: _Found, place: _Place, field: Any, value: Any) -> None:
        name = place.prefix + self._part(field, place.scope)
        path = (*place.path, field.number)
        is_feature = bool(place.prefix) or (field.name == "features" and not field.is_extension)
        is_plain = not (is_feature and _is_message(field) and value.ByteSize())
        if is_plain or not self._is_imported(field):
            self._set(found, name, path, field, value)
            return
        for inner, item in value.ListFields():
            self._add(found, _Place(f"{name}.", path, place.scope), inner, item)

    def _set(self, found: _Found, name: str, path: Path, field: Any, value: Any) -> None:
        items = [(path, value)]
        if field.is_repeated:
            items = [((*path, number), item) for number, item in enumerate(value)]
        for item_path, item in items:
            try:
                found.settings.append(Setting(name, self._value(field, item), item_path))
            except _NoTextError as error:
                found.remarks.append(f"option {name} cannot be set: {error}")

    def _part(self, field: Any, scope: str) -> str:
        """A part of an option's name."""
        if not field.is_extension:
            return str(field.name)
        return f"({self._names.option(field.full_name, scope)})"

    def _is_imported(self, field: Any) -> bool:
        return not field.is_extension or self._names.sees(field.file.name)

    def _check_imported(self, field: Any) -> None:
        if not self._is_imported(field):
            raise _NoTextError(f"the file that declares {field.full_name} is not imported")

    def _value(self, field: Any, value: Any) -> list[str]:
        """The lines of what an option is set to."""
        self._check_imported(field)
        if field.message_type is not None:
            return self._message(value)
        if field.type == Type.ENUM and value not in field.enum_type.values_by_number:
            raise _NoTextError(f"its enum has no name for {value}")
        return [scalar(field, value)]

    def _message(self, message: Any) -> list[str]:
        scope = message.DESCRIPTOR.full_name
        entries: list[list[str]] = []
        for field, value in message.ListFields():
            key = self._key(field, scope)
            entries += [self._entry(key, field, item) for item in _items(field, value)]
        return braced(entries)

    def _key(self, field: Any, scope: str) -> str:
        """What a field of a message is called in text format; no name has a dot in front there."""
        if not field.is_extension:
            return str(field.name)
        self._check_imported(field)
        if not self._names.is_clear(field.full_name, scope):
            raise _NoTextError(f"the name {field.full_name} means something else in {scope}")
        return f"[{field.full_name}]"

    def _entry(self, key: str, field: Any, value: Any) -> list[str]:
        """The lines of a field of a message in text format.

        An Any keeps its bytes: the type in it need not be known to what reads the text.
        """
        if isinstance(value, _MapEntry):
            parts = field.message_type.fields_by_name
            items = value._asdict().items()  # key and value, as they are called in the type
            lines = braced([self._entry(name, parts[name], item) for name, item in items])
        elif field.message_type is None:
            return [f"{key}: {scalar(field, value)}"]
        else:
            lines = self._message(value)
        return [f"{key} {lines[0]}", *lines[1:]]


def _is_message(field: Any) -> bool:
    return field.message_type is not None and not field.is_repeated


def _items(field: Any, value: Any) -> Sequence[Any]:
    """The values of a field, each of which is an entry in text format."""
    if not field.is_repeated:
        return [value]
    if hasattr(value, "GetEntryClass"):  # a map, in no order of its own
        return [_MapEntry(key, value[key]) for key in sorted(value)]
    return list(value)


def _unknown(message: Any) -> Iterator[str]:
    """The paths of fields that are in the bytes of a message and not in its type."""
    unknown = UnknownFieldSet(message)
    for index in range(len(unknown)):
        yield str(unknown[index].field_number)
    for field, value in message.ListFields():
        name = field.full_name if field.is_extension else field.name
        for item in _items(field, value):
            inner = item.value if isinstance(item, _MapEntry) else item
            if isinstance(inner, Message):
                yield from (f"{name}.{path}" for path in _unknown(inner))
