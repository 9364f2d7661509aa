"""Files that a server tells of, until they are whole and can be added to a schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dynserve.schema.descriptors import parse_file
from dynserve.schema.symbols import symbols_of
from dynserve.schema.uses import Use, uses_of

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

    from dynserve.schema.index import Index

__all__ = ["WELL_KNOWN", "FoundFiles"]

WELL_KNOWN = "google.protobuf"
_WELL_KNOWN_FOLDER = "google/protobuf/"
# Custom options of a file are in what it imports; its messages are asked for by nobody else.
_OPTIONS_FILE = "google/protobuf/descriptor.proto"


class FoundFiles:
    """New files, and what they need that neither they nor the index of the schema have."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._files: dict[str, FileDescriptorProto] = {}
        self._data: dict[str, bytes] = {}
        self._declared: dict[str, str] = {}  # symbol → file
        self._uses: dict[str, list[Use]] = {}  # by file

    def __bool__(self) -> bool:
        return bool(self._files)

    def add(self, files: Iterable[bytes]) -> None:
        """Take serialised files, but for those that are there.

        Well-known types in a file of another name than theirs, as servers on Node have them, are
        passed over: what such a server tells of them is not what they are.

        Raises:
            google.protobuf.message.DecodeError: one is damaged.
        """
        for data in files:
            file = parse_file(data)
            is_odd = file.package == WELL_KNOWN and not file.name.startswith(_WELL_KNOWN_FOLDER)
            if is_odd or file.name in self._files or file.name in self._index.files:
                continue
            self._files[file.name] = file
            self._data[file.name] = data
            if _name_entries(file.package, file.message_type):
                self._data[file.name] = file.SerializeToString()
            self._uses[file.name] = list(dict.fromkeys(uses_of(file)))
            for symbol in symbols_of(file):
                self._declared.setdefault(symbol, file.name)

    def missing(self) -> dict[str, list[str]]:
        """What is imported and not there, with those that import it."""
        missing: dict[str, list[str]] = {}
        for name, file in self._files.items():
            for other in (*file.dependency, *file.option_dependency):
                if other not in self._files and other not in self._index.files:
                    missing.setdefault(other, []).append(name)
        return missing

    def undeclared(self) -> list[Use]:
        """The uses of types that are not there."""
        uses = (use for uses in self._uses.values() for use in uses)
        return [use for use in dict.fromkeys(uses) if self._home(use) is None]

    def extendable(self) -> Iterator[str]:
        """The message types in it that can have extensions."""
        for file in self._files.values():
            if file.name != _OPTIONS_FILE:
                scope = f"{file.package}." if file.package else ""
                yield from _extendable(scope, file.message_type)

    def link(self) -> None:
        """Have each file import what declares its types: not every server tells of imports."""
        for name, file in self._files.items():
            homes = {home for use in self._uses[name] if (home := self._home(use)) is not None}
            reached = self._reached(name)
            added = sorted(homes - reached)
            if added:
                file.dependency.extend(added)
                self._data[name] = file.SerializeToString()

    def in_order(self) -> list[bytes]:
        """The files, each after what it imports, so that another thread never sees it without."""
        ordered: dict[str, None] = {}
        begun: set[str] = set()
        todo = [(name, False) for name in reversed(self._files)]
        while todo:
            name, is_done = todo.pop()
            if is_done:
                ordered[name] = None
            elif name in self._files and name not in begun:
                begun.add(name)
                todo.append((name, True))
                todo += [(other, False) for other in reversed(self._files[name].dependency)]
        return [self._data[name] for name in ordered]

    def _home(self, use: Use) -> str | None:
        """The file that declares a type."""
        for symbol in use.meanings():
            home = self._declared.get(symbol) or self._index.file_of(symbol)
            if home is not None:
                return home
        return None

    def _reached(self, name: str) -> set[str]:
        """The file and all that it imports, directly or not."""
        reached = {name}
        todo = [name]
        while todo:
            file = self._files.get(one := todo.pop())
            imports = self._index.dependencies(one) if file is None else file.dependency
            new = set(imports) - reached
            reached |= new
            todo += new
        return reached


def _name_entries(scope: str, messages: Iterable[DescriptorProto]) -> bool:
    """Give the entries of maps the names that they must have; whether any had another.

    Servers on Node name an entry after its field, ``Copies``, and no compiler takes that.
    https://protobuf.dev/programming-guides/proto3/#backwards
    """
    is_changed = False
    for message in messages:
        full_name = f"{scope}.{message.name}".removeprefix(".")
        entries = {one.name: one for one in message.nested_type if one.options.map_entry}
        for field in message.field:
            entry = entries.get(field.type_name.rpartition(".")[2])
            expected = "".join(part[:1].upper() + part[1:] for part in field.name.split("_"))
            if entry is not None and entry.name != f"{expected}Entry":
                entry.name = f"{expected}Entry"
                field.type_name = f".{full_name}.{entry.name}"
                is_changed = True
        is_changed |= _name_entries(full_name, message.nested_type)
    return is_changed


def _extendable(scope: str, messages: Iterable[DescriptorProto]) -> Iterator[str]:
    for message in messages:
        if message.extension_range:
            yield scope + message.name
        yield from _extendable(f"{scope}{message.name}.", message.nested_type)
