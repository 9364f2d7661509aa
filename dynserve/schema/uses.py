"""The types that a .proto file uses, wherever they are declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        FieldDescriptorProto,
        FileDescriptorProto,
    )

__all__ = ["Use", "uses_of"]

_ENUM = 14  # FieldDescriptorProto.TYPE_ENUM


class Use(NamedTuple):
    """A type by its name as it stands in the file, and the scope that it is looked up in.

    A name that begins with a dot is a full one. protoc writes only those; other tools do not.
    """

    scope: str
    name: str
    is_enum: bool

    @property
    def full_name(self) -> str:
        """The name, as it is where no scope has it."""
        return self.name.removeprefix(".")

    def meanings(self) -> Iterator[str]:
        """The full names that it may stand for, the innermost scope's first.

        https://protobuf.dev/programming-guides/proto3/#name-resolution
        """
        scope = "" if self.name.startswith(".") else self.scope
        while scope:
            yield f"{scope}.{self.name}"
            scope = scope.rpartition(".")[0]
        yield self.full_name


def uses_of(file: FileDescriptorProto) -> Iterator[Use]:
    """Every use of a type: by fields, extensions and methods."""
    yield from _of_fields(file.package, file.extension)
    yield from _in_messages(file.package, file.message_type)
    for service in file.service:
        for method in service.method:
            yield Use(file.package, method.input_type, is_enum=False)
            yield Use(file.package, method.output_type, is_enum=False)


def _in_messages(scope: str, messages: Iterable[DescriptorProto]) -> Iterator[Use]:
    for message in messages:
        inner = f"{scope}.{message.name}".removeprefix(".")
        yield from _of_fields(inner, message.field)
        yield from _of_fields(inner, message.extension)
        yield from _in_messages(inner, message.nested_type)


def _of_fields(scope: str, fields: Iterable[FieldDescriptorProto]) -> Iterator[Use]:
    for field in fields:
        if field.type_name:
            yield Use(scope, field.type_name, is_enum=field.type == _ENUM)
        if field.extendee:
            yield Use(scope, field.extendee, is_enum=False)
