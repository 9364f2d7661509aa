"""What types and options are called in a file, so that protoc finds the very same ones.

A name is looked up from the innermost scope outwards, and its first part decides: where a scope has
something of that name, no scope further out is asked.
https://protobuf.dev/programming-guides/proto3/#name-resolution
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dynserve.schema.descriptors import parse_file
from dynserve.schema.field_names import SCALARS
from dynserve.schema.symbols import symbols_of

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        EnumDescriptorProto,
        FileDescriptorProto,
    )

    from dynserve.schema.index import Index

__all__ = ["FullNames", "Names", "join"]

# Where a statement or a type may begin, these are taken for what they are to the language.
_KEYWORDS = frozenset(SCALARS.values()) | {
    *("enum", "export", "extend", "extensions", "group", "local", "map", "message", "oneof"),
    *("option", "optional", "repeated", "required", "reserved", "returns", "rpc", "stream"),
}


def join(scope: str, name: str) -> str:
    """The full name of what a scope declares."""
    return f"{scope}.{name}" if scope else name


class Names:
    """The names that are used in one file, for what the files that it sees declare."""

    def __init__(self, index: Index, file: FileDescriptorProto) -> None:
        self._index = index
        self._package = file.package
        self._visible = {file.name: file, **_imported(index, file)}
        self._own_types = dict(_types_of(file.package, file.message_type, file.enum_type))
        # What can have something inside decides for names with dots, anything for those without.
        self._holders = set(self._own_types)
        self._symbols = set(symbols_of(file))
        for each in self._visible.values():
            values = (value for enum in each.enum_type for value in enum.value)
            others: list[Any] = [*each.extension, *values]
            self._symbols.update(join(each.package, item.name) for item in others)
            holders: list[Any] = [*each.message_type, *each.enum_type, *each.service]
            self._holders.update(join(each.package, item.name) for item in holders)
            self._holders.update(_outwards(each.package))
        self._symbols |= self._holders

    def resolve(self, name: str, scope: str) -> str:
        """The full name of a type that the descriptor of something in ``scope`` names."""
        if name.startswith("."):
            return name[1:]
        first = name.partition(".")[0]
        outers = (o for o in _outwards(scope) if join(o, first) in self._holders)
        return join(next(outers, ""), name)

    def position(self, full_name: str) -> int | None:
        """Which of the message types beside it is the one of this name, if it is of this file."""
        return self._own_types.get(full_name)

    def exists(self, full_name: str) -> bool:
        """Whether a type may be there: a file of the schema declares its outermost part."""
        return self._index.file_of(full_name) is not None

    def sees(self, file: str) -> bool:
        """Whether the file is this one, or is imported by it."""
        return file in self._visible

    def type(self, full_name: str, scope: str) -> str:
        """What a type is called in ``scope``: short if it is of the same package, and if it can be.

        What it is called here may not begin with a keyword, and nothing may hide it.
        """
        for name in self._candidates(full_name):
            is_keyword = name.partition(".")[0] in _KEYWORDS
            if not is_keyword and self._is_found(name, full_name, scope):
                return name
        return f".{full_name}"

    def option(self, full_name: str, scope: str) -> str:
        """What an extension is called between the parentheses of an option's name."""
        return full_name if self.is_clear(full_name, scope) else f".{full_name}"

    def is_clear(self, full_name: str, scope: str) -> bool:
        """Whether a full name without a dot in front means the same in ``scope``."""
        return self._is_found(full_name, full_name, scope)

    def _candidates(self, full_name: str) -> Iterator[str]:
        file = self._visible.get(self._index.file_of(full_name) or "")
        if file is not None and file.package == self._package:
            parts = full_name[len(self._package) :].lstrip(".").split(".")
            for count in range(1, len(parts) + 1):
                yield ".".join(parts[-count:])
        yield full_name

    def _is_found(self, name: str, full_name: str, scope: str) -> bool:
        """Whether ``name`` leads to ``full_name`` from ``scope``.

        Anything hides a name without a dot here, though protoc passes over most of what is no type.
        """
        first, dot, _ = name.partition(".")
        hiding = self._holders if dot else self._symbols
        outers = (outer for outer in _outwards(scope) if join(outer, first) in hiding)
        return join(next(outers, ""), name) == full_name


class FullNames(Names):
    """Full names for everything: what is printed is read by itself, not compiled."""

    def sees(self, file: str) -> bool:
        """Any file of the schema."""
        return True

    def type(self, full_name: str, scope: str) -> str:
        """The full name."""
        return full_name

    def is_clear(self, full_name: str, scope: str) -> bool:
        """It is always meant as a full name."""
        return True


def _outwards(scope: str) -> Iterator[str]:
    """The scope and those around it, the innermost first and the one without a name last."""
    while scope:
        yield scope
        scope = scope.rpartition(".")[0]
    yield ""


def _imported(index: Index, file: FileDescriptorProto) -> dict[str, FileDescriptorProto]:
    """The files that a file sees: its imports, and what these import publicly."""
    found: dict[str, FileDescriptorProto] = {}
    todo = [*file.dependency, *file.option_dependency]
    while todo:
        name = todo.pop()
        if name not in found and name in index.files:
            found[name] = imported = parse_file(index.stripped(name))
            # of a file that no compiler made a position may lead nowhere
            public = set(imported.public_dependency)
            todo += [other for n, other in enumerate(imported.dependency) if n in public]
    return found


def _types_of(
    scope: str, messages: Iterable[DescriptorProto], enums: Iterable[EnumDescriptorProto]
) -> Iterator[tuple[str, int | None]]:
    """The full names of types, and where among those beside it a message type is."""
    yield from ((join(scope, enum.name), None) for enum in enums)
    for index, message in enumerate(messages):
        name = join(scope, message.name)
        yield name, index
        yield from _types_of(name, message.nested_type, message.enum_type)
