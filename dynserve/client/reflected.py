"""The schema that a server's reflection tells, a few files at a time, as they are asked for.

What to ask next is decided here, and nothing is sent: a generator yields a :class:`Question`, and
is sent the answers, or thrown what went wrong. The sync and the asyncio client carry them
(https://sans-io.readthedocs.io). One generator runs at a time for a connection.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from dynserve.errors import DescriptorError, ReflectionError, SymbolError
from dynserve.schema import Schema
from dynserve.schema.descriptors import join, parse_file
from dynserve.schema.index import Index
from dynserve.schema.placeholders import placeholders, undeclared
from dynserve.status import StatusError

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

__all__ = ["Question", "Reflected", "Steps"]

_log = logging.getLogger("dynserve.client")

_VERSIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
# Custom options of a file are in what it imports; these are asked for by nobody else.
_OPTIONS_FILE = "google/protobuf/descriptor.proto"
_NOT_THERE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)

_Result = TypeVar("_Result")


class Question(NamedTuple):
    """Serialised requests for one stream of the method ``path``; as many answers are due."""

    path: str
    requests: Sequence[bytes]


# What is yielded is done by who runs the generator: a question, or a function that takes a while.
Steps: TypeAlias = Generator["Question | Callable[[], Any]", Any, _Result]


class Reflected:
    """A schema that grows by what is asked for; ``target`` names the server in errors."""

    def __init__(self, target: str) -> None:
        from grpc_reflection.v1alpha import reflection_pb2  # v1 is the same on the wire

        self._target = target
        self._request: Any = reflection_pb2.ServerReflectionRequest
        self._response: Any = reflection_pb2.ServerReflectionResponse
        self._versions = list(_VERSIONS)
        self._loaded: set[str] = set()
        self._index = Index()
        self._spoiled: dict[str, str] = {}  # types that stand for ones that are missing → why
        self.schema = Schema(self._index, (), f"reflection of {target}")

    def services(self) -> Steps[tuple[str, ...]]:
        """The names of the services that the server tells of, sorted."""
        (answer,) = yield from self._ask([self._request(list_services="*")])
        if answer.HasField("error_response"):
            raise self._refusal("list_services", answer)
        return tuple(sorted(service.name for service in answer.list_services_response.service))

    def has(self, symbol: str) -> bool:
        """Whether the symbol was loaded: then the schema has all that it needs."""
        return symbol in self._loaded

    def load(self, symbol: str, kind: str = "symbol") -> Steps[None]:
        """Have the schema hold what defines the symbol, all that it imports and its extensions.

        Raises:
            SymbolError: the server knows no such symbol.
            ReflectionError: it serves no reflection, or its answers make no sense.
            StatusError: the server could not be asked.
        """
        if symbol in self._loaded:
            return
        found = _Files(self._index.files)
        # Not every server finds a method or a field by its name, but all find what it is part of.
        part = symbol
        while part:
            (answer,) = yield from self._ask([self._request(file_containing_symbol=part)])
            if not answer.HasField("error_response"):
                break
            part = part.rpartition(".")[0]
        else:
            services = yield from self.services()
            raise SymbolError(kind, symbol, services, place=f"on {self._target}")
        found.add(self._parsed(answer))
        yield from self._complete(found)
        self._loaded.add(symbol)

    def load_file(self, name: str) -> Steps[None]:
        """The same for a file by its name."""
        found = _Files(self._index.files)
        (answer,) = yield from self._ask([self._request(file_by_filename=name)])
        if answer.HasField("error_response"):
            raise SymbolError("file", name, (), place=f"on {self._target}")
        found.add(self._parsed(answer))
        yield from self._complete(found)

    def check(self, symbol: str, *types: str) -> None:
        """Refuse to use ``symbol`` if one of the types that it needs is missing.

        Raises:
            DescriptorError: one of them stands in for a type that the server does not tell of.
        """
        for name in types:
            if name in self._spoiled:
                raise DescriptorError(symbol, f"needs {name}, but {self._spoiled[name]}")

    # ---- inside

    def _ask(self, requests: Sequence[Any]) -> Steps[list[Any]]:
        """Ask in the newest version of the protocol that the server has."""
        encoded = [request.SerializeToString() for request in requests]
        while True:
            path = f"/{self._versions[0]}.ServerReflection/ServerReflectionInfo"
            try:
                answers = yield Question(path, encoded)
                return [self._response.FromString(answer) for answer in answers]
            except StatusError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
                if len(self._versions) == 1:
                    raise ReflectionError(
                        self._target, "serves no reflection; name the .proto files, too"
                    ) from error
                del self._versions[0]
            except DecodeError as error:
                raise ReflectionError(self._target, f"its reflection answers {error}") from error

    def _complete(self, found: _Files) -> Steps[None]:
        """Add the files to the schema, with all that they import and the extensions of types."""
        asked: set[str] = set()  # types, for what declares them or for their extensions
        homes: set[str] = set()
        while True:
            yield from self._fetch_imports(found)
            lost = self._lost(found)
            if names := [name for name in lost if name not in asked]:
                homes.update((yield from self._fetch_types(names, found)))
            elif names := [name for name in found.extendable() if name not in asked]:
                yield from self._fetch_extensions(names, found)
            else:
                break
            asked.update(names)
        if missing := found.missing():
            found.add(placeholders(missing, lost, homes))
            self._spoil(missing, lost)
        if found.files:
            self._index.add_set(self._target, join(found.in_order()))

    def _lost(self, found: _Files) -> dict[str, bool]:
        """The types that should be declared in files that are missing."""
        return undeclared(found.files.values(), self._index) if found.missing() else {}

    def _fetch_types(self, names: Sequence[str], found: _Files) -> Steps[list[str]]:
        """What declares the types: a server may know a file by another name than its importers.

        Returns:
            The names of the files.
        """
        requests = [self._request(file_containing_symbol=name) for name in names]
        homes = []
        for answer in (yield from self._ask(requests)):
            if not answer.HasField("error_response"):
                homes += found.add(self._parsed(answer)[:1])
        return homes

    def _fetch_imports(self, found: _Files) -> Steps[None]:
        unknown: set[str] = set()
        while names := [name for name in found.missing() if name not in unknown]:
            requests = [self._request(file_by_filename=name) for name in names]
            for answer in (yield from self._ask(requests)):
                if not answer.HasField("error_response"):
                    found.add(self._parsed(answer))
            unknown.update(name for name in names if name in found.missing())
            still = [name for name in names if name in unknown]
            if still:
                found.add((yield functools.partial(_installed, still)))

    def _fetch_extensions(self, types: Sequence[str], found: _Files) -> Steps[None]:
        """What is known of extensions is not worth a failure: many servers do not tell."""
        requests = [self._request(all_extension_numbers_of_type=name) for name in types]
        try:
            answers = yield from self._ask(requests)
        except StatusError as error:
            _log.debug("%s does not tell of extensions: %s", self._target, error)
            return
        numbers = [
            (name, number)
            for name, answer in zip(types, answers, strict=True)
            for number in answer.all_extension_numbers_response.extension_number
            if number not in self._index.extensions(name)
        ]
        requests = []
        for name, number in numbers:
            request = self._request()
            request.file_containing_extension.containing_type = name
            request.file_containing_extension.extension_number = number
            requests.append(request)
        for answer in (yield from self._ask(requests)) if requests else ():
            if not answer.HasField("error_response"):
                found.add(self._parsed(answer))

    def _parsed(self, answer: Any) -> list[bytes]:
        files = list(answer.file_descriptor_response.file_descriptor_proto)
        if not files:
            raise ReflectionError(self._target, "its reflection answers with no file")
        return files

    def _refusal(self, what: str, answer: Any) -> ReflectionError:
        error = answer.error_response
        return ReflectionError(
            self._target,
            f"its reflection refuses {what}: {error.error_message or error.error_code}",
        )

    def _spoil(self, missing: dict[str, list[str]], types: Iterable[str]) -> None:
        for file, importers in missing.items():
            _log.debug("%s does not tell of %s, imported by %s", self._target, file, importers[0])
        files = ", ".join(map(repr, missing))
        reason = f"{self._target} does not tell of {files}"
        names = sorted(types)
        self._spoiled.update(dict.fromkeys(names, reason))
        if names:
            _log.warning("%s: fields of the types %s stay encoded", reason, ", ".join(names))


class _Files:
    """The files of one question that the schema does not have; ``known`` are those that it has."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = known
        self.files: dict[str, FileDescriptorProto] = {}
        self._data: dict[str, bytes] = {}

    def add(self, files: Iterable[bytes]) -> list[str]:
        """Take serialised files, but for those that are there; returns the names of all."""
        names = []
        for data in files:
            file = parse_file(data)
            names.append(file.name)
            if file.name not in self._known and file.name not in self.files:
                self.files[file.name] = file
                self._data[file.name] = data
        return names

    def missing(self) -> dict[str, list[str]]:
        """What is imported and not there, with those that import it."""
        missing: dict[str, list[str]] = {}
        for name, file in self.files.items():
            for other in (*file.dependency, *file.option_dependency):
                if other not in self._known and other not in self.files:
                    missing.setdefault(other, []).append(name)
        return missing

    def extendable(self) -> Iterator[str]:
        """The message types in it that can have extensions."""
        for file in self.files.values():
            if file.name != _OPTIONS_FILE:
                scope = f"{file.package}." if file.package else ""
                yield from _extendable(scope, file.message_type)

    def in_order(self) -> list[bytes]:
        """The files, each after what it imports, so that another thread never sees it without."""
        ordered: dict[str, None] = {}
        todo = [(name, False) for name in reversed(self.files)]
        open_: set[str] = set()
        while todo:
            name, is_done = todo.pop()
            if is_done:
                ordered[name] = None
            elif name in self.files and name not in ordered and name not in open_:
                open_.add(name)
                todo.append((name, True))
                todo += [(other, False) for other in self.files[name].dependency]
        return [self._data[name] for name in ordered]


def _extendable(scope: str, messages: Iterable[DescriptorProto]) -> Iterator[str]:
    for message in messages:
        if message.extension_range:
            yield scope + message.name
        yield from _extendable(f"{scope}{message.name}.", message.nested_type)


def _installed(names: Sequence[str]) -> list[bytes]:
    """Of these files those that are installed here: well-known types, googleapis."""
    from dynserve.schema.imports import builtin_roots, find_installed

    sources = [source for name in names if (source := find_installed(name)) is not None]
    paths = [source.path for source in sources if source.path is not None]
    if not paths:
        return []
    index = Schema.load(*paths, include=builtin_roots()).index
    return [index.raw(file) for file in index.files]
