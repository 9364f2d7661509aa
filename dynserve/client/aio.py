"""The client of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from dynserve.errors import ReflectionError
from dynserve.method import MethodInfo
from dynserve.status import Metadata, ReceivedError

from .aio_call import AsyncMethod
from .base import ClientBase, split_path
from .reflected import Question, Steps
from .stub import Stub

__all__ = ["AsyncClient"]

_Result = TypeVar("_Result")


class AsyncClient(ClientBase):  # noqa: D101 - the docstring is made of its base's, for help()
    __doc__ = f"""{ClientBase.__doc__}
    All of it on one event loop, the one that runs when it is first used; to be closed, best by
    ``async with``::

        async with dynserve.aio.connect("localhost:50051") as client:
            route_guide = await client.service("routeguide.RouteGuide")
            feature = await route_guide.GetFeature(latitude=1, longitude=2)
    """

    def _prepare(self) -> None:
        self._lock = asyncio.Lock()
        self._open: grpc.aio.Channel | None = None

    @property
    def channel(self) -> grpc.aio.Channel:
        """gRPC's own channel, for what is not here; made when the loop runs."""
        if self._open is None:
            self._open = self._settings.open_aio()
        return self._open

    async def service(self, name: str) -> Stub[AsyncMethod]:
        """A stub of the service of that full name.

        Raises:
            SymbolError: there is no such service.
            ReflectionError: the server tells of none; name the sources.
            StatusError: the server could not be asked.
            SourceError, CompileError, CompilerError, DescriptorError: see :meth:`Schema.load`.
        """
        await self._load(name, "service")
        return Stub(self.schema.service(name), self._method)

    async def method(self, path: str) -> AsyncMethod:
        """A method by ``pkg.Service/Method``; raises as :meth:`service`."""
        service, name = split_path(path)
        await self._load(service, "service")
        return self._method(self.schema.method(f"{service}/{name}"))

    async def services(self) -> tuple[str, ...]:
        """The full names of the services: those of the sources, or all that the server tells of.

        Raises:
            ReflectionError, StatusError: as :meth:`service`.
        """
        return await self._run(self._source.services())

    async def load(self, *symbols: str) -> None:
        """Have the schema hold these symbols: messages to be made of it, content of an ``Any``.

        Raises:
            SymbolError: the server knows no such symbol.
            ReflectionError, StatusError: as :meth:`service`.
        """
        for symbol in symbols:
            await self._load(symbol, "symbol")

    async def load_contents(self, message: Message) -> None:
        """Have the schema hold the types of all that the ``Any`` fields of a message hold.

        Then it has a JSON form: ``client.schema.to_json(message)``. Of a type that the server does
        not tell of nothing is shown in it, and a warning is logged.
        """
        await self._run(self._load_contents(message))

    async def wait_until_ready(self) -> None:
        """Connect now, and return when the server can be called."""
        await self.channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """End the connection; calls under way have ``grace`` seconds to end by themselves."""
        if self._open is not None:
            await self._open.close(grace)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _load(self, symbol: str, kind: str) -> None:
        if not self._source.has(symbol):
            await self._run(self._source.load(symbol, kind))

    def _method(self, info: MethodInfo) -> AsyncMethod:
        method: AsyncMethod | None = self._methods.get(info.path)
        if method is None:
            make = getattr(self.channel, info.kind.name.lower())  # channel.unary_unary and so on
            method = AsyncMethod(make(info.path), self._codec(info), self._defaults)
            self._methods[info.path] = method
        return method

    async def _run(self, steps: Steps[_Result]) -> _Result:
        """Take the steps, one question to the server's reflection after the other."""
        async with self._lock:
            conversation = _Conversation(self, self._reflection_metadata, self._reflection_timeout)
            try:
                step = next(steps)
                while True:
                    try:
                        if isinstance(step, Question):
                            answer: Any = await conversation.ask(step)
                        else:
                            answer = await asyncio.to_thread(step)
                    except Exception as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as end:
                result: _Result = end.value
                return result
            finally:
                conversation.end()


class _Conversation:
    """Questions and answers on one stream; another one when the method is another."""

    def __init__(self, client: AsyncClient, metadata: Metadata, timeout: float | None) -> None:
        self._client = client
        self._metadata = metadata
        self._timeout = timeout
        self._path = ""
        self._requests: asyncio.Queue[bytes] = asyncio.Queue()
        self._call: Any = None

    async def ask(self, question: Question) -> list[bytes]:
        """The answers, in order."""
        if question.path != self._path:
            self._begin(question.path)
        for request in question.requests:
            self._requests.put_nowait(request)
        try:
            return [await self._answer() for _ in question.requests]
        except grpc.RpcError as error:
            status: Any = error
            self._path = ""  # the stream has ended
            raise ReceivedError(status.code(), status.details() or "") from error

    async def _answer(self) -> bytes:
        answer: Any = await self._call.read()
        if answer is grpc.aio.EOF:
            self._path = ""
            raise ReflectionError(self._client.target, "ended the stream of its reflection")
        data: bytes = answer
        return data

    def _begin(self, path: str) -> None:
        self.end()
        self._path = path
        self._requests = asyncio.Queue()
        channel: Any = self._client.channel
        self._call = channel.stream_stream(path)(
            _all_of(self._requests), timeout=self._timeout, metadata=self._metadata
        )

    def end(self) -> None:
        """End the stream, if there is one."""
        if self._call is not None:
            self._call.cancel()


async def _all_of(requests: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while True:  # the call is cancelled when nothing is left to ask
        yield await requests.get()
