"""What reflection can tell of a snapshot of routes: files, symbols, extensions of all its schemas.

Clients know a file by its name alone. Where two schemas have different files of one name, the later
schema's is given another name, in whatever imports it too, so that each client gets files that fit
together. What is the same in both is one file.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from dynserve.routes import Routes
from dynserve.schema import Schema
from dynserve.schema.descriptors import parse_file
from dynserve.schema.field_names import json_name
from dynserve.schema.symbols import symbols_of

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

__all__ = ["Catalog", "File"]

_MAX_BYTES = 3 << 20  # of files in one response; clients take 4 MiB unless told otherwise

# Clients have the well-known types themselves, under these names, and can hold them only once.
_WELL_KNOWN = "google/protobuf/"


class File:
    """A file as clients see it.

    ``name`` is what clients know it by, ``own_name`` what its schema does. ``renamed`` has the
    files of the schema where the two differ.
    """

    def __init__(self, schema: Schema, own_name: str, renamed: Mapping[str, str]) -> None:
        self.schema = schema
        self.own_name = own_name
        self.name = renamed.get(own_name, own_name)
        self._renamed = renamed

    @functools.cached_property
    def imports(self) -> list[str]:
        """The names of what it imports, options included."""
        return [self._renamed.get(name, name) for name in _imports(self.schema, self.own_name)]

    @functools.cached_property
    def is_changed(self) -> bool:
        """Whether clients see another file than the schema has."""
        names = (self.own_name, *_imports(self.schema, self.own_name)) if self._renamed else ()
        return any(name in self._renamed for name in names)

    @functools.cached_property
    def data(self) -> bytes:
        """The serialised ``FileDescriptorProto``.

        With its comments, unless they make it more than a client would take.
        """
        index = self.schema.index
        data = index.raw(self.own_name)
        if len(data) > _MAX_BYTES:
            data = index.stripped(self.own_name)
        return self._with_new_names(data) if self.is_changed else data

    @functools.cached_property
    def size(self) -> int:
        """Its length in bytes without comments."""
        return len(self.schema.index.stripped(self.own_name))

    def _with_new_names(self, data: bytes) -> bytes:
        file = parse_file(data)
        file.name = self.name
        for names in (file.dependency, file.option_dependency):
            names[:] = [self._renamed.get(name, name) for name in names]
        return bytes(file.SerializeToString())

    def is_in(self, schema: Schema) -> bool:
        """Whether ``schema`` has this very file."""
        if self.is_changed:
            return False
        mine, other = self.schema.index, schema.index
        if mine.raw(self.name) == other.raw(self.name):
            return True
        data, same = mine.stripped(self.name), other.stripped(self.name)
        return data == same or _with_json_names(data) == _with_json_names(same)


class Catalog:
    """Answers the questions of the reflection protocol; asked on one thread."""

    def __init__(self, routes: Routes) -> None:
        self._serving = {}
        for name, service in routes.services.items():
            with contextlib.suppress(Exception):  # it has logged why it cannot be bound
                self._serving[name] = service.schema
        self.services = list(self._serving)
        self._files: dict[str, File] = {}  # by the name that clients know
        self._renamed: dict[Schema, dict[str, str]] = {}
        for schema in dict.fromkeys(self._serving.values()):
            self._add(schema)
        self._symbols = functools.lru_cache(256)(_symbols)

    def _add(self, schema: Schema) -> None:
        clashing = _with_importers(schema, self._clashing(schema), self._files)
        renamed = self._renamed[schema] = {n: self._other_name(n, schema) for n in clashing}
        for name in schema.index.files:
            file = File(schema, name, renamed)
            known = self._files.setdefault(file.name, file)
            if name.startswith(_WELL_KNOWN) and file.size > known.size:
                self._files[name] = file  # the later version has all that the earlier has

    def _clashing(self, schema: Schema) -> list[str]:
        known = (name for name in schema.index.files if name in self._files)
        return [
            name
            for name in known
            if not name.startswith(_WELL_KNOWN) and not self._files[name].is_in(schema)
        ]

    def _other_name(self, name: str, schema: Schema) -> str:
        names = (f"schema_{number}/{name}" for number in itertools.count(2))
        taken = schema.index.files
        return next(other for other in names if other not in self._files and other not in taken)

    def file(self, name: str) -> File | None:
        """The file that clients know as ``name``."""
        return self._files.get(name)

    def bundle(self, file: File, sent: set[str]) -> list[bytes]:
        """The file, and of all that it imports what was not sent; names are added to ``sent``.

        A response holds no more than a client takes: it asks for the rest by name.
        """
        files = []
        size = 0
        for one in self._closure(file):
            is_import = one is not file
            if is_import and one.name in sent:
                continue
            size += len(one.data)
            if is_import and size > _MAX_BYTES:
                break
            sent.add(one.name)
            files.append(one.data)
        return files

    def _closure(self, file: File) -> Iterator[File]:
        """The file and all that it imports, directly or not, the nearest first."""
        seen = {file.name}
        todo = [file]
        for one in todo:
            yield one
            new = [name for name in dict.fromkeys(one.imports) if name not in seen]
            seen.update(new)
            todo += [self._files[name] for name in new]

    def file_of(self, symbol: str) -> File | None:
        """The file that defines a symbol: first in the schema that serves it, then in any."""
        for schema in self._order(symbol):
            file = schema.index.file_of(symbol)
            if file is not None and symbol in self._symbols(schema, file):
                return self._seen(schema, file)
        return None

    def extension(self, extendee: str, number: int) -> File | None:
        """The file that defines an extension."""
        for schema in self._renamed:
            extension = schema.index.extensions(extendee).get(number)
            if extension is not None:
                return self._seen(schema, extension.file)
        return None

    def extension_numbers(self, extendee: str) -> list[int] | None:
        """The numbers of all extensions of a message type, sorted; None without such a type."""
        found = [schema.index.extensions(extendee) for schema in self._renamed]
        numbers = sorted({number for extensions in found for number in extensions})
        if numbers or any(_has_message(schema, extendee) for schema in self._renamed):
            return numbers
        return None

    def _seen(self, schema: Schema, file: str) -> File:
        return self._files[self._renamed[schema].get(file, file)]

    def _order(self, symbol: str) -> Iterable[Schema]:
        serving = self._serving.get(symbol) or self._serving.get(symbol.rpartition(".")[0])
        rest = [schema for schema in self._renamed if schema is not serving]
        return [serving, *rest] if serving is not None else rest


def _imports(schema: Schema, file: str) -> list[str]:
    index = schema.index
    found = [*index.dependencies(file), *index.option_dependencies(file)]
    return [name for name in found if name in index.files]


def _with_importers(schema: Schema, files: Iterable[str], among: Container[str]) -> set[str]:
    """The files, and which of ``among`` import them, directly or not."""
    found = set(files)
    if not found:
        return found
    importers: dict[str, list[str]] = {}
    for name in schema.index.files:
        if name in among:
            for imported in _imports(schema, name):
                importers.setdefault(imported, []).append(name)
    todo = list(found)
    while todo:
        new = set(importers.get(todo.pop(), ())) - found
        found |= new
        todo += new
    return found


def _symbols(schema: Schema, file: str) -> frozenset[str]:
    return frozenset(symbols_of(parse_file(schema.index.stripped(file))))


def _has_message(schema: Schema, name: str) -> bool:
    """Whether there is such a message type; nothing is built to find out."""
    holder = schema.index.file_of(name)
    if holder is None:
        return False
    file = parse_file(schema.index.stripped(holder))
    messages: Iterable[DescriptorProto] = file.message_type
    found = None
    for part in name.removeprefix(f"{file.package}.").split("."):
        found = next((message for message in messages if message.name == part), None)
        messages = found.nested_type if found is not None else ()
    return found is not None


def _with_json_names(data: bytes) -> FileDescriptorProto:
    """The file as protoc writes it to a set; in generated modules the fields' JSON names are not.

    https://protobuf.dev/programming-guides/json/#field-names
    """
    file = parse_file(data)
    fields = list(file.extension)
    todo = list(file.message_type)
    while todo:
        message = todo.pop()
        fields += [*message.field, *message.extension]
        todo += message.nested_type
    for field in fields:
        if not field.json_name:
            field.json_name = json_name(field.name)
    return file
