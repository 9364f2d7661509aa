"""What reflection can tell of a snapshot of routes: files, symbols, extensions of all its schemas.

Clients know a file by its name alone. Where two schemas have different files of one name, the later
schema's is given another name, in whatever imports it too, so that each client gets files that fit
together.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from dynserve.binding import Routes
from dynserve.schema import Schema
from dynserve.schema.symbols import symbols_of

__all__ = ["Catalog", "File"]


class _Shelf:
    """The files of one schema, under the names that clients are given."""

    def __init__(self, schema: Schema, number: int) -> None:
        self.schema = schema
        self.number = number
        self.aliases: dict[str, str] = {}  # a file's own name → the name given to clients

    def own_name(self, name: str) -> str | None:
        """The file that clients know as ``name``."""
        for own, alias in self.aliases.items():
            if alias == name:
                return own
        return name if name in self.schema.index.files and name not in self.aliases else None

    def avoid(self, taken: dict[str, bytes]) -> None:
        """Rename what another schema has under the same name with other content."""
        index = self.schema.index
        todo = [n for n in index.files if n in taken and taken[n] != index.raw(n)]
        if not todo:
            return
        importers: dict[str, list[str]] = {}
        for name in index.files:
            for other in _imports(self.schema, name):
                importers.setdefault(other, []).append(name)
        while todo:
            name = todo.pop()
            if name not in self.aliases:
                self.aliases[name] = f"schema_{self.number}/{name}"
                todo += importers.get(name, ())


@dataclass(frozen=True)
class File:
    """A file of a schema; two are the same when the schema and the name are."""

    shelf: _Shelf
    name: str

    def imports(self) -> list[File]:
        """What it imports, options included."""
        return [File(self.shelf, name) for name in _imports(self.shelf.schema, self.name)]

    @functools.cached_property
    def data(self) -> bytes:
        """The serialised ``FileDescriptorProto``, as clients are to see it."""
        raw = self.shelf.schema.index.raw(self.name)
        aliases = self.shelf.aliases
        if self.name not in aliases:
            return raw
        from google.protobuf.descriptor_pb2 import FileDescriptorProto

        file = FileDescriptorProto.FromString(raw)
        file.name = aliases[self.name]
        for imported in (file.dependency, file.option_dependency):
            imported[:] = [aliases.get(name, name) for name in imported]
        return file.SerializeToString()


def _imports(schema: Schema, name: str) -> list[str]:
    index = schema.index
    found = [*index.dependencies(name), *index.option_dependencies(name)]
    return [other for other in found if other in index.files]


class Catalog:
    """Answers the questions of the reflection protocol; asked on one thread."""

    def __init__(self, routes: Routes) -> None:
        self.services = list(routes.services)
        self._served = {name: service.schema for name, service in routes.services.items()}
        self._shelves: dict[Schema, _Shelf] = {}
        taken: dict[str, bytes] = {}
        schemas = routes.schemas
        for number, schema in enumerate(schemas, 1):
            shelf = self._shelves[schema] = _Shelf(schema, number)
            if len(schemas) > 1:
                shelf.avoid(taken)
                for name in schema.index.files:
                    if name not in shelf.aliases:
                        taken.setdefault(name, schema.index.raw(name))
        self._symbols = functools.lru_cache(256)(_symbols)

    def file(self, name: str) -> File | None:
        """The file that clients know as ``name``."""
        for shelf in self._shelves.values():
            own = shelf.own_name(name)
            if own is not None:
                return File(shelf, own)
        return None

    def file_of(self, symbol: str) -> File | None:
        """The file that defines a symbol: first in the schema that serves it, then in any."""
        for schema in self._order(symbol):
            file = schema.index.file_of(symbol)
            if file is not None and symbol in self._symbols(schema, file):
                return File(self._shelves[schema], file)
        return None

    def extension(self, extendee: str, number: int) -> File | None:
        """The file that defines an extension."""
        for schema, shelf in self._shelves.items():
            extension = schema.index.extensions(extendee).get(number)
            if extension is not None:
                return File(shelf, extension.file)
        return None

    def extension_numbers(self, extendee: str) -> list[int]:
        """The numbers of all extensions of a message type, sorted."""
        schemas = self._shelves
        return sorted({n for schema in schemas for n in schema.index.extensions(extendee)})

    def has_message(self, name: str) -> bool:
        """Whether there is a message type of that name."""
        file = self.file_of(name)
        if file is None:
            return False
        return file.shelf.schema.has_message(name)

    def _order(self, symbol: str) -> Iterable[Schema]:
        serving = self._served.get(symbol) or self._served.get(symbol.rpartition(".")[0])
        rest = [schema for schema in self._shelves if schema is not serving]
        return [serving, *rest] if serving is not None else rest


def _symbols(schema: Schema, file: str) -> frozenset[str]:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    return frozenset(symbols_of(FileDescriptorProto.FromString(schema.index.stripped(file))))
