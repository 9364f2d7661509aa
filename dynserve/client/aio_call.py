"""Calls on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from typing import Any, NoReturn

import grpc
import grpc.aio

from dynserve.method import MethodInfo
from dynserve.status import Metadata

from .base import CallOptions, GivenMetadata, MethodBase
from .codec import Codec

__all__ = ["AsyncCall", "AsyncMethod"]


class AsyncMethod(MethodBase):
    """A method of a server, to be called as a function: ``await`` it, or ``async for`` over it."""

    def __init__(self, multicallable: Any, codec: Codec, defaults: CallOptions) -> None:
        super().__init__(codec, defaults)
        self._multicallable = multicallable

    def __call__(
        self,
        request: Any = None,
        /,
        *,
        timeout: float | None = None,
        metadata: GivenMetadata | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
        **fields: Any,
    ) -> AsyncCall:
        """Begin a call.

        Args:
            request: a message, or what becomes one, such as a dict. Where requests are a stream,
                an async or plain iterable of them, or nothing: then they are written to the call.
            timeout: seconds until the call ends with DEADLINE_EXCEEDED.
            metadata: a mapping or pairs, sent beside the client's own.
            credentials: call credentials, beside the channel's.
            wait_for_ready: wait for a connection, rather than fail with UNAVAILABLE.
            compression: of the requests.
            fields: the fields of the request, in place of ``request``; one that is named as an
                argument above can only be given by a dict.

        Raises:
            MessageError: the request does not fit; nothing was sent.
        """
        options = self._options(timeout, metadata, credentials, wait_for_ready, compression)
        codec = self._codec
        if not self.info.kind.request_streaming:
            data = codec.encode_one(request, fields)
            return AsyncCall(self._multicallable(data, **options), codec, None)
        if request is None and not fields:
            return AsyncCall(self._multicallable(None, **options), codec, None)
        requests = codec.stream_of(request, fields, (AsyncIterable, Iterable))
        outgoing = Outgoing(requests, codec)
        call = self._multicallable(outgoing.encoded(), **options)
        outgoing.cancel = call.cancel
        return AsyncCall(call, codec, outgoing)


class Outgoing:
    """Requests on their way; gRPC iterates over them in a task of its own.

    What they raise there gRPC would only log, and cancel the call. It is kept for who waits for the
    answer.
    """

    def __init__(self, requests: Any, codec: Codec) -> None:
        self.error: Exception | None = None
        self.cancel: Callable[[], object]
        self._requests = requests
        self._encode = codec.encode

    async def encoded(self) -> AsyncIterator[bytes]:
        """What is sent."""
        try:
            if isinstance(self._requests, AsyncIterable):
                async for request in self._requests:
                    yield self._encode(request)
            else:
                for request in self._requests:
                    yield self._encode(request)
        except Exception as error:
            self.error = error
            self.cancel()  # before gRPC takes the end for the end of the requests
            raise


class AsyncCall:
    """A call under way.

    ``await`` gives the response where it is one; ``async for`` and ``read`` give those of a stream;
    ``write`` and ``done_writing`` send where requests are a stream that was not given.

    Raises:
        StatusError: the call ended with another status than OK.
        asyncio.CancelledError: it was cancelled here, or who waits for it was.
    """

    __slots__ = ("_call", "_codec", "_outgoing")

    def __init__(self, call: Any, codec: Codec, outgoing: Outgoing | None) -> None:
        self._call = call
        self._codec = codec
        self._outgoing = outgoing

    @property
    def info(self) -> MethodInfo:
        """The method that is called."""
        return self._codec.method

    def __await__(self) -> Generator[Any, None, Any]:
        if self.info.kind.response_streaming:
            raise TypeError(f"{self.info} answers with a stream; write: async for response in …")
        try:
            data = yield from self._call.__await__()
        except (grpc.RpcError, asyncio.CancelledError) as error:
            self._fail(error)
        return self._codec.decode(data)

    def __aiter__(self) -> AsyncIterator[Any]:
        if not self.info.kind.response_streaming:
            raise TypeError(f"{self.info} answers with one message; write: response = await …")
        return self._responses()

    async def _responses(self) -> AsyncIterator[Any]:
        messages = self._call.__aiter__()
        while True:
            try:
                data = await anext(messages)
            except StopAsyncIteration:
                return
            except (grpc.RpcError, asyncio.CancelledError) as error:
                self._fail(error)
            yield self._codec.decode(data)

    async def read(self) -> Any:
        """The next response of a stream, or ``grpc.aio.EOF``."""
        try:
            data = await self._call.read()
        except (grpc.RpcError, asyncio.CancelledError) as error:
            self._fail(error)
        return data if data is grpc.aio.EOF else self._codec.decode(data)

    async def write(self, request: Any) -> None:
        """Send a request of a stream, when there is room for it.

        Raises:
            MessageError: it does not fit; the call goes on.
            asyncio.InvalidStateError: the call has ended, or ``done_writing`` was called.
        """
        data = self._codec.encode(request)
        try:
            await self._call.write(data)
        except grpc.RpcError as error:
            self._fail(error)

    async def done_writing(self) -> None:
        """Say that no more requests come."""
        await self._call.done_writing()

    async def initial_metadata(self) -> Metadata:
        """What the server sent first; waits for it."""
        return tuple(await self._call.initial_metadata() or ())

    async def trailing_metadata(self) -> Metadata:
        """What the server sent with the status; waits for it."""
        return tuple(await self._call.trailing_metadata() or ())

    async def code(self) -> grpc.StatusCode:
        """The status code; waits for the end of the call."""
        code: grpc.StatusCode = await self._call.code()
        return code

    async def details(self) -> str:
        """The text of the status; waits for the end of the call."""
        return await self._call.details() or ""

    async def wait_for_connection(self) -> None:
        """Wait until the call has a connection."""
        await self._call.wait_for_connection()

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, None without one."""
        remaining: float | None = self._call.time_remaining()
        return remaining

    def cancel(self) -> bool:
        """Cancel the call; whether there was one to cancel."""
        return bool(self._call.cancel())

    def cancelled(self) -> bool:
        """Whether the call was cancelled."""
        return bool(self._call.cancelled())

    def done(self) -> bool:
        """Whether the call has ended."""
        return bool(self._call.done())

    def add_done_callback(self, callback: Callable[[AsyncCall], object]) -> None:
        """Have ``callback(call)`` called when the call has ended."""
        self._call.add_done_callback(lambda _: callback(self))

    def _fail(self, error: BaseException) -> NoReturn:
        """Raise what the caller is to see; what its own requests raised comes first."""
        if self._outgoing is not None and self._outgoing.error is not None:
            raise self._outgoing.error from None
        if isinstance(error, grpc.RpcError):
            self._codec.fail(error)
        raise error

    def __repr__(self) -> str:
        return f"<call of {self.info}: {'ended' if self.done() else 'under way'}>"
