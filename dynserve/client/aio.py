"""The client of the event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from dynserve.errors import SymbolError
from dynserve.method import MethodInfo

from .aio_call import AsyncMethod
from .base import ClientBase, no_method, split_path, unreachable
from .reflected import Steps
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
        try:
            await self._load(service, "service")
        except SymbolError as error:
            raise no_method(path, error) from None
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

        Then it has a JSON form: ``client.schema.to_json(message)``. A type that the server does not
        tell of is logged as a warning; with ``allow_unknown_any=True`` the rest has a form.
        """
        await self._run(self._load_contents(message))

    async def wait_until_ready(self, timeout: float | None = None) -> None:
        """Connect now, and return when the server can be called.

        Raises:
            TimeoutError: it could not in ``timeout`` seconds.
        """
        try:
            await asyncio.wait_for(self.channel.channel_ready(), timeout)
        except asyncio.TimeoutError as error:  # another class before Python 3.11
            raise unreachable(self.target, timeout) from error

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
        if method is None or method.info is not info:  # of a schema that was begun anew
            make = functools.partial(self._multicallable, info)
            method = AsyncMethod(make, self._codec(info), self._defaults)
            self._methods[info.path] = method
        return method

    def _multicallable(self, info: MethodInfo) -> Any:
        return getattr(self.channel, info.kind.name.lower())(info.path)  # channel.unary_unary, …

    async def _run(self, steps: Steps[_Result]) -> _Result:
        async with self._lock:
            return await self._take(steps)

    async def _receive(self, call: Any, count: int, received: list[bytes]) -> None:
        async for response in call:
            received.append(response)
            if len(received) == count:
                return

    async def _do(self, function: Callable[[], _Result]) -> _Result:
        return await asyncio.to_thread(function)
