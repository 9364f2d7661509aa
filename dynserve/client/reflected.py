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
from typing import Any, NamedTuple, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from dynserve.errors import DescriptorError, ReflectionError, SymbolError
from dynserve.schema import Schema
from dynserve.schema.descriptors import join
from dynserve.schema.index import Index
from dynserve.schema.placeholders import placeholders
from dynserve.schema.uses import Use
from dynserve.status import StatusError

from .found import WELL_KNOWN, ChangedError, FoundFiles, TooMuchError

__all__ = ["Answers", "Question", "Reflected", "Steps"]

_log = logging.getLogger("dynserve.client")

_MAX_EXTENSIONS = 1000  # that are asked for at a time
_NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
# In an answer: not that something is not there, but that it is not told.
_REFUSALS = {
    code.value[0]
    for code in (
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNAVAILABLE,
    )
}
_VERSIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")

_Result = TypeVar("_Result")


class Question(NamedTuple):
    """Serialised requests for one stream of the method ``path``; as many answers are due.

    What it is sent is an :class:`Answers`.

    Where there is only one it is best sent with the end of the stream: a server without the method
    refuses at once, which asyncio's gRPC may take for a fault while a stream is written to.
    """

    path: str
    requests: Sequence[bytes]


class Answers(NamedTuple):
    """The answers that came, no more than were due, and what ended the stream before that."""

    received: list[bytes]
    error: StatusError | None


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
        self._has_answered = False
        self._told: dict[bytes, None] = {}  # all files, as they came
        self._seen: dict[str, int] = {}
        self._begin()

    def _begin(self) -> None:
        """A schema with nothing in it."""
        self._loaded: set[str] = set()
        self._index = Index()
        self._spoiled: dict[str, str] = {}  # types that stand for ones that are missing → why
        self.schema = Schema(self._index, (), f"reflection of {self._target}")

    def services(self) -> Steps[tuple[str, ...]]:
        """The names of the services that the server tells of, sorted."""
        (answer,) = yield from self._ask([self._request(list_services="*")])
        if answer.HasField("error_response"):
            raise self._refusal(answer)
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
        found = FoundFiles(self._index, self._seen)
        # Not every server finds a method or a field by its name, but all find what it is part of.
        part = symbol
        while part:
            (answer,) = yield from self._ask([self._request(file_containing_symbol=part)])
            if not answer.HasField("error_response"):
                break
            part = part.rpartition(".")[0]
        else:
            yield from self._refuse(kind, symbol)
        self._take(answer, found)
        if not found.declares(symbol):
            yield from self._refuse(kind, symbol, found)
        yield from self._complete(found)
        self._loaded.add(symbol)

    def _refuse(self, kind: str, symbol: str, found: FoundFiles | None = None) -> Steps[NoReturn]:
        """Raise, with the names that are near: of its neighbours, or of services."""
        near = [] if found is None else found.neighbours(symbol)
        names = near or (yield from self.services())
        raise SymbolError(kind, symbol, names, place=f"on {self._target}")

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
        """Ask in the newest version of the protocol that the server has.

        What a server does not know it says in an answer, as the protocol has it, or by ending the
        stream with NOT_FOUND: both are an answer with an ``error_response``.
        """
        encoded = [request.SerializeToString() for request in requests]
        answers: list[Any] = []
        while len(answers) < len(encoded):
            path = f"/{self._versions[0]}.ServerReflection/ServerReflectionInfo"
            received, error = yield Question(path, encoded[len(answers) :])
            try:
                answers += map(self._response.FromString, received)
            except DecodeError as damage:
                raise self._senseless(damage) from damage
            self._has_answered |= bool(received)
            if len(answers) == len(encoded):
                break
            if error is None:
                raise ReflectionError(self._target, "ended the stream of its reflection")
            if error.code() is grpc.StatusCode.NOT_FOUND:
                answers.append(self._response())
                answers[-1].error_response.error_code = _NOT_FOUND
            else:
                self._fall_back(error)
        for answer in answers:
            if answer.error_response.error_code in _REFUSALS:
                raise self._refusal(answer)
        return answers

    def _fall_back(self, error: StatusError) -> None:
        """Go on with an older version of the protocol, if that is what the error asks for."""
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED or self._has_answered:
            raise error
        if len(self._versions) == 1:
            problem = "serves no reflection; name the .proto files, too"
            raise ReflectionError(self._target, problem) from error
        del self._versions[0]

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
        if found.stands_for(self._spoiled):
            # What was missing is here: nothing stands in for it any more.
            self._begin()
            found = FoundFiles(self._index, self._seen)
            self._add(list(self._told), found)
            yield from self._complete(found)
            return
        missing = list(found.missing())
        if missing or lost:
            types = {use.full_name: use.is_enum for use in lost}
            found.add(placeholders(missing, types))
            self._spoil(missing, types)
        if found:
            try:
                found.link()
            except TooMuchError as error:
                raise self._endless() from error
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
                self._take(answer, found)

    def _fetch_imports(self, found: FoundFiles) -> Steps[None]:
        unknown: set[str] = set()
        while names := [name for name in found.missing() if name not in unknown]:
            requests = [self._request(file_by_filename=name) for name in names]
            for answer in (yield from self._ask(requests)):
                if not answer.HasField("error_response"):
                    self._take(answer, found)
            missing = found.missing()
            still = [name for name in names if name in missing]
            unknown.update(still)
            if still:
                found.add((yield functools.partial(_installed, still)))

    def _fetch_extensions(self, types: Sequence[str], found: FoundFiles) -> Steps[None]:
        """What is known of extensions is not worth a failure: many servers do not tell."""
        requests = [self._request(all_extension_numbers_of_type=name) for name in types]
        try:
            answers = yield from self._ask(requests)
            requests = [
                self._request(
                    file_containing_extension={"containing_type": name, "extension_number": number}
                )
                for name, answer in zip(types, answers, strict=True)
                for number in answer.all_extension_numbers_response.extension_number
                if number not in self._index.extensions(name)
            ]
            answers = (yield from self._ask(requests[:_MAX_EXTENSIONS])) if requests else []
        except (StatusError, ReflectionError) as error:
            _log.debug("%s does not tell of extensions: %s", self._target, error)
            return
        for answer in answers:
            if not answer.HasField("error_response"):
                self._take(answer, found)

    def _take(self, answer: Any, found: FoundFiles) -> None:
        """Add the files of an answer."""
        files = list(answer.file_descriptor_response.file_descriptor_proto)
        if not files:
            raise ReflectionError(self._target, "its reflection answers with no file")
        self._add(files, found)
        self._told.update(dict.fromkeys(files))

    def _add(self, files: Sequence[bytes], found: FoundFiles) -> None:
        try:
            found.told(files)
        except DecodeError as error:
            raise self._senseless(error) from error
        except ChangedError as error:
            problem = f"{str(error)!r} is not what it was; the server has changed, connect anew"
            raise ReflectionError(self._target, problem) from error
        except TooMuchError as error:
            raise self._endless() from error

    def _endless(self) -> ReflectionError:
        return ReflectionError(self._target, "its reflection tells more than can be taken")

    def _senseless(self, error: Exception) -> ReflectionError:
        return ReflectionError(self._target, f"its reflection answers in no known form: {error}")

    def _refusal(self, answer: Any) -> ReflectionError:
        error = answer.error_response
        said = error.error_message or f"code {error.error_code}"
        return ReflectionError(self._target, f"its reflection refuses to answer: {said}")

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
