"""Calls on the event loop."""

from __future__ import annotations

import asyncio
import functools
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from dynserve.method import MethodInfo
from dynserve.status import Metadata, StatusError

from .aio_ending import Ending
from .base import CallOptions, GivenMetadata, MethodBase
from .codec import Codec

__all__ = ["AsyncCall", "AsyncMethod"]

_PATIENCE = 0.1  # seconds for a status to come; it does not come before the responses are read


class AsyncMethod(MethodBase):
    """A method of a server, to be called as a function: ``await`` it, or ``async for`` over it."""

    def __init__(self, make: Callable[[], Any], codec: Codec, defaults: CallOptions) -> None:
        """``make`` gives gRPC's own callable, when the event loop runs."""
        super().__init__(codec, defaults)
        self._make = make

    @functools.cached_property
    def _multicallable(self) -> Any:
        return self._make()

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
        outgoing: Outgoing | None = None
        if not self._codec.sends_stream:
            sent: Any = self._codec.encode_one(request, fields)
        elif request is None and not fields:
            sent = None
        else:
            requests = self._codec.stream_of(request, fields, (AsyncIterable, Iterable))
            outgoing = Outgoing(requests, self._codec)
            sent = outgoing.encoded()
        call = self._multicallable(
            sent,
            timeout=self._seconds(timeout),
            metadata=self._metadata(metadata),
            credentials=credentials,
            wait_for_ready=wait_for_ready,
            compression=compression,
        )
        if outgoing is not None:
            outgoing.cancel = call.cancel
        return AsyncCall(call, self._codec, outgoing)


class Outgoing:
    """Requests on their way; gRPC iterates over them in a task of its own.

    What they raise there gRPC would only log, and cancel the call. It is kept for who waits for the
    answer.
    """

    def __init__(self, requests: Any, codec: Codec) -> None:
        self.error: BaseException | None = None
        self.cancel: Callable[[], object]
        self._requests = requests
        self._encode = codec.encode

    async def encoded(self) -> AsyncIterator[bytes]:
        """What is sent."""
        requests, self._requests = self._requests, None  # not to be held by who holds the error
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    yield self._encode(request)
            else:
                for request in requests:
                    yield self._encode(request)
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except BaseException as error:
            if self.cancel():  # before gRPC takes the end for the end of the requests
                self.error = error
            raise


class AsyncCall:
    """A call under way.

    ``await`` gives the response where it is one; ``async for`` and ``read`` give those of a stream;
    ``write`` and ``done_writing`` send where requests are a stream that was not given. Leaving an
    ``async with``, or an ``async for`` before its end, cancels the call.

    Raises:
        StatusError: the call ended with another status than OK.
        asyncio.CancelledError: it was cancelled here, or who waits for it was.
        grpc.aio.UsageError: requests are both given and written.
    """

    __slots__ = ("_call", "_codec", "_ending", "_failure", "_is_used", "_messages", "_outgoing")

    def __init__(self, call: Any, codec: Codec, outgoing: Outgoing | None) -> None:
        self._is_used = codec.gets_stream  # or who forgot to await it is warned
        self._call = call
        self._codec = codec
        self._outgoing = outgoing
        self._messages: AsyncIterator[bytes] | None = None
        self._failure: BaseException | None = None
        # Where one request goes with the head of the call, no send can fail by itself.
        self._ending = Ending(call) if codec.sends_stream else None

    @property
    def info(self) -> MethodInfo:
        """The method that is called."""
        return self._codec.method

    def __await__(self) -> Generator[Any, None, Any]:
        if self._codec.gets_stream:
            raise TypeError(f"{self.info} answers with a stream; write: async for response in …")
        self._is_used = True
        try:
            data = yield from self._call.__await__()
        except (grpc.RpcError, asyncio.CancelledError) as error:
            failure: BaseException = error
        else:
            return self._codec.decode(data)
        yield from self._fail(failure).__await__()
        return self._codec.fail(failure)  # it ended well, but its response is lost

    def __aiter__(self) -> AsyncIterator[Any]:
        if not self._codec.gets_stream:
            raise TypeError(f"{self.info} answers with one message; write: response = await …")
        return self._responses()

    async def _responses(self) -> AsyncIterator[Any]:
        try:
            while (response := await self.read()) is not grpc.aio.EOF:
                yield response
        finally:
            self._call.cancel()

    async def __aenter__(self) -> AsyncCall:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    async def read(self) -> Any:
        """The next response of a stream, or ``grpc.aio.EOF`` after the last of a good one."""
        if not self._codec.gets_stream:
            raise TypeError(f"{self.info} answers with one message; write: response = await …")
        if self._failure is not None:
            raise self._failure
        if self._messages is None:
            # gRPC's own read() loses what it has when the call has ended.
            self._messages = aiter(self._call)
        try:
            data = await anext(self._messages)
        except StopAsyncIteration:
            return grpc.aio.EOF
        except (grpc.RpcError, asyncio.CancelledError) as error:
            failure: BaseException = error
        else:
            try:
                return self._codec.decode(data)
            except StatusError as error:
                self._failure = error
                self._call.cancel()  # nobody can go on with it
                raise
        try:
            await self._fail(failure)
        except BaseException as error:
            self._failure = error
            raise
        return grpc.aio.EOF

    async def write(self, request: Any) -> None:
        """Send a request of a stream, when there is room for it.

        Raises:
            MessageError: it does not fit; the call goes on.
            StatusError: the server has ended the call with another status than OK.
            asyncio.InvalidStateError: it has ended the call, and what it answered is to be read; or
                the call was cancelled, or ``done_writing`` was called.
        """
        self._check_sends()
        data = self._codec.encode(request)
        try:
            await self._call.write(data)
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            if self._ending is None or self._call.cancelled() or not self._call.done():
                if isinstance(error, grpc.RpcError):
                    self._codec.fail(error)
                raise
            ending = await self._ending.known(_PATIENCE)
            if ending.is_known and ending.code() is not grpc.StatusCode.OK:
                self._codec.fail(ending, error)
            problem = f"{self.info}: the server has ended the call, nothing more can be written"
            raise asyncio.InvalidStateError(problem) from error

    async def done_writing(self) -> None:
        """Say that no more requests come."""
        self._check_sends()
        await self._call.done_writing()

    async def initial_metadata(self) -> Metadata:
        """What the server sent first; waits for it."""
        self._is_used = True
        return tuple(await self._call.initial_metadata() or ())

    async def trailing_metadata(self) -> Metadata:
        """What the server sent with the status; waits for it."""
        self._is_used = True
        if self._ending is not None:
            return (await self._ending.known()).trailing_metadata()
        return tuple(await self._call.trailing_metadata() or ())

    async def code(self) -> grpc.StatusCode:
        """The status code; waits for the end of the call."""
        self._is_used = True
        if self._ending is not None:
            return (await self._ending.known()).code()
        code: grpc.StatusCode = await self._call.code()
        return code

    async def details(self) -> str:
        """The text of the status; waits for the end of the call."""
        self._is_used = True
        if self._ending is not None:
            return (await self._ending.known()).details()
        return await self._call.details() or ""

    async def wait_for_connection(self) -> None:
        """Wait until the call has a connection."""
        self._is_used = True
        await self._call.wait_for_connection()

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, None without one."""
        remaining: float | None = self._call.time_remaining()
        return remaining

    def cancel(self) -> bool:
        """Cancel the call; whether there was one to cancel."""
        self._is_used = True
        return bool(self._call.cancel())

    def cancelled(self) -> bool:
        """Whether the call was cancelled."""
        return bool(self._call.cancelled())

    def done(self) -> bool:
        """Whether the call has ended."""
        return bool(self._call.done())

    def add_done_callback(self, callback: Callable[[AsyncCall], object]) -> None:
        """Have ``callback(call)`` called when the call has ended."""
        self._is_used = True
        self._call.add_done_callback(lambda _: callback(self))

    async def _fail(self, error: BaseException) -> None:
        """Raise what the caller is to see; what its own requests raised comes first.

        Returns where the call has truly ended well.
        """
        if self._outgoing is not None and self._outgoing.error is not None:
            raise self._outgoing.error
        if not isinstance(error, grpc.RpcError):
            raise error
        ending = error if self._ending is None else await self._ending.instead_of(error)
        if ending.code() is not grpc.StatusCode.OK:
            self._codec.fail(ending, error)

    def _check_sends(self) -> None:
        if not self._codec.sends_stream:
            raise TypeError(f"{self.info} takes one request, which it was given when it was called")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(f"a call has no {name!r}: {self._how()}", name=name, obj=None)

    def __iter__(self) -> Any:
        raise TypeError(f"{self.info}: {self._how()}")

    def _how(self) -> str:
        return "write: async for response in …" if self._codec.gets_stream else "await it first"

    def __del__(self) -> None:
        if not getattr(self, "_is_used", True):
            warnings.warn(f"the call of {self.info} was never awaited", RuntimeWarning, 2, self)

    def __repr__(self) -> str:
        return f"<call of {self.info}: {'ended' if self.done() else 'under way'}>"
