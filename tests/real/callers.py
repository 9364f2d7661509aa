"""What a client of dynserve, sync or asyncio, and its command line do with a server.

The two clients are brought to one form, so that a test says once what is promised of both.
"""

from __future__ import annotations

import abc
import asyncio
import json
import queue
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import grpc.aio
from google.protobuf import json_format

import dynserve
from dynserve import StatusError
from dynserve.status import Metadata
from tests.running import ROOT, SECONDS

__all__ = ["Also", "AsyncCaller", "Caller", "Outcome", "Printed", "Send", "SyncCaller", "command"]

# The time of day, and what details are decoded from.
_PASSED_OVER = ("date", "grpc-status-details-bin")


@dataclass(frozen=True)
class Outcome:
    """All that a call gave; messages as JSON, details of the status with their type."""

    responses: list[Any] = field(default_factory=list)
    code: str = "OK"
    text: str = ""
    details: list[tuple[str, Any]] = field(default_factory=list)
    initial: dict[str, str | bytes] = field(default_factory=dict)
    trailing: dict[str, str | bytes] = field(default_factory=dict)


class Send(NamedTuple):
    """A request of a stream, and how many responses to wait for before the next turn."""

    request: Any
    answers: int = 1


class Also(NamedTuple):
    """Another call, of a method with one response, while the stream is open."""

    path: str
    request: Any
    answers: int = 1


Turn: TypeAlias = "Send | Also"


class Caller(abc.ABC):
    """A client for each thing that is asked, with the arguments of ``connect``."""

    def __init__(self, target: str, *sources: Any, **options: Any) -> None:
        self._target = target
        self._sources = sources
        self._options = {"timeout": SECONDS, **options}

    @abc.abstractmethod
    def services(self) -> tuple[str, ...]:
        """The services of the server."""

    @abc.abstractmethod
    def call(self, path: str, request: Any = None, **options: Any) -> Outcome:
        """Call a method of any kind, with one request or a list of them."""

    @abc.abstractmethod
    def converse(self, path: str, *turns: Turn, cancel: bool = False) -> Outcome:
        """Call a method with two streams, and wait at each turn for what it says.

        With ``cancel`` the call is cancelled after the last turn, for servers that never end it.
        """


class SyncCaller(Caller):
    """``dynserve.connect``."""

    def services(self) -> tuple[str, ...]:
        """The services of the server."""
        with self._client() as client:
            return client.services()

    def call(self, path: str, request: Any = None, **options: Any) -> Outcome:
        """Call a method of any kind, with one request or a list of them."""
        responses: list[Any] = []
        with self._client() as client:
            method = client.method(path)
            try:
                if method.info.kind.response_streaming:
                    call = method(request, **options)
                    for response in call:
                        _take(client, response, responses)
                else:
                    response, call = method.with_call(request, **options)
                    _take(client, response, responses)
            except StatusError as error:
                return _failed(responses, error)
            return _done(responses, call.initial_metadata(), call.trailing_metadata())

    def converse(self, path: str, *turns: Turn, cancel: bool = False) -> Outcome:
        """Call a method with two streams, and wait at each turn for what it says."""
        responses: list[Any] = []
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._client() as client:
            call = client.method(path)(iter(requests.get, None))
            try:
                for turn in turns:
                    if isinstance(turn, Also):
                        client.method(turn.path)(turn.request)
                    else:
                        requests.put(turn.request)
                    for _ in range(turn.answers):
                        _take(client, next(call), responses)
                if cancel:
                    call.cancel()
                    return Outcome(responses, call.code().name)
                requests.put(None)
                for response in call:
                    _take(client, response, responses)
            except StatusError as error:
                return _failed(responses, error)
            finally:
                requests.put(None)
            return _done(responses, call.initial_metadata(), call.trailing_metadata())

    def _client(self) -> dynserve.Client:
        return dynserve.connect(self._target, *self._sources, **self._options)


class AsyncCaller(Caller):
    """``dynserve.aio.connect``."""

    def services(self) -> tuple[str, ...]:
        """The services of the server."""

        async def ask() -> tuple[str, ...]:
            async with self._client() as client:
                return await client.services()

        return asyncio.run(ask())

    def call(self, path: str, request: Any = None, **options: Any) -> Outcome:
        """Call a method of any kind, with one request or a list of them."""
        return asyncio.run(self._call(path, request, options))

    async def _call(self, path: str, request: Any, options: Mapping[str, Any]) -> Outcome:
        responses: list[Any] = []
        async with self._client() as client:
            method = await client.method(path)
            call = method(request, **options)
            try:
                if method.info.kind.response_streaming:
                    async for response in call:
                        await _take_async(client, response, responses)
                else:
                    await _take_async(client, await call, responses)
            except StatusError as error:
                return _failed(responses, error)
            return _done(responses, await call.initial_metadata(), await call.trailing_metadata())

    def converse(self, path: str, *turns: Turn, cancel: bool = False) -> Outcome:
        """Call a method with two streams, and wait at each turn for what it says."""
        return asyncio.run(self._converse(path, turns, cancel))

    async def _converse(self, path: str, turns: Iterable[Turn], cancel: bool) -> Outcome:
        responses: list[Any] = []
        async with self._client() as client:
            call = (await client.method(path))()
            try:
                for turn in turns:
                    if isinstance(turn, Also):
                        await (await client.method(turn.path))(turn.request)
                    else:
                        await call.write(turn.request)
                    for _ in range(turn.answers):
                        await _take_async(client, await call.read(), responses)
                if cancel:
                    call.cancel()
                    return Outcome(responses, (await call.code()).name)
                await call.done_writing()
                async for response in _rest(call):
                    await _take_async(client, response, responses)
            except StatusError as error:
                return _failed(responses, error)
            return _done(responses, await call.initial_metadata(), await call.trailing_metadata())

    def _client(self) -> dynserve.aio.Client:
        return dynserve.aio.connect(self._target, *self._sources, **self._options)


async def _rest(call: dynserve.aio.AsyncCall) -> AsyncIterator[Any]:
    while (response := await call.read()) is not grpc.aio.EOF:
        yield response


def _take(client: dynserve.Client, message: Any, responses: list[Any]) -> None:
    """One at a time: what came before an error is there afterwards."""
    client.load_contents(message)
    responses.append(json.loads(client.schema.to_json(message)))


async def _take_async(client: dynserve.aio.Client, message: Any, responses: list[Any]) -> None:
    await client.load_contents(message)
    responses.append(json.loads(client.schema.to_json(message)))


def _done(responses: list[Any], initial: Metadata, trailing: Metadata) -> Outcome:
    return Outcome(responses, initial=_pairs(initial), trailing=_pairs(trailing))


def _failed(responses: list[Any], error: StatusError) -> Outcome:
    details = [(detail.DESCRIPTOR.full_name, _detail(detail)) for detail in error.status_details]
    return Outcome(
        responses,
        error.code().name,
        error.details(),
        details,
        _pairs(error.initial_metadata()),
        _pairs(error.trailing_metadata()),
    )


def _detail(detail: Any) -> Any:
    """As JSON; one of a type that nobody here knows as its two fields."""
    if detail.DESCRIPTOR.full_name == "google.protobuf.Any":
        return detail.type_url, detail.value
    return json_format.MessageToDict(detail)


def _pairs(metadata: Metadata) -> dict[str, str | bytes]:
    return {name: value for name, value in metadata if name not in _PASSED_OVER}


class Printed(NamedTuple):
    """What a command printed, and the exit code."""

    code: int
    out: str
    err: str


def command(*words: object, data: str = "") -> Printed:
    """Run ``dynserve`` with these words, and ``data`` as its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "dynserve", *map(str, words)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        input=data,
    )
    return Printed(done.returncode, done.stdout, done.stderr)
