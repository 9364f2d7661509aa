"""grpc.aio's context for an async behaviour, without its traps.

What is mended here, each measured on grpcio 1.85:
  * a cancelled call first ends its requests, as if the client had sent its last one; the handler
    would take half a stream for the whole. The end is held back until the cancellation is in.
  * a read that is cancelled, by ``asyncio.wait_for`` say, loses its message and makes the next read
    an end. Requests are read by a task of their own, a bounded number ahead.
  * two writes at a time, or a status during a write, are an error that leaves the call without any
    status. They wait for each other.
  * a write to a call that is over is an error like any other. Here it is a cancellation.
  * a call's own compression is forgotten where it sends one response and no initial metadata.
  * asking for the peer once the call was freed is a crash of the process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import grpc.aio

__all__ = ["AsyncCall", "receive"]

_MAX_MESSAGES = 16  # requests, and bytes of them, that are read ahead of the handler
_MAX_BYTES = 1 << 20
_TURNS = 4


async def receive(call: Any) -> Any:
    """The next request, or ``grpc.aio.EOF`` once it is sure that the client has sent its last."""
    data = await call.read()
    if data is grpc.aio.EOF:
        # The end of a call that was cancelled comes from the core a moment after the end of its
        # requests, but before another receive is through. Some turns of the loop later whoever
        # waits here is cancelled.
        data = await call.read()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
    return data


class AsyncCall:
    """``grpc.aio.ServicerContext`` over grpc.aio's own; plus ``is_active``."""

    __slots__ = ("_call", "_over", "_requests", "_sending", "_tells_compression")

    def __init__(self, call: Any) -> None:
        self._call = call
        self._over = False
        self._sending: asyncio.Lock | None = None  # most calls send nothing but their response
        self._requests: _Requests | None = None
        self._tells_compression = False  # in initial metadata that is not sent yet

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def end(self) -> None:
        """The behaviour is done; tasks that it left behind may still hold this."""
        self._over = True
        if self._requests is not None:
            self._requests.close()

    def is_active(self) -> bool:
        """Whether the call goes on, as far as is known."""
        return not self._over

    async def read(self) -> Any:
        """The next request, or ``grpc.aio.EOF``."""
        if self._requests is None:
            self._requests = _Requests(self._call)
        return await self._requests.next()

    async def write(self, message: Any) -> None:
        """Send a response; raises CancelledError where the call is over."""
        await self._send(self._call.write, message)

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Send the initial metadata; raises CancelledError where the call is over."""
        self._tells_compression = False
        await self._send(self._call.send_initial_metadata, metadata)

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress the responses of this call."""
        self._call.set_compression(compression)
        self._tells_compression = True

    async def before_response(self) -> None:
        """Whatever has to be sent before the one response of a call."""
        if self._tells_compression:
            await self.send_initial_metadata(())

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> None:
        """End the call with a status, by raising grpc.aio's own exception."""
        await self._send(self._call.abort, code, details, tuple(trailing_metadata))

    async def _send(self, send: Any, *arguments: Any) -> None:
        if self._sending is None:
            self._sending = asyncio.Lock()
        async with self._sending:
            try:
                await send(*arguments)
            except grpc.aio.InternalError as error:
                self._over = True
                raise asyncio.CancelledError from error

    def peer(self) -> str:
        """Who calls; empty once the call is over."""
        return "" if self._over else str(self._call.peer())

    def peer_identities(self) -> Iterable[bytes] | None:
        """What the client's certificate proves."""
        return None if self._over else self._call.peer_identities()

    def peer_identity_key(self) -> str | None:
        """Which property of the certificate the identities are."""
        return None if self._over else self._call.peer_identity_key()

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """The properties of the connection's security."""
        return {} if self._over else self._call.auth_context()


class _Requests:
    """The requests of a call, read ahead by a task of their own."""

    def __init__(self, call: Any) -> None:
        self._items: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read(call))

    def close(self) -> None:
        """Read no more."""
        self._reading.cancel()

    async def next(self) -> Any:
        """The next request, or ``grpc.aio.EOF``."""
        while not self._items:
            if self._ended:
                return grpc.aio.EOF
            self._arrived.clear()
            await self._arrived.wait()
        item = self._items.popleft()
        self._size -= len(item)
        self._taken.set()
        return item

    async def _read(self, call: Any) -> None:
        try:
            while (data := await receive(call)) is not grpc.aio.EOF:
                self._items.append(data)
                self._size += len(data)
                self._arrived.set()
                while len(self._items) >= _MAX_MESSAGES or self._size >= _MAX_BYTES:
                    self._taken.clear()
                    await self._taken.wait()
        except grpc.aio.BaseError:
            pass  # the call has a status; nobody is there to read
        finally:
            self._ended = True
            self._arrived.set()
