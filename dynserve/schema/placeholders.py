"""Files that stand in for ones that are missing, so that the rest of a schema can be built.

A server may not tell of a file that another one imports. What the missing file declares is known
only by its uses: each type that is used and nowhere declared is declared here with nothing in it.
Its messages can be parsed, and written as they came; all that is in them is unknown fields.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .descriptors import message_class
from .symbols import symbols_of

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        FieldDescriptorProto,
        FileDescriptorProto,
    )

    from .index import Index

__all__ = ["placeholders", "undeclared"]

_ENUM = 14  # FieldDescriptorProto.TYPE_ENUM
_END = 536870912  # one past the highest field number


def undeclared(files: Collection[FileDescriptorProto], index: Index) -> dict[str, bool]:
    """The types that the files use and that neither they nor the index declare.

    Returns:
        The full name of each, and whether it is an enum.
    """
    declared = {symbol for file in files for symbol in symbols_of(file)}
    return {
        name.lstrip("."): is_enum
        for file in files
        for scope, name, is_enum in _uses(file)
        if not any(
            one in declared or index.file_of(one) is not None for one in _meanings(scope, name)
        )
    }


def placeholders(
    missing: Iterable[str], types: Mapping[str, bool], homes: Collection[str] = ()
) -> list[bytes]:
    """Files of the names ``missing``, and more that declare ``types`` with nothing in them.

    Args:
        missing: the names of the files that are imported.
        types: as :func:`undeclared` gives them.
        homes: files that turned out to declare what the missing ones should.

    Returns:
        Each serialised as a ``FileDescriptorProto``.
    """
    names = list(missing)
    files = list(_declaring(f"{names[0]}.placeholder", types))
    provided = [*homes, *(file.name for file in files)]
    for name in names:
        file = message_class("FileDescriptorProto")(name=name, dependency=provided)
        file.public_dependency.extend(range(len(provided)))
        files.append(file)
    return [bytes(file.SerializeToString()) for file in files]


def _declaring(prefix: str, types: Mapping[str, bool]) -> Iterator[Any]:
    """A file for the messages of each package, and one for its enums.

    Messages are of proto2, so that they may have extensions, and enums of proto3, so that they take
    any number.
    """
    made: dict[tuple[str, bool], Any] = {}
    messages: dict[str, Any] = {}
    for name, is_enum in sorted(types.items()):  # what holds others comes before them
        package, _, last = name.rpartition(".")
        holder = messages.get(package)
        if holder is None:
            key = package, is_enum
            if key not in made:
                made[key] = message_class("FileDescriptorProto")(
                    name=f"{prefix}/{len(made)}.proto",
                    package=package,
                    syntax="proto3" if is_enum else "proto2",
                )
            holder = made[key]
        if is_enum:
            enum = holder.enum_type.add(name=last)
            enum.value.add(name=f"{last.upper()}_UNKNOWN", number=0)
        else:
            group = holder.nested_type if package in messages else holder.message_type
            messages[name] = group.add(name=last)
            messages[name].extension_range.add(start=1, end=_END)
    yield from made.values()


def _uses(file: FileDescriptorProto) -> Iterator[tuple[str, str, bool]]:
    """Every use of a type: the scope that it is looked up in, the name, whether it is an enum."""
    yield from _uses_of_fields(file.package, file.extension)
    yield from _uses_in(file.package, file.message_type)
    for service in file.service:
        for method in service.method:
            for name in (method.input_type, method.output_type):
                yield file.package, name, False


def _uses_in(scope: str, messages: Iterable[DescriptorProto]) -> Iterator[tuple[str, str, bool]]:
    for message in messages:
        inner = f"{scope}.{message.name}".lstrip(".")
        yield from _uses_of_fields(inner, message.field)
        yield from _uses_of_fields(inner, message.extension)
        yield from _uses_in(inner, message.nested_type)


def _uses_of_fields(
    scope: str, fields: Iterable[FieldDescriptorProto]
) -> Iterator[tuple[str, str, bool]]:
    for field in fields:
        if field.type_name:
            yield scope, field.type_name, field.type == _ENUM
        if field.extendee:
            yield scope, field.extendee, False


def _meanings(scope: str, name: str) -> Iterator[str]:
    """The full names that a name may stand for: one that begins with a dot is full already.

    https://protobuf.dev/programming-guides/proto3/#name-resolution
    """
    if name.startswith("."):
        yield name[1:]
        return
    while scope:
        yield f"{scope}.{name}"
        scope = scope.rpartition(".")[0]
    yield name
