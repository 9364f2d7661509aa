"""The schema that a server's reflection tells, a few files at a time, as they are asked for.

What to ask next is decided here, and nothing is sent: a generator yields a :class:`Question`, and
is sent the answers, or thrown what went wrong. The sync and the asyncio client carry them
(https://sans-io.readthedocs.io). One generator runs at a time for a connection.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from dynserve.errors import DescriptorError, ReflectionError, SymbolError
from dynserve.schema import Schema
from dynserve.schema.descriptors import join, parse_file
from dynserve.schema.index import Index
from dynserve.schema.placeholders import placeholders
from dynserve.schema.uses import Use
from dynserve.status import StatusError

from .found import WELL_KNOWN, FoundFiles

__all__ = ["Question", "Reflected", "Steps"]

_log = logging.getLogger("dynserve.client")

_VERSIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")

_Result = TypeVar("_Result")


class Question(NamedTuple):
    """Serialised requests for one stream of the method ``path``; as many answers are due.

    Where there is only one it is best sent with the end of the stream: a server without the method
    refuses at once, which asyncio's gRPC may take for a fault while a stream is written to.
    """

    path: str
    requests: Sequence[bytes]


# What is yielded is done by who runs the generator: a question, or a function that takes a while.
Steps: TypeAlias = Generator["Question | Callable[[], Any]", Any, _Result]


class Reflected:
    """A schema that grows by what is asked for; ``target`` names the server in errors."""

    def __init__(self, target: str) -> None:
        from grpc_reflection.v1alpha import reflection_pb2  # v1 is the same on the wire

        self.name = self._target = target
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
        found = FoundFiles(self._index)
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
        found = FoundFiles(self._index)
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
                if len(answers) != len(encoded):
                    problem = f"its reflection answers {len(encoded)} requests {len(answers)} times"
                    raise ReflectionError(self._target, problem)
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
                raise self._senseless(error) from error

    def _complete(self, found: FoundFiles) -> Steps[None]:
        """Add the files to the schema, with all that they import and the extensions of types."""
        asked: set[Use | str] = set()  # types, for what declares them or for their extensions
        while True:
            yield from self._fetch_imports(found)
            lost = found.undeclared()
            if uses := [use for use in lost if use not in asked]:
                yield from self._fetch_types(uses, found)
                asked.update(uses)
            elif names := [name for name in found.extendable() if name not in asked]:
                yield from self._fetch_extensions(names, found)
                asked.update(names)
            else:
                break
        missing = list(found.missing())
        if missing or lost:
            types = {use.full_name: use.is_enum for use in lost}
            found.add(placeholders(missing, types))
            self._spoil(missing, types)
        if found:
            found.link()
            self._index.add_set(self._target, join(found.in_order()))

    def _fetch_types(self, uses: Sequence[Use], found: FoundFiles) -> Steps[None]:
        """What declares the types: a server may know a file by another name than its importers."""
        names = list(dict.fromkeys(name for use in uses for name in use.meanings()))
        well_known = [name for name in names if name.startswith(f"{WELL_KNOWN}.")]
        if well_known:
            found.add((yield functools.partial(_well_known, well_known)))
        others = [name for name in names if name not in well_known]
        requests = [self._request(file_containing_symbol=name) for name in others]
        for answer in (yield from self._ask(requests)) if requests else ():
            if not answer.HasField("error_response"):
                found.add(self._parsed(answer))

    def _fetch_imports(self, found: FoundFiles) -> Steps[None]:
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

    def _fetch_extensions(self, types: Sequence[str], found: FoundFiles) -> Steps[None]:
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
        for data in files:
            try:
                parse_file(data)
            except DecodeError as error:
                raise self._senseless(error) from error
        return files

    def _senseless(self, error: Exception) -> ReflectionError:
        return ReflectionError(self._target, f"its reflection answers in no known form: {error}")

    def _refusal(self, what: str, answer: Any) -> ReflectionError:
        error = answer.error_response
        return ReflectionError(
            self._target,
            f"its reflection refuses {what}: {error.error_message or error.error_code}",
        )

    def _spoil(self, missing: Iterable[str], types: Iterable[str]) -> None:
        """Note which types are not what they should be, and why."""
        reason = f"{self._target} does not tell of {', '.join(map(repr, missing)) or 'their files'}"
        _log.debug("%s", reason)
        names = sorted(types)
        self._spoiled.update(dict.fromkeys(names, reason))
        if names:
            _log.warning("%s: fields of the types %s stay encoded", reason, ", ".join(names))


def _well_known(types: Sequence[str]) -> list[bytes]:
    """The files that declare these well-known types, as they are installed here."""
    from dynserve.schema.imports import builtin_roots

    folders = [os.path.join(root, "google", "protobuf") for root in builtin_roots()]
    existing = [one for one in folders if os.path.isfile(os.path.join(one, "any.proto"))]
    index = Schema.load(*existing, include=builtin_roots()).index
    homes = {index.file_of(name) for name in types} - {None}
    return [index.raw(file) for file in sorted(map(str, homes))]


def _installed(names: Sequence[str]) -> list[bytes]:
    """Of these files those that are installed here: well-known types, googleapis."""
    from dynserve.schema.imports import builtin_roots, find_installed

    sources = [source for name in names if (source := find_installed(name)) is not None]
    paths = [source.path for source in sources if source.path is not None]
    if not paths:
        return []
    index = Schema.load(*paths, include=builtin_roots()).index
    return [index.raw(file) for file in index.files]
