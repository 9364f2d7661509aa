"""What the verbs of the client are pointed at: an address, or sources that name the same."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
import grpc

from dynserve.errors import (
    CredentialsError,
    DynserveError,
    ReflectionError,
    SymbolError,
    TargetError,
)
from dynserve.schema.sources import SET_SUFFIXES
from dynserve.status import StatusError

from .headers import pairs_of
from .progress import waiting, with_progress
from .terminal import harmless

if TYPE_CHECKING:
    from dynserve.client.sync import Client
    from dynserve.schema import Schema
    from dynserve.status import Metadata

__all__ = ["Target", "Told", "refuse_sources"]

_Result = TypeVar("_Result")

_ENDINGS = (".proto", *SET_SUFFIXES, ".gz")
_ASKING = "Asking the server"
_MOST_ASKED = 10  # services of a package, for the symbols beside them
_OF_PATHS = "*?[/"
# What the library says of its arguments, in the words of the options here.
_OPTIONS_FOR = {
    "tls=True": "--tls",
    "name the .proto files, too": "name its .proto files with --proto",
}
_OPTION_OF = {"ca": "--cacert"}


class Target(NamedTuple):
    """Where to look, and what was said of how."""

    name: str
    proto: tuple[str, ...] = ()
    include: tuple[Path, ...] = ()
    descriptor_set: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    reflect_header: tuple[str, ...] = ()
    tls: bool = False
    cacert: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    token: str | None = None
    max_time: float | None = None
    max_message_bytes: int | None = None
    keepalive: float | None = None
    deadline: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], max_time: float | None = None) -> Target:
        """What the options of a command say; those that are not about the target are passed over.

        ``max_time`` is in seconds, for where they set no limit.
        """
        given = {name: options[name] for name in cls._fields if options.get(name) is not None}
        limit = given.setdefault("max_time", max_time)
        deadline = None if limit is None else time.monotonic() + limit
        return cls(options["target"], **given, deadline=deadline)

    @property
    def is_source(self) -> bool:
        """Whether it names sources rather than a server."""
        return (
            os.path.exists(self.name)
            or self.name.startswith("package:")
            or self.name.endswith(_ENDINGS)
            or (":" not in self.name and any(sign in self.name for sign in _OF_PATHS))
        )

    @property
    def metadata(self) -> Metadata:
        """What every call carries.

        Raises:
            click.UsageError: a header is none.
        """
        return pairs_of(self.header)

    @contextlib.contextmanager
    def tell(self) -> Iterator[Told]:
        """The schema of the sources that it names, or of the server as far as it is asked."""
        if self.is_source:
            from dynserve.schema import Schema

            sources = (self.name, *self.proto, *self.descriptor_set)
            with waiting("Compiling"):
                schema = Schema.load(*sources, include=self.include)
            yield Told(schema, None, is_reflected=False)
        else:
            with self.connect() as client:
                with waiting("Compiling"):
                    schema = client.schema
                yield Told(schema, client, not (self.proto or self.descriptor_set))

    def remaining(self) -> float | None:
        """The seconds that ``--max-time`` leaves."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @contextlib.contextmanager
    def connect(self) -> Iterator[Client]:
        """A client of the server that it names, for the block; closed when ``--max-time`` is over.

        Raises:
            StatusError: DEADLINE_EXCEEDED, where that ended what was under way in the block.
        """
        with self._client() as client:
            timer = threading.Timer(self.remaining() or 0.0, client.close)
            timer.daemon = True
            if self.deadline is not None:
                timer.start()
            try:
                yield client
            except (StatusError, ValueError) as error:  # ValueError: gRPC's, of a closed channel
                if self.remaining() != 0.0:
                    raise
                raise self._too_late() from error
            except ReflectionError as error:
                raise ReflectionError(error.target, _in_words_of_options(error.problem)) from error
            finally:
                timer.cancel()

    def within_max_time(self, function: Callable[[], _Result]) -> _Result:
        """What a function returns that may wait for long, and not for the server.

        Raises:
            StatusError: DEADLINE_EXCEEDED, ``--max-time`` is over; the function goes on.
        """
        if self.deadline is None:
            return function()
        future: concurrent.futures.Future[_Result] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        try:
            return future.result(self.remaining())
        except concurrent.futures.TimeoutError as error:
            raise self._too_late() from error

    def _too_late(self) -> StatusError:
        problem = f"not done after {self.max_time:g} s (--max-time)"
        return StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, problem)

    def _client(self) -> Client:
        from dynserve.client.security import TLS
        from dynserve.client.sync import Client

        if (self.cert is None) != (self.key is None):
            given, missing = ("--key", "--cert") if self.cert is None else ("--cert", "--key")
            raise click.UsageError(f"{given} needs {missing}, too.")
        # The whole of it has a limit, where there is one.
        limit: dict[str, Any] = {} if self.deadline is None else {"reflection_timeout": None}
        proof = (self.cacert, self.cert, self.key, self.server_name)
        tls = TLS(*proof) if any(proof) else self.tls or self.token is not None
        metadata, of_reflection = self.metadata, pairs_of(self.reflect_header)
        try:
            return Client(
                self.name,
                *self.proto,
                *self.descriptor_set,
                include=self.include,
                tls=tls,
                token=self.token,
                metadata=metadata,
                reflection_metadata=of_reflection,
                max_message_bytes=self.max_message_bytes,
                keepalive=self.keepalive,
                **limit,
            )
        except TargetError as error:
            raise TargetError(error.target, _in_words_of_options(error.problem)) from error
        except CredentialsError as error:
            option = _OPTION_OF.get(error.name, f"--{error.name}")
            raise CredentialsError(option, error.problem) from error


def _in_words_of_options(problem: str) -> str:
    for argument, option in _OPTIONS_FOR.items():
        problem = problem.replace(argument, option)
    return problem


class Told:
    """A schema, of which a server is asked what is needed.

    Args:
        client: asks the server; None where there is none.
        is_reflected: whether the schema is what the server's reflection was asked for so far.
    """

    def __init__(self, schema: Schema, client: Client | None, is_reflected: bool) -> None:
        self.schema = schema
        self.is_reflected = is_reflected
        self._client = client

    def declared_files(self) -> Collection[str]:
        """The files that were asked for; not those that are only imported."""
        if self.is_reflected:
            return set(self.schema.index.services.values())
        return self.schema.declared_files

    def services(self) -> tuple[str, ...]:
        """The names of the services."""
        if self._client is None:
            return self.schema.declared_services
        with waiting(_ASKING):
            return self._client.services()

    def methods(self, service: str) -> tuple[str, ...]:
        """The names of a service's methods, in the order of the file."""
        if self._client is not None:
            with waiting(_ASKING):
                self._client.service(service)
        return tuple(self.schema.method_kinds(service))

    def load(self, symbols: Iterable[str]) -> None:
        """Have the schema hold these symbols, where what they are part of is told.

        Raises:
            SymbolError: the server does not tell of one.
        """
        if self._client is None:
            return
        for symbol in with_progress(tuple(symbols), _ASKING):
            try:
                self._client.load(symbol)
            except SymbolError as error:
                if error.nearest:
                    raise
                raise self._with_what_is_near(self._client, error) from error

    def _with_what_is_near(self, client: Client, error: SymbolError) -> SymbolError:
        """The same error; what stands beside the services of its package may be meant, too."""
        services = self.services()
        package = error.name.rpartition(".")[0]
        beside = [name for name in services if name.startswith(f"{package}.")]
        for service in beside[:_MOST_ASKED]:
            with contextlib.suppress(DynserveError, StatusError):
                client.load(service)
        return SymbolError(
            error.kind, error.name, (*services, *self.schema.index.symbols()), error.place
        )

    def load_services(self) -> tuple[tuple[str, ...], int]:
        """Have the schema hold every service; of what it lacks, a warning is printed.

        Returns:
            The services that it holds, and the exit code: a server may list more than it tells of.
        """
        listed = self.services()
        told = []
        for service in with_progress(listed, _ASKING):
            try:
                if self._client is not None:
                    self._client.load(service)
                told.append(service)
            except SymbolError:
                problem = f"{service} is listed by the server, which does not tell of it"
                click.echo(f"Warning: {harmless(problem)}", err=True)
        return tuple(told), int(len(told) < len(listed))


def refuse_sources(target: Target, verb: str) -> None:
    """Refuse sources where only a server will do.

    Raises:
        TargetError: the target names sources.
    """
    if target.is_source:
        problem = f"names sources; `dynserve {verb}` needs the HOST:PORT of a server"
        raise TargetError(target.name, problem)
