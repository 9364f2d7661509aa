"""A field's declaration as text: label, type, name, number, and what is in brackets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynserve.errors import DescriptorError
from dynserve.schema.field_names import SCALARS, entry_name, json_name

from .literals import (
    Type,
    bracketed,
    default_value,
    is_full_name,
    is_identifier,
    quote,
)
from .names import Names, join
from .options import OptionTexts
from .scope import Scope

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

__all__ = ["FieldTexts"]

_REQUIRED, _REPEATED = 2, 3  # FieldDescriptorProto.Label


class FieldTexts:
    """Writes the declarations of the fields and extensions of one file.

    Every name comes from the descriptor, which may come from anyone: what is not an identifier is
    refused, so that no name can be more than a name.
    """

    def __init__(self, file: FileDescriptorProto, names: Names, options: OptionTexts) -> None:
        self._file = file.name
        self._syntax = file.syntax or "proto2"
        self._names = names
        self._options = options

    def identifier(self, name: str) -> str:
        """The name of an element; DescriptorError if it is none."""
        if not is_identifier(name):
            raise DescriptorError(self._file, f"{name!r} cannot be a name in a .proto file")
        return name

    def reference(self, name: str, scope: str) -> str:
        """What the type that a descriptor calls ``name`` is called in the text of ``scope``."""
        full_name = self._resolved(name, scope)
        if not self._names.exists(full_name):
            raise DescriptorError(self._file, f"the type {full_name!r} is not in the schema")
        return self._names.type(full_name, scope)

    def reserved_names(self, names: Sequence[str]) -> list[str]:
        """Names that may not be used again: identifiers since editions, once strings."""
        return [self.identifier(n) if self._syntax == "editions" else quote(n) for n in names]

    def is_group(self, field: FieldDescriptorProto) -> bool:
        """Whether one declaration is both the field and its type; editions have a feature."""
        return field.type == Type.GROUP and self._syntax != "editions"

    def in_oneof(self, field: FieldDescriptorProto) -> bool:
        """Whether the field stands in a ``oneof``; proto3's ``optional`` only looks like it."""
        return field.HasField("oneof_index") and not field.proto3_optional

    def made_by(self, scope: Scope, field: FieldDescriptorProto) -> int | None:
        """Which type in the field's scope its own declaration makes: a group, or a map's entry."""
        if _is_scalar(field) or field.type == Type.ENUM:
            return None
        full_name = self._resolved(field.type_name, scope.name)
        outer, _, name = full_name.rpartition(".")
        made = self._names.position(full_name) if outer == scope.name else None
        message = None if made is None else scope.types[made]
        if self.is_group(field):
            if message is None or message.name.lower() != field.name or message.name == field.name:
                problem = f"the group {field.name!r} has a type that its declaration cannot make"
                raise DescriptorError(self._file, problem)
            return made
        is_entry = message is not None and message.options.map_entry
        is_map = field.label == _REPEATED and not field.HasField("extendee")
        return made if is_entry and is_map and name == entry_name(field.name) else None

    def lines(self, scope: Scope, field: FieldDescriptorProto) -> list[str]:
        """The declaration without the sign that ends it, or the body of a group."""
        made = self.made_by(scope, field)
        name = self.identifier(field.name)
        if made is None:
            kind = self._label(field) + self._type(field, scope.name)
        elif self.is_group(field):
            kind = f"{self._label(field)}group"
            name = self.identifier(scope.types[made].name)
        else:
            entry = scope.inner(made)
            key, value = (self._type(each, entry.name) for each in self._entry(entry))
            kind = f"map<{key}, {value}>"
        settings, remarks = self._options.read(field.options, join(scope.name, field.name))
        entries = [*self._own_options(field), *(setting.text() for setting in settings)]
        return bracketed(f"{kind} {name} = {field.number}", entries, remarks)

    def _resolved(self, name: str | bytes, scope: str) -> str:
        if not (isinstance(name, str) and is_full_name(name.removeprefix("."))):
            raise DescriptorError(self._file, f"{name!r} cannot be a type's name in a .proto file")
        return self._names.resolve(name, scope)

    def _entry(self, entry: Scope) -> tuple[FieldDescriptorProto, FieldDescriptorProto]:
        """The key and the value of a map."""
        fields = {field.number: field for field in entry.holder.field}
        if fields.keys() != {1, 2}:
            raise DescriptorError(self._file, f"{entry.name!r} is not the entry of a map")
        return fields[1], fields[2]

    def _label(self, field: FieldDescriptorProto) -> str:
        if self.in_oneof(field):
            return ""
        if field.label == _REPEATED:
            return "repeated "
        match self._syntax:
            case "proto2":
                return "required " if field.label == _REQUIRED else "optional "
            case "proto3":
                if field.label == _REQUIRED or field.type == Type.GROUP:
                    problem = f"{field.name!r} is required or a group, which proto3 does not have"
                    raise DescriptorError(self._file, problem)
                return "optional " if field.proto3_optional else ""
        return ""  # editions have features in place of labels

    def _type(self, field: FieldDescriptorProto, scope: str) -> str:
        if _is_scalar(field):
            return SCALARS[field.type]
        return self.reference(field.type_name, scope)

    def _own_options(self, field: FieldDescriptorProto) -> list[list[str]]:
        """Those that are written as options and are none: they stand in the field itself."""
        found = []
        if field.HasField("default_value"):
            # without a type, the name of one stands for an enum's: a message has no default
            field_type = field.type if field.HasField("type") else Type.ENUM
            try:
                found.append([f"default = {default_value(field.default_value, field_type)}"])
            except ValueError as error:
                problem = f"the default of {field.name!r}: {error}"
                raise DescriptorError(self._file, problem) from error
        is_derived = field.HasField("extendee") or field.json_name == json_name(field.name)
        if field.HasField("json_name") and not is_derived:
            found.append([f"json_name = {quote(field.json_name)}"])
        return found


def _is_scalar(field: FieldDescriptorProto) -> bool:
    """What has no type has the name of one instead."""
    return field.HasField("type") and field.type in SCALARS
