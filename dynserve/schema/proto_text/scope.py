"""What declares types, fields and extensions: the file, or a message in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .names import join
from .source import Path

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

__all__ = ["Scope"]


class Scope(NamedTuple):
    """A file or a message, its full name, and where it is.

    ``types`` are the message types in it. The numbers are those of its lists, by
    google/protobuf/descriptor.proto.
    """

    holder: Any
    name: str
    path: Path
    types: Sequence[DescriptorProto]
    types_number: int
    enum_number: int
    extension_number: int

    @classmethod
    def of_file(cls, file: FileDescriptorProto) -> Scope:
        """The outermost one."""
        return cls(file, file.package, (), file.message_type, 4, 5, 7)

    def inner(self, index: int) -> Scope:
        """That of a message type in this one."""
        message = self.types[index]
        path = (*self.path, self.types_number, index)
        return Scope(message, join(self.name, message.name), path, message.nested_type, 3, 4, 6)
