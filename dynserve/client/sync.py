"""The sync client."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from dynserve.errors import SymbolError
from dynserve.method import MethodInfo

from .base import ClientBase, no_method, split_path, unreachable
from .reflected import Steps
from .stub import Stub
from .sync_call import Method, method_of

__all__ = ["Client", "connect"]

_Result = TypeVar("_Result")


class Client(ClientBase):  # noqa: D101 - the docstring is made of its base's, for help()
    __doc__ = f"""{ClientBase.__doc__}
    Safe to use from several threads; to be closed, best by ``with``::

        with dynserve.connect("localhost:50051") as client:
            route_guide = client.service("routeguide.RouteGuide")
            feature = route_guide.GetFeature(latitude=1, longitude=2)
    """

    def _prepare(self) -> None:
        self._channel = self._settings.open()
        self._lock = threading.Lock()

    @property
    def channel(self) -> grpc.Channel:
        """gRPC's own channel, for what is not here."""
        return self._channel

    def service(self, name: str) -> Stub[Method]:
        """A stub of the service of that full name.

        Raises:
            SymbolError: there is no such service.
            ReflectionError: the server tells of none; name the sources.
            StatusError: the server could not be asked.
            SourceError, CompileError, CompilerError, DescriptorError: see :meth:`Schema.load`.
        """
        self._load(name, "service")
        return Stub(self.schema.service(name), self._method)

    def method(self, path: str) -> Method:
        """A method by ``pkg.Service/Method``; raises as :meth:`service`."""
        service, name = split_path(path)
        try:
            self._load(service, "service")
        except SymbolError as error:
            raise no_method(path, error) from None
        return self._method(self.schema.method(f"{service}/{name}"))

    def services(self) -> tuple[str, ...]:
        """The full names of the services: those of the sources, or all that the server tells of.

        Raises:
            ReflectionError, StatusError: as :meth:`service`.
        """
        return self._run(self._source.services())

    def load(self, *symbols: str) -> None:
        """Have the schema hold these symbols: messages to be made of it, content of an ``Any``.

        Raises:
            SymbolError: the server knows no such symbol.
            ReflectionError, StatusError: as :meth:`service`.
        """
        for symbol in symbols:
            self._load(symbol, "symbol")

    def load_contents(self, message: Message) -> None:
        """Have the schema hold the types of all that the ``Any`` fields of a message hold.

        Then it has a JSON form: ``client.schema.to_json(message)``. A type that the server does not
        tell of is logged as a warning; with ``allow_unknown_any=True`` the rest has a form.
        """
        self._run(self._load_contents(message))

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Connect now, and return when the server can be called.

        Raises:
            TimeoutError: it could not in ``timeout`` seconds.
        """
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout)
        except grpc.FutureTimeoutError as error:
            ready.cancel()
            raise unreachable(self.target, timeout) from error

    def close(self) -> None:
        """Cancel the calls under way and end the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _load(self, symbol: str, kind: str) -> None:
        if not self._source.has(symbol):
            self._run(self._source.load(symbol, kind))

    def _method(self, info: MethodInfo) -> Method:
        method: Method | None = self._methods.get(info.path)
        if method is None or method.info is not info:  # of a schema that was begun anew
            method = method_of(self._channel, self._codec(info), self._defaults)
            self._methods[info.path] = method
        return method

    def _run(self, steps: Steps[_Result]) -> _Result:
        with self._lock:
            taking = self._take(steps)
            try:
                taking.send(None)  # nothing in it waits but for the channel
            except StopIteration as end:
                result: _Result = end.value
                return result
            raise RuntimeError("a step of the sync client waits for an event loop")

    async def _receive(self, call: Any, count: int, received: list[bytes]) -> None:
        received.extend(itertools.islice(call, count))

    async def _do(self, function: Callable[[], _Result]) -> _Result:
        return function()


connect = Client
