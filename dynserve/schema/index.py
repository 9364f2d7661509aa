"""Which file of a descriptor set holds what, without building any of it.

The set stays as it is, bytes, possibly mapped from disk; only names are taken out. Top-level
symbols are kept (an inner one is found through the outermost), and extensions by what they extend.
Source locations are most of a compiled set and are only wanted for comments, so they are cut off
before a file is parsed for its names or built.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from google.protobuf.message import DecodeError

from dynserve.errors import DescriptorError

from .cache import pack, unpack
from .descriptors import parse_file
from .field_names import json_name

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

__all__ = ["Index"]

# Field numbers of google/protobuf/descriptor.proto.
_SET_FILE, _FILE_SOURCE_INFO, _OPTION_IMPORT = 1, 9, 15
# Every protobuf release has its own descriptor.proto, and every set carries the one it was made
# with. They only ever grow and what reads them here needs no part of them, so the first will do.
_WELL_KNOWN = "google/protobuf/"
_NOT_UTF8 = "a name in it is not UTF-8"
_FIRST_EXTENSION = 1000  # of FileDescriptorProto: buf notes down facts of its own about a file


class Extension(NamedTuple):
    """Where an extension is defined: its full name and the file."""

    name: str
    file: str


class Index:
    """Files, symbols and extensions of the sets that were added.

    A file that comes a second time is passed over when it is the same, and refused when it is not.
    """

    def __init__(self) -> None:
        self.services: dict[str, str] = {}  # full name → file
        self._files: dict[str, bytes | memoryview] = {}
        self._dependencies: dict[str, list[str]] = {}
        self._stored_symbols: memoryview | None = None
        self._extensions: dict[str, dict[int, Extension]] = {}  # extendee → number → where

    def add_set(self, label: str, data: bytes | memoryview) -> list[str]:
        """Index a serialised ``FileDescriptorSet``.

        Returns:
            The names of the files in it, those included that were known.

        Raises:
            DescriptorError: it is damaged, or has another file of a name that is known.
        """
        names = []
        try:
            for number, value in _fields(memoryview(data)):
                if number == _SET_FILE and value is not None:
                    names.append(self._add_file(value))
        except (DecodeError, _WireError) as error:
            raise DescriptorError(label, f"not a descriptor set, or damaged: {error}") from error
        except TypeError as error:  # a name came as bytes, which is what protobuf makes of it
            raise DescriptorError(
                label, f"not a descriptor set, or damaged: {_NOT_UTF8}"
            ) from error
        except _ConflictError as error:
            raise DescriptorError(label, str(error)) from error
        if not names:
            raise DescriptorError(label, "the descriptor set has no file in it")
        return names

    def snapshot(self, data: bytes) -> tuple[bytes, bytes]:
        """What :meth:`restore` needs for this index of the one set ``data``: names, symbols."""
        spans = _spans(memoryview(data))
        places = ((content, end) for number, _, end, content in spans if number == _SET_FILE)
        files = [
            (name, *place, imported)
            for (name, imported), place in zip(self._dependencies.items(), places, strict=True)
        ]
        extensions = {
            extendee: {number: tuple(where) for number, where in numbered.items()}
            for extendee, numbered in self._extensions.items()
        }
        names = pack((files, self.services, extensions))
        return names, pack(self._symbols)

    def restore(self, names: memoryview, symbols: memoryview, data: memoryview) -> None:
        """Be the index, empty until now, that gave this :meth:`snapshot` of the set ``data``."""
        files, self.services, extensions = unpack(names)
        for name, begin, end, imported in files:
            self._files[name] = data[begin:end]
            self._dependencies[name] = imported
        for extendee, numbered in extensions.items():
            self._extensions[extendee] = {n: Extension(*where) for n, where in numbered.items()}
        self._stored_symbols = symbols

    @functools.cached_property
    def _symbols(self) -> dict[str, str]:
        """Top-level full name → file; a server may never ask."""
        stored = self._stored_symbols
        symbols: dict[str, str] = {} if stored is None else unpack(stored)
        return symbols

    def missing(self) -> dict[str, list[str]]:
        """Files that are imported but not there, each with those that import it."""
        missing: dict[str, list[str]] = {}
        for name, dependencies in self._dependencies.items():
            for dependency in dependencies:
                if dependency not in self._files:
                    missing.setdefault(dependency, []).append(name)
        return missing

    @property
    def files(self) -> Collection[str]:
        """The names of all files, in the order of the sets."""
        return self._files.keys()

    def raw(self, file: str) -> bytes:
        """The serialised ``FileDescriptorProto`` as it came, with its source locations.

        Raises:
            KeyError: there is no such file.
        """
        return bytes(self._files[file])

    def stripped(self, file: str) -> bytes:
        """The same without source locations."""
        return _without_source_info(memoryview(self._files[file]))

    def dependencies(self, file: str) -> list[str]:
        """What the file imports, ``import option`` not included."""
        return self._dependencies[file]

    def option_dependencies(self, file: str) -> list[str]:
        """What the file imports with edition 2024's ``import option``."""
        fields = _fields(memoryview(self._files[file]))
        return [str(v, "utf-8") for n, v in fields if n == _OPTION_IMPORT and v is not None]

    def with_imports(self, files: Iterable[str]) -> list[str]:
        """The files and all that they import, each after its own imports."""
        found: set[str] = set()
        todo = list(files)
        while todo:
            file = todo.pop()
            if file not in found:
                found.add(file)
                options = (name for name in self.option_dependencies(file) if name in self.files)
                todo += [*self.dependencies(file), *options]
        return [file for file in self.files if file in found]

    def file_of(self, symbol: str) -> str | None:
        """The file that could define the symbol: it defines its outermost part."""
        if symbol in self.services:
            return self.services[symbol]
        while symbol:
            file = self._symbols.get(symbol)
            if file is not None:
                return file
            symbol = symbol.rpartition(".")[0]
        return None

    def symbols(self) -> Iterable[str]:
        """The full names of all top-level symbols."""
        return self._symbols.keys()

    def extensions(self, extendee: str) -> dict[int, Extension]:
        """The extensions of a message type by number."""
        return self._extensions.get(extendee, {})

    def _add_file(self, data: memoryview) -> str:
        file = parse_file(_without_source_info(data))
        names: list[object] = [file.package, file.name, *file.dependency, *file.option_dependency]
        if not all(isinstance(name, str) for name in names):
            raise _WireError(_NOT_UTF8)
        known = self._files.get(file.name)
        if known is not None:
            if not (file.name.startswith(_WELL_KNOWN) or _same(memoryview(known), data)):
                raise _ConflictError(f"{file.name!r} is there already, with other content")
            return file.name
        symbols = dict.fromkeys(_top_level(file), file.name)
        for symbol in symbols:
            other = self._symbols.get(symbol)
            if other is not None:
                raise _ConflictError(f"{symbol!r} is defined in {other!r} and in {file.name!r}")
        self._symbols.update(symbols)  # of a file that is refused, none is known
        self._files[file.name] = data
        self._dependencies[file.name] = [sys.intern(name) for name in file.dependency]
        prefix = f"{file.package}." if file.package else ""
        for service in file.service:
            self.services[prefix + service.name] = file.name
        self._add_extensions(file, prefix)
        return file.name

    def _add_extensions(self, file: FileDescriptorProto, prefix: str) -> None:
        scopes: list[tuple[str, FileDescriptorProto | DescriptorProto]] = [(prefix, file)]
        while scopes:
            scope, holder = scopes.pop()
            for extension in holder.extension:
                known = self._extensions.setdefault(extension.extendee.lstrip("."), {})
                known[extension.number] = Extension(scope + extension.name, file.name)
            inner = holder.nested_type if hasattr(holder, "nested_type") else holder.message_type
            scopes += [(f"{scope}{message.name}.", message) for message in inner]


class _WireError(ValueError):
    """The bytes are not a protobuf message."""


class _ConflictError(ValueError):
    """Two files cannot be in one schema."""


def _top_level(file: FileDescriptorProto) -> Iterator[str]:
    prefix = f"{file.package}." if file.package else ""
    for group in (file.message_type, file.enum_type, file.service, file.extension):
        for item in group:
            yield prefix + item.name
    for enum in file.enum_type:  # values are siblings of their enum, as in C++
        for value in enum.value:
            yield prefix + value.name


def _without_source_info(data: memoryview) -> bytes:
    return _without(data, lambda number: number == _FILE_SOURCE_INFO)


def _without(data: memoryview, unwanted: Callable[[int], bool]) -> bytes:
    kept, start = [], 0
    for number, begin, end, _ in _spans(data):
        if unwanted(number):
            kept.append(data[start:begin])
            start = end
    kept.append(data[start:])
    return b"".join(kept)


def _same(one: memoryview, other: memoryview) -> bool:
    """Whether two files declare the same, whichever compiler wrote them down."""
    return one == other or _essence(one) == _essence(other)


def _essence(data: memoryview) -> FileDescriptorProto:
    """The file without what one compiler writes and another leaves to be derived."""
    file = parse_file(_without(data, lambda n: n == _FILE_SOURCE_INFO or n >= _FIRST_EXTENSION))
    holders: list[FileDescriptorProto | DescriptorProto] = [file]
    while holders:
        holder = holders.pop()
        fields = list(holder.extension)
        if holder is file:
            holders += file.message_type
        else:
            message = cast("DescriptorProto", holder)
            holders += message.nested_type
            fields += message.field
        for field in fields:
            if field.json_name == json_name(field.name):
                field.ClearField("json_name")
    return file


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """The top-level fields: number and, where length-delimited, content."""
    for number, _, end, content in _spans(data):
        yield number, None if content is None else data[content:end]


def _spans(data: memoryview) -> Iterator[tuple[int, int, int, int | None]]:
    """The top-level fields: number, begin, end, and where the content of a delimited one begins.

    https://protobuf.dev/programming-guides/encoding/
    """
    position, size = 0, len(data)
    while position < size:
        begin = position
        tag, position = _varint(data, position)
        content = None
        match tag & 7:
            case 0:
                _, position = _varint(data, position)
            case 1:
                position += 8
            case 2:
                length, content = _varint(data, position)
                position = content + length
            case 5:
                position += 4
            case wire_type:
                raise _WireError(f"wire type {wire_type} at byte {begin}")
        if position > size:
            raise _WireError(f"cut off: a field at byte {begin} needs {position - size} bytes more")
        yield tag >> 3, begin, position, content


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    try:
        while True:
            byte = data[position]
            position += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result, position
            shift += 7
            if shift > 63:
                raise _WireError(f"a varint of more than ten bytes at byte {position - 10}")
    except IndexError as error:
        raise _WireError("cut off within a varint") from error
