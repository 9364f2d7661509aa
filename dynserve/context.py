"""Context: what a handler may ask and say about its call.

An engine hands every call its own context, ``grpc.ServicerContext`` to a sync handler and
``grpc.aio.ServicerContext`` to an async one. These wrap it, so that handlers see one interface with
one behaviour on every engine, and handlers written for generated code run unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NoReturn

import grpc
import grpc.aio

from dynserve.method import MethodInfo
from dynserve.request_id import request_id_of
from dynserve.status import AbortError, Metadata, checked_code, checked_metadata, checked_text

if TYPE_CHECKING:
    import asyncio

    from google.protobuf.message import Message
    from typing_extensions import TypeVar  # 3.13: that of typing

    from dynserve.identity import Identity

    StateT = TypeVar("StateT", default=Any)
else:
    from typing import TypeVar

    StateT = TypeVar("StateT")

__all__ = ["NO_STATE", "AsyncContext", "Context", "Shared"]

NO_STATE = object()


class Shared:
    """What the calls of an app have in common while a server runs."""

    __slots__ = ("value",)

    def __init__(self, value: Any = NO_STATE) -> None:
        self.value = value  # what the lifespan gave

    @property
    def state(self) -> Any:
        """What the lifespan gave.

        Raises:
            RuntimeError: there is no lifespan.
        """
        if self.value is NO_STATE:
            raise RuntimeError("there is no state: the app has no @app.lifespan that yields it")
        return self.value


_NOTHING_SHARED = Shared()


class _CallView(Generic[StateT]):
    """What the two contexts share: everything that does not wait."""

    _call: Any
    _shared: Shared
    _request_id: str | None = None
    method: MethodInfo
    identity: Identity | None = None
    """Who calls, as authentication found it; None where nobody asked."""

    @property
    def state(self) -> StateT:
        """What the app's lifespan gave.

        Raises:
            RuntimeError: the app has no lifespan.
        """
        state: StateT = self._shared.state
        return state

    @property
    def request_id(self) -> str:
        """The id of this call for logs: the client's ``x-request-id``, else one made here."""
        if self._request_id is None:
            self._request_id = request_id_of(self.invocation_metadata())
        return self._request_id

    def invocation_metadata(self) -> Metadata:
        """The metadata that the client sent, as pairs; values of ``-bin`` keys are bytes."""
        return tuple(self._call.invocation_metadata() or ())

    def peer(self) -> str:
        """Who calls, as a URI: ``ipv4:127.0.0.1:52814``, ``unix:``; empty once the call is over."""
        return str(self._call.peer())

    def peer_identities(self) -> Iterable[bytes] | None:
        """What the client's certificate proves, None without one."""
        identities: Iterable[bytes] | None = self._call.peer_identities()
        return identities

    def peer_identity_key(self) -> str | None:
        """Which property of the certificate the identities are, None without one."""
        key: str | None = self._call.peer_identity_key()
        return key

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """The properties of the connection's security."""
        properties: Mapping[str, Iterable[bytes]] = self._call.auth_context()
        return properties

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline, at least 0.0; None without a deadline."""
        remaining: float | None = self._call.time_remaining()
        return remaining

    def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with a status by raising; in async handlers it may be awaited.

        Raises:
            StatusError: always.
            ValueError: ``code`` is OK, or the metadata cannot be sent.
        """
        error = AbortError(code, details, trailing_metadata=trailing_metadata)
        # Should the handler swallow the exception, the call has the status all the same.
        self._call.set_code(error.code())
        self._call.set_details(error.details())
        raise error

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a ``grpc.Status``, such as ``grpc_status.rpc_status`` makes.

        Raises:
            StatusError: always.
        """
        self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Set what is sent with the status.

        Raises:
            TypeError, ValueError: gRPC cannot send it.
        """
        self._call.set_trailing_metadata(checked_metadata(trailing_metadata))

    def trailing_metadata(self) -> Metadata:
        """What was set to be sent with the status."""
        return tuple(self._call.trailing_metadata() or ())

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code that the call ends with when the handler returns or fails."""
        self._call.set_code(checked_code(code))

    def set_details(self, details: str) -> None:
        """Set the text of the status that the call ends with when the handler returns or fails."""
        self._call.set_details(checked_text(details))

    def code(self) -> grpc.StatusCode | None:
        """The status code that was set, None (or OK) where none was."""
        code: grpc.StatusCode | None = self._call.code()
        return code

    def details(self) -> str:
        """The text of the status that was set."""
        details = self._call.details() or ""
        return details.decode() if isinstance(details, bytes) else str(details)

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress this call's responses; before the first of them."""
        self._call.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        """Send the next response uncompressed."""
        self._call.disable_next_message_compression()


# The stubs of grpcio are stricter than its own contexts: None for no deadline, lists of identities.
class Context(_CallView[StateT], grpc.ServicerContext):  # type: ignore[misc]
    """The context of a sync handler: grpcio's interface, plus what is dynserve's.

    That is ``method``, ``identity``, ``state`` and ``request_id``. In annotations it takes the type
    of the state: ``Context[State]``.
    """

    def __init__(self, call: Any, method: MethodInfo, shared: Shared = _NOTHING_SHARED) -> None:
        self._call = call
        self._shared = shared
        self.method = method

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the server, for what has to run there.

        Raises:
            AttributeError: the handler is not served by an engine of dynserve's.
        """
        loop: asyncio.AbstractEventLoop = self._call.event_loop
        return loop

    def send_initial_metadata(self, initial_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send the initial metadata now rather than with the first response.

        Raises:
            TypeError, ValueError: gRPC cannot send it, or it was sent.
        """
        self._call.send_initial_metadata(checked_metadata(initial_metadata))

    def is_active(self) -> bool:
        """Whether the call goes on: neither ended, nor cancelled, nor past its deadline."""
        return bool(self._call.is_active())

    def cancel(self) -> bool:
        """End the call with CANCELLED."""
        return bool(self._call.cancel())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have ``callback`` called when the call ends; False, and no call, where it has ended."""
        return bool(self._call.add_callback(callback))


class AsyncContext(_CallView[StateT], grpc.aio.ServicerContext[Any, Any]):  # type: ignore[misc]
    """The context of an async handler: grpc.aio's interface, plus what :class:`Context` has."""

    def __init__(
        self,
        call: Any,
        method: MethodInfo,
        decode: Callable[[bytes], Message],
        encode: Callable[[object], bytes],
        shared: Shared = _NOTHING_SHARED,
    ) -> None:
        self._call = call
        self._shared = shared
        self.method = method
        self._decode = decode
        self._encode = encode

    async def send_initial_metadata(
        self, initial_metadata: Iterable[tuple[str, str | bytes]]
    ) -> None:
        """Send the initial metadata now rather than with the first response.

        Raises:
            TypeError, ValueError: gRPC cannot send it.
        """
        await self._call.send_initial_metadata(checked_metadata(initial_metadata))

    async def read(self) -> Any:
        """The next request of a stream, or ``grpc.aio.EOF``."""
        data = await self._call.read()
        return data if data is grpc.aio.EOF else self._decode(data)

    async def write(self, message: object) -> None:
        """Send a response of a stream; an alternative to yielding it.

        Raises:
            MessageError: it is not, and does not become, a message of the response type.
        """
        await self._call.write(self._encode(message))

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have ``callback(context)`` called on the loop when the call ends."""
        self._call.add_done_callback(lambda _: callback(self))

    def cancelled(self) -> bool:
        """Whether the call ended with CANCELLED."""
        return bool(self._call.cancelled())

    def done(self) -> bool:
        """Whether the call has ended."""
        return bool(self._call.done())
