"""What the sync and the asyncio client share: all that is said of a connection, and its schema."""

from __future__ import annotations

import abc
import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from dynserve.errors import SymbolError
from dynserve.method import MethodInfo
from dynserve.schema import Schema
from dynserve.schema.contents import unknown_contents
from dynserve.schema.sources import Source
from dynserve.status import Metadata, ReceivedError

from .channel import ChannelSettings, checked_target, metadata_of
from .codec import Codec
from .reflected import Answers, Question, Reflected, Steps
from .security import TLS, Token, channel_credentials
from .source import Given, SchemaSource
from .stub import Documented, method_doc

__all__ = [
    "CallOptions",
    "ClientBase",
    "GivenMetadata",
    "MethodBase",
    "no_method",
    "split_path",
    "unreachable",
]

_log = logging.getLogger("dynserve.client")

_Result = TypeVar("_Result")

GivenMetadata: TypeAlias = "Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]"


class CallOptions(NamedTuple):
    """What every call of a client has where it says nothing else."""

    timeout: float | None
    metadata: Metadata


class ClientBase(abc.ABC):
    """A connection to a server, and the schema of what it serves.

    Nothing is sent before the first call, or the first question to the server's reflection.

    Args:
        target: ``HOST:PORT``, ``unix:PATH``, or a URI that gRPC knows.
            https://github.com/grpc/grpc/blob/master/doc/naming.md
        sources: what declares the services; see :meth:`Schema.load`. Without any, and without
            ``schema``, the server is asked, through its reflection service, for what is used.
        schema: a schema that is there already, in place of sources.
        include: import roots for ``sources``.
        tls: False for a connection in the clear; True for TLS with the system's authorities; the
            path of a PEM file with an authority, or PEM bytes; a :class:`TLS` for all else, mutual
            TLS among it; or gRPC's own channel credentials.
        token: an OAuth2 or JWT token that each call carries as ``authorization: Bearer …``, or a
            function that gives it, called for each call on a thread of gRPC's. Only with TLS.
        metadata: what every call carries, as a mapping or as pairs.
        timeout: seconds that a call may take where it says nothing else; a call that says
            ``math.inf`` has no limit, as by default none has.
        compression: of requests, where a call says nothing else.
        service_config: gRPC's service config, in JSON or as a mapping; see
            :func:`dynserve.service_config`.
        keepalive: seconds without traffic, while calls are under way, after which the connection
            is probed. Servers end one that is probed too often: 300 is taken by all.
        keepalive_timeout: seconds that the answer to a probe may take.
        max_message_bytes: the longest message to send and to receive; gRPC's default is 4 MiB for
            what is received and no limit for what is sent.
        options: arguments of gRPC's core, which override all other.
        reflection_metadata: what questions to the server's reflection carry beside ``metadata``.
        reflection_timeout: seconds that all questions to the server's reflection may take which
            one thing leads to, such as a service with all that it needs.

    Raises:
        TargetError: ``target`` is none.
        CredentialsError: a PEM file cannot be read, or ``token`` is given without TLS.
        TypeError: sources and a schema are given.
    """

    def __init__(
        self,
        target: str,
        *sources: Source,
        schema: Schema | None = None,
        include: Sequence[str | os.PathLike[str]] = (),
        tls: bool | str | os.PathLike[str] | bytes | TLS | grpc.ChannelCredentials = False,
        token: Token | None = None,
        metadata: GivenMetadata | None = None,
        timeout: float | None = None,
        compression: grpc.Compression | None = None,
        service_config: str | Mapping[str, Any] | None = None,
        keepalive: float | None = None,
        keepalive_timeout: float | None = None,
        max_message_bytes: int | None = None,
        options: Iterable[tuple[str, Any]] = (),
        reflection_metadata: GivenMetadata | None = None,
        reflection_timeout: float | None = 20.0,
    ) -> None:
        if schema is not None and sources:
            raise TypeError("give either sources or a schema, not both")
        known: object = schema
        if not isinstance(known, (Schema, type(None))):
            raise TypeError(f"got schema={known!r}, expected a Schema; give a source by itself")
        self.target = checked_target(target)
        self._defaults = CallOptions(seconds(timeout), metadata_of(metadata))
        self._reflection_metadata = (*self._defaults.metadata, *metadata_of(reflection_metadata))
        self._reflection_timeout = reflection_timeout
        self._source = _source(self.target, sources, schema, include)
        self._settings = ChannelSettings(
            self.target,
            *channel_credentials(tls, token),
            compression,
            service_config,
            keepalive,
            keepalive_timeout,
            max_message_bytes,
            tuple(options),
        )
        self._methods: dict[str, Any] = {}
        self._unknown: set[str] = set()  # types that were asked for, not to be asked for again
        self._prepare()

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Make what differs between the two worlds."""

    @property
    def schema(self) -> Schema:
        """The schema: all of the sources, or what was asked of the server's reflection so far."""
        return self._source.schema

    def _load_contents(self, message: Message) -> Steps[None]:
        """Have the schema hold what the ``Any`` fields of a message hold, and what those hold."""
        while names := [
            name for name in unknown_contents(message, self.schema) if name not in self._unknown
        ]:
            for name in names:
                self._unknown.add(name)
                with contextlib.suppress(SymbolError):
                    yield from self._source.load(name, "message type")
                if not self.schema.has_message(name):
                    text = "%s does not tell of %s: its content is not shown"
                    _log.warning(text, self._source.name, name)

    async def _take(self, steps: Steps[_Result]) -> _Result:
        """Take the steps, one question to the server's reflection after the other."""
        timeout = self._reflection_timeout
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Question):
                        answer: Any = await self._answers(step, deadline)
                    else:
                        answer = await self._do(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            result: _Result = end.value
            return result

    async def _answers(self, question: Question, deadline: float) -> Answers:
        """What the server's reflection answers; ``deadline`` is of the monotonic clock.

        Where there is only one request, it is sent with the end of the stream: see ``Question``.
        """
        left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        options = {"timeout": left, "metadata": self._reflection_metadata}
        first, *others = question.requests
        channel: Any = self.channel
        if others:
            call = channel.stream_stream(question.path)(iter(question.requests), **options)
        else:
            call = channel.unary_stream(question.path)(first, **options)
        received: list[bytes] = []
        try:
            await self._receive(call, len(question.requests), received)
        except grpc.RpcError as error:
            return Answers(received, _failed(error))
        finally:
            call.cancel()
        return Answers(received, None)

    @property
    @abc.abstractmethod
    def channel(self) -> Any:
        """gRPC's own channel."""

    @abc.abstractmethod
    async def _receive(self, call: Any, count: int, received: list[bytes]) -> None:
        """Add so many responses of the call, or all that there are."""

    @abc.abstractmethod
    async def _do(self, function: Callable[[], _Result]) -> _Result:
        """Call what takes a while."""

    def _codec(self, method: MethodInfo) -> Codec:
        types = (method.request.DESCRIPTOR.full_name, method.response.DESCRIPTOR.full_name)
        self._source.check(str(method), *types)
        return Codec(self.schema, method)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.target}>"


class MethodBase(Documented):
    """A method of a server; ``help()`` shows its types and comments."""

    def __init__(self, codec: Codec, defaults: CallOptions) -> None:
        self.info = codec.method
        self._codec = codec
        self._defaults = defaults

    def _told(
        self,
        /,
        *,
        timeout: float | None = None,
        metadata: GivenMetadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        **fields: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields of a request, and what a call is told, as the arguments of gRPC's stubs."""
        return fields, self._options(timeout, metadata, credentials, wait_for_ready, compression)

    def _options(
        self,
        timeout: float | None,
        metadata: GivenMetadata | None,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> dict[str, Any]:
        """What a call is told, as the arguments of gRPC's stubs."""
        return {
            "timeout": self._seconds(timeout),
            "metadata": self._metadata(metadata),
            "credentials": credentials,
            "wait_for_ready": wait_for_ready,
            "compression": compression,
        }

    def _seconds(self, timeout: float | None) -> float | None:
        """The deadline of a call."""
        if timeout is None:
            return self._defaults.timeout
        try:
            return seconds(timeout)
        except (TypeError, ValueError) as error:
            hint = "a field of the name of an argument is given in a dict"
            raise type(error)(f"{self.info}: {error}; {hint}") from None

    def _metadata(self, metadata: GivenMetadata | None) -> Metadata:
        """The client's and the call's own."""
        given = self._defaults.metadata
        return given if metadata is None else (*given, *metadata_of(metadata))

    def __repr__(self) -> str:
        return f"<method {self.info}: {self.info.kind}>"

    def _doc(self) -> str:
        return method_doc(self._codec.schema, self.info)


def seconds(timeout: float | None) -> float | None:
    """A time that a user gave; infinity is no limit.

    Raises:
        TypeError, ValueError: it is none.
    """
    if timeout is None or timeout == math.inf:
        return None
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"got timeout={timeout!r}, expected seconds")
    if math.isnan(timeout):
        raise ValueError("got timeout=nan, expected seconds")
    return timeout


def _failed(error: Any) -> ReceivedError:
    """What gRPC raises for a question to a server's reflection, as a user gets it."""
    return ReceivedError(
        error.code() or grpc.StatusCode.UNKNOWN,
        error.details() or "",
        tuple(error.initial_metadata() or ()),
        tuple(error.trailing_metadata() or ()),
    )


def no_method(path: str, error: SymbolError) -> SymbolError:
    """What looking up a method's service raises; a service in place of a method is said to be."""
    if path in error.nearest:
        return SymbolError("method", path, place=f"{error.place}: it is a service, name one of its")
    return error


def unreachable(target: str, timeout: float | None) -> TimeoutError:
    """What waiting for a connection raises when it is over."""
    return TimeoutError(f"{target} could not be reached in {timeout:g} s")


def split_path(path: str) -> tuple[str, str]:
    """The service and the name in ``pkg.Service/Method``, or as grpcurl has it with a dot.

    Raises:
        SymbolError: it is neither.
    """
    path = path.removeprefix("/")
    separator = "/" if "/" in path else "."
    service, _, name = path.rpartition(separator)
    if not service or not name:
        raise SymbolError("method", path, place="(expected pkg.Service/Method)")
    return service, name


def _source(
    target: str,
    sources: Sequence[Source],
    schema: Schema | None,
    include: Sequence[str | os.PathLike[str]],
) -> SchemaSource:
    if schema is not None:
        known = schema
        return Given(lambda: known)
    if sources:
        return Given(lambda: Schema.load(*sources, include=include))
    return Reflected(target)
