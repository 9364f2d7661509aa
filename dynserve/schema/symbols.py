"""Every full name that a .proto file defines, those inside messages, enums and services too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        EnumDescriptorProto,
        FileDescriptorProto,
    )

__all__ = ["symbols_of"]


def symbols_of(file: FileDescriptorProto) -> Iterator[str]:
    """The full names of messages, fields, oneofs, enums, values, extensions, services, methods."""
    scope = f"{file.package}." if file.package else ""
    for message in file.message_type:
        yield from _in_message(scope, message)
    for enum in file.enum_type:
        yield from _in_enum(scope, enum)
    for extension in file.extension:
        yield scope + extension.name
    for service in file.service:
        yield scope + service.name
        for method in service.method:
            yield f"{scope}{service.name}.{method.name}"


def _in_message(scope: str, message: DescriptorProto) -> Iterator[str]:
    yield scope + message.name
    inner = f"{scope}{message.name}."
    for group in (message.field, message.oneof_decl, message.extension):
        for item in group:
            yield inner + item.name
    for enum in message.enum_type:
        yield from _in_enum(inner, enum)
    for nested in message.nested_type:
        yield from _in_message(inner, nested)


def _in_enum(scope: str, enum: EnumDescriptorProto) -> Iterator[str]:
    """An enum's values are its siblings, as in C++; some clients look for them inside it."""
    yield scope + enum.name
    for value in enum.value:
        yield scope + value.name
        yield f"{scope}{enum.name}.{value.name}"
