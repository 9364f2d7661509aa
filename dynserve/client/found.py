"""Files that a server tells of, until they are whole and can be added to a schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from dynserve.schema.descriptors import parse_file
from dynserve.schema.field_names import entry_name
from dynserve.schema.symbols import symbols_of
from dynserve.schema.uses import Use, uses_of

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

    from dynserve.schema.index import Index

__all__ = ["WELL_KNOWN", "ChangedError", "FoundFiles", "TooMuchError"]

WELL_KNOWN = "google.protobuf"
MAX_BYTES = 100 << 20  # of files at a time; all of googleapis is 20 MiB
MAX_STEPS = 1_000_000  # that following imports may take
_WELL_KNOWN_FOLDER = "google/protobuf/"
# Custom options of a file are in what it imports; its messages are asked for by nobody else.
_OPTIONS_FILE = "google/protobuf/descriptor.proto"


class TooMuchError(Exception):
    """What a server tells has no end in sight."""


class ChangedError(Exception):
    """A file is not what it was when it was first told of."""


class FoundFiles:
    """New files, and what they need that neither they nor the index of the schema have.

    ``seen`` has what was told of each file so far, by its name, to know it again.
    """

    def __init__(self, index: Index, seen: dict[str, int]) -> None:
        self._index = index
        self._seen = seen
        self._bytes = self._steps = 0
        self._files: dict[str, FileDescriptorProto] = {}
        self._data: dict[str, bytes] = {}
        self._declared: dict[str, str] = {}  # symbol → file
        self._uses: dict[str, list[Use]] = {}  # by file

    def __bool__(self) -> bool:
        return bool(self._files)

    def told(self, files: Iterable[bytes]) -> None:
        """Take serialised files as a server tells of them, but for those that are there.

        Well-known types in a file of another name than theirs, as servers on Node have them, are
        passed over: what such a server tells of them is not what they are.

        Raises:
            google.protobuf.message.DecodeError: one is damaged.
            ChangedError: one of that name was told of before, and was another.
            TooMuchError: there are too many.
        """
        for data in files:
            file = parse_file(data)
            if not file.name:
                raise DecodeError("a file has no name")
            if file.package == WELL_KNOWN and not file.name.startswith(_WELL_KNOWN_FOLDER):
                continue
            if self._seen.setdefault(file.name, hash(data)) != hash(data):
                raise ChangedError(file.name)
            self.add([data])

    def add(self, files: Iterable[bytes]) -> None:
        """Take serialised files, but for those that are there."""
        for data in files:
            file = parse_file(data)
            if file.name in self._files or file.name in self._index.files:
                continue
            self._bytes += len(data)
            if self._bytes > MAX_BYTES:
                raise TooMuchError
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

    def declares(self, symbol: str) -> bool:
        """Whether it is in one of these files, or in one that the index has."""
        if symbol in self._declared:
            return True
        home = self._index.file_of(symbol)
        return home is not None and symbol in symbols_of(parse_file(self._index.stripped(home)))

    def neighbours(self, symbol: str) -> list[str]:
        """What else is declared in the message, enum or service that the symbol would be in."""
        home = self._index.file_of(symbol)
        stripped = None if home is None else self._index.stripped(home)
        declared = [*self._declared, *(symbols_of(parse_file(stripped)) if stripped else ())]
        scope = symbol[: symbol.rfind(".") + 1]
        return [one for one in declared if one.startswith(scope)]

    def stands_for(self, types: Iterable[str]) -> bool:
        """Whether these files declare one of the types."""
        return any(name in self._declared for name in types)

    def extendable(self) -> Iterator[str]:
        """The message types in it that can have extensions."""
        for file in self._files.values():
            if file.name != _OPTIONS_FILE:
                scope = f"{file.package}." if file.package else ""
                yield from _extendable(scope, file.message_type)

    def link(self) -> None:
        """Have each file import what declares its types: not every server tells of imports.

        Raises:
            TooMuchError: the files import one another without end.
        """
        for name, file in self._files.items():
            homes = {home for use in self._uses[name] if (home := self._home(use)) is not None}
            homes -= {name, *file.dependency}
            added = sorted(homes - self._public(file)) if homes else []
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

    def _public(self, file: FileDescriptorProto) -> set[str]:
        """What the file sees through the public imports of what it imports."""
        seen: set[str] = set()
        todo = list(file.dependency)
        while todo:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise TooMuchError
            other = self._parsed(todo.pop())
            if other is not None:
                new = {other.dependency[position] for position in other.public_dependency} - seen
                seen |= new
                todo += new
        return seen

    def _parsed(self, name: str) -> FileDescriptorProto | None:
        if name in self._files:
            return self._files[name]
        if name in self._index.files:
            return parse_file(self._index.stripped(name))
        return None


def _name_entries(scope: str, messages: Iterable[DescriptorProto]) -> bool:
    """Give the entries of maps the names that they must have; whether any had another.

    Servers on Node name an entry after its field, ``Copies``, and no compiler takes that.
    https://protobuf.dev/programming-guides/proto3/#backwards
    """
    is_changed = False
    for message in messages:
        full_name = f"{scope}.{message.name}".removeprefix(".")
        entries = {
            meant: entry
            for entry in message.nested_type
            if entry.options.map_entry
            for meant in (entry.name, f"{message.name}.{entry.name}", f".{full_name}.{entry.name}")
        }
        for field in message.field:
            entry = entries.get(field.type_name)
            if entry is not None and entry.name != (expected := entry_name(field.name)):
                entry.name = expected
                field.type_name = f".{full_name}.{expected}"
                is_changed = True
        is_changed |= _name_entries(full_name, message.nested_type)
    return is_changed


def _extendable(scope: str, messages: Iterable[DescriptorProto]) -> Iterator[str]:
    for message in messages:
        if message.extension_range:
            yield scope + message.name
        yield from _extendable(f"{scope}{message.name}.", message.nested_type)
