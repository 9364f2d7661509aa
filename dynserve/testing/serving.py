"""An app that is served for the time of a test, and a client of it."""

from __future__ import annotations

import builtins
import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NoReturn

from dynserve.app import App
from dynserve.client.aio import AsyncClient
from dynserve.client.codec import Codec
from dynserve.client.sync import Client
from dynserve.method import MethodInfo
from dynserve.server import Server
from dynserve.status import ErrorRules

__all__ = ["Serving", "serve"]

_ERROR_ID = re.compile(r"internal error \(error id ([0-9a-f]+)\)")


def serve(
    app: App,
    *,
    unix: bool = False,
    raise_server_exceptions: bool = True,
    grace: float = 5.0,
    client: Mapping[str, Any] | None = None,
    **options: Any,
) -> Serving:
    """Serve an app for the time of a ``with`` or an ``async with``, which gives a client of it.

    It is the real server, on a free port of 127.0.0.1 or a unix socket, and the real client. At the
    end the client is closed, which cancels what it left under way, and the server stops.

    Where a handler raises what nobody foresaw, a peer gets INTERNAL and an error id. Here the call
    raises the exception itself. What no call raised, since nobody waited for its end, is raised
    once the server has stopped, unless the test has failed anyway.

    Args:
        app: what to serve. With others mounted in it, the client asks the server's reflection.
        unix: on a unix socket in a temporary folder rather than on a port.
        raise_server_exceptions: False to see what a peer sees.
        grace: seconds that handlers have to end when the server stops.
        client: arguments of :class:`dynserve.Client`, such as ``{"metadata": …}``.
        options: arguments of :class:`dynserve.Server`.

    Raises:
        BindError, AddressError: as :class:`dynserve.Server`, when the block is entered.
        ExceptionGroup: at the end, where several exceptions are left; on Python 3.10 the first.
    """
    return Serving(app, unix, raise_server_exceptions, grace, dict(client or {}), options)


class Serving:
    """What :func:`serve` makes; to be entered once, by ``with`` or by ``async with``."""

    def __init__(
        self,
        app: App,
        unix: bool,
        raise_server_exceptions: bool,
        grace: float,
        client: dict[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self._app = app
        self._unix = unix
        self._raised = _Raised() if raise_server_exceptions else None
        self._grace = grace
        self._client = client
        self._options = options
        self._exits = contextlib.ExitStack()
        self._async_exits = contextlib.AsyncExitStack()

    def __enter__(self) -> Client:
        with contextlib.ExitStack() as exits:
            server = exits.enter_context(self._server(exits).in_thread(self._grace))
            client = _TestClient(server.addresses[0], **self._client_options())
            client.raised = self._raised
            exits.enter_context(client)
            self._exits = exits.pop_all()
        return client

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exits.close()
        self._raise_what_is_left(exc)

    async def __aenter__(self) -> AsyncClient:
        async with contextlib.AsyncExitStack() as exits:
            server = self._server(exits)
            await server.start()
            exits.push_async_callback(server.stop, self._grace)
            client = _AsyncTestClient(server.addresses[0], **self._client_options())
            client.raised = self._raised
            await exits.enter_async_context(client)
            self._async_exits = exits.pop_all()
        return client

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._async_exits.aclose()
        self._raise_what_is_left(exc)

    def _server(self, exits: contextlib.ExitStack | contextlib.AsyncExitStack) -> Server:
        address = "127.0.0.1:0"
        if self._unix:
            folder = tempfile.mkdtemp(prefix="dynserve-")
            exits.callback(shutil.rmtree, folder, ignore_errors=True)
            address = f"unix:{os.path.join(folder, 'socket')}"
        server = self._app.server(address, **self._options)
        if self._raised is not None:
            exits.enter_context(self._raised.witnessing(u.rules for u in self._app.units()))
        return server

    def _client_options(self) -> dict[str, Any]:
        units = self._app.units()
        if len(units) == 1:
            self._client.setdefault("schema", units[0].schema)
        return self._client

    def _raise_what_is_left(self, failure: BaseException | None) -> None:
        left = self._raised.take() if self._raised is not None else []
        if not left or failure is not None:
            return
        group = getattr(builtins, "BaseExceptionGroup", None)  # new in Python 3.11
        if len(left) == 1 or group is None:
            raise left[0]
        raise group("what handlers raised and no call did", left)


class _Raised:
    """What handlers raise, by error id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: dict[str, BaseException] = {}

    @contextlib.contextmanager
    def witnessing(self, rules: Iterable[ErrorRules]) -> Any:
        """Be told while the block runs."""
        told = list(rules)
        for one in told:
            one.witness = self._add
        try:
            yield
        finally:
            for one in told:
                one.witness = None

    def _add(self, error: BaseException, identifier: str) -> None:
        with self._lock:
            self._errors[identifier] = error

    def behind(self, text: str) -> BaseException | None:
        """The exception that a peer is told of by this text; None where there is none."""
        match = _ERROR_ID.fullmatch(text)
        with self._lock:
            return None if match is None else self._errors.pop(match[1], None)

    def take(self) -> list[BaseException]:
        """Those that nobody asked for."""
        with self._lock:
            left, self._errors = list(self._errors.values()), {}
        return left


class _TestCodec(Codec):
    """Raises what the handler raised where a peer would get INTERNAL and an id."""

    __slots__ = ("_raised",)

    def __init__(self, codec: Codec, raised: _Raised) -> None:
        super().__init__(codec.schema, codec.method)
        self._raised = raised

    def fail(self, error: Any, cause: BaseException | None = None) -> NoReturn:
        behind = self._raised.behind(error.details() or "")
        if behind is not None:
            raise behind
        super().fail(error, cause)


class _TestClient(Client):
    raised: _Raised | None = None

    def _codec(self, method: MethodInfo) -> Codec:
        codec = super()._codec(method)
        return codec if self.raised is None else _TestCodec(codec, self.raised)


class _AsyncTestClient(AsyncClient):
    raised: _Raised | None = None

    def _codec(self, method: MethodInfo) -> Codec:
        codec = super()._codec(method)
        return codec if self.raised is None else _TestCodec(codec, self.raised)
