"""The messages of descriptor.proto, in a pool that holds nothing else.

protobuf's generated classes for them live in the process's default pool and parse options with the
extensions that any imported ``_pb2`` module has registered there. A schema whose own custom options
have the same numbers and other types could then not even be read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, message_factory

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

__all__ = ["join", "message_class", "parse_file"]


@functools.cache
def message_class(name: str) -> Any:
    """The class of a message of descriptor.proto: ``"MethodOptions"``."""
    return _classes()[f"google.protobuf.{name}"]


@functools.cache
def _classes() -> dict[str, Any]:
    """All of them: see ``LazyPool`` for why somebody has to hold them."""
    from google.protobuf import descriptor_pb2  # not when dynserve is imported

    pool = descriptor_pool.DescriptorPool()
    file: Any = pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    todo, classes = list(file.message_types_by_name.values()), {}
    while todo:
        message = todo.pop()
        classes[message.full_name] = message_factory.GetMessageClass(message)
        todo += message.nested_types
    return classes


def parse_file(data: bytes) -> FileDescriptorProto:
    """A serialised ``FileDescriptorProto``; custom options stay unknown fields.

    Raises:
        google.protobuf.message.DecodeError: it is damaged.
    """
    file: FileDescriptorProto = message_class("FileDescriptorProto").FromString(data)
    return file


def join(files: Iterable[bytes]) -> bytes:
    """Serialised files as a serialised ``FileDescriptorSet``, byte for byte."""
    made = message_class("FileDescriptorSet")()
    for data in files:
        made.file.add().MergeFromString(data)
    return bytes(made.SerializeToString())
