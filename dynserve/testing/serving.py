"""An app that is served for the time of a test, and a client of it."""

from __future__ import annotations

import builtins
import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
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
    raises the exception itself, or a RuntimeError from one that would end the test run, such as
    SystemExit. What no call raised, since nobody waited for its end, is raised once the server has
    stopped, unless the test has failed anyway. Where an app is served more than once at a time, by
    the one that ends first: an exception does not tell which of them it was.

    Args:
        app: what to serve. With others mounted in it, the client asks the server's reflection.
        unix: on a unix socket in a temporary folder rather than on a port.
        raise_server_exceptions: False to see what a peer sees.
        grace: seconds that handlers have to end when the server stops.
        client: arguments of :class:`dynserve.Client`, such as ``{"metadata": …}``.
        options: arguments of :class:`dynserve.Server`.

    Raises:
        BindError, AddressError: as :class:`dynserve.Server`, when the block is entered.
        RuntimeError: the block is entered a second time.
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
        self._is_entered = False
        self._exits = contextlib.ExitStack()
        self._async_exits = contextlib.AsyncExitStack()

    def __enter__(self) -> Client:
        self._enter()
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
        self._enter()
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

    def _enter(self) -> None:
        if self._is_entered:
            raise RuntimeError("a Serving is entered once; call serve() again for another")
        self._is_entered = True

    def _server(self, exits: contextlib.ExitStack | contextlib.AsyncExitStack) -> Server:
        address = "127.0.0.1:0"
        if self._unix:
            folder = tempfile.mkdtemp(prefix="dynserve-")
            exits.callback(shutil.rmtree, folder, ignore_errors=True)
            address = f"unix:{os.path.join(folder, 'socket')}"
        server = self._app.server(address, **self._options)
        if self._raised is not None:
            exits.enter_context(self._raised.witnessing([u.rules for u in self._app.units()]))
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
        group = getattr(builtins, "ExceptionGroup", None)  # new in Python 3.11
        if len(left) == 1 or group is None:
            raise left[0]
        raise group("what handlers raised and no call did", left)


class _Raised:
    """What handlers raise, by error id; a witness of the rules of an app.

    Every serving of the app is told of all, since the rules are the app's; what one of them has
    taken, the others forget.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: dict[str, BaseException] = {}
        self._rules: Sequence[ErrorRules] = ()

    def __call__(self, error: BaseException, identifier: str) -> None:
        with self._lock:
            self._errors[identifier] = error

    @contextlib.contextmanager
    def witnessing(self, rules: Sequence[ErrorRules]) -> Any:
        """Be told while the block runs."""
        self._rules = rules
        for one in rules:
            one.add_witness(self)
        try:
            yield
        finally:
            for one in rules:
                one.remove_witness(self)

    def behind(self, text: str) -> Exception | None:
        """The exception that a peer is told of by this text; None where there is none."""
        match = _ERROR_ID.fullmatch(text)
        if match is None:
            return None
        error = self._pop(match[1])
        return None if error is None else self._taken(match[1], error)

    def take(self) -> list[Exception]:
        """Those that nobody asked for."""
        with self._lock:
            left, self._errors = self._errors, {}
        return [self._taken(identifier, error) for identifier, error in left.items()]

    def _taken(self, identifier: str, error: BaseException) -> Exception:
        for rules in self._rules:
            for other in rules.witnesses:
                if isinstance(other, _Raised):
                    other._pop(identifier)
        return _as_exception(error)

    def _pop(self, identifier: str) -> BaseException | None:
        with self._lock:
            return self._errors.pop(identifier, None)


def _as_exception(error: BaseException) -> Exception:
    """The error, or one from it that a test can fail with: SystemExit would end the run."""
    if isinstance(error, Exception):
        return error
    text = f": {error}" if str(error) else ""
    wrapped = RuntimeError(f"a handler raised {type(error).__name__}{text}")
    wrapped.__cause__ = error
    return wrapped


class _TestCodec(Codec):
    """Raises what the handler raised where a peer would get INTERNAL and an id."""

    __slots__ = ("_raised",)

    def __init__(self, codec: Codec, raised: _Raised) -> None:
        super().__init__(codec.schema, codec.method)
        self._raised = raised

    def fail(self, error: Any, cause: BaseException | None = None) -> NoReturn:
        behind = self._raised.behind(error.details() or "")
        if behind is not None:
            context = behind.__context__
            try:
                raise behind
            finally:  # raised while gRPC's error is handled, it got that for its context
                behind.__context__ = context
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
