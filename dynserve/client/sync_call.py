"""Calls of the sync client: a method of each kind, and what it gives back."""

from __future__ import annotations

import abc
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from dynserve.method import Kind
from dynserve.status import Metadata, StatusError

from .base import CallOptions, GivenMetadata, MethodBase
from .codec import Codec

__all__ = ["Future", "Method", "Responses", "method_of"]

if TYPE_CHECKING:  # generic in its stub only
    _GrpcFuture = grpc.Future[Any]
else:
    _GrpcFuture = grpc.Future


def method_of(channel: grpc.Channel, codec: Codec, defaults: CallOptions) -> Method:
    """The method on a channel, of its kind."""
    kind, path = codec.method.kind, codec.method.path
    make = getattr(channel, kind.name.lower())  # channel.unary_unary and so on
    if kind is Kind.UNARY_UNARY:
        return UnaryMethod(make(path), codec, defaults)
    return (StreamMethod if kind.response_streaming else FutureMethod)(make(path), codec, defaults)


class Method(MethodBase):
    """A method of a server, to be called as a function.

    ``with_call`` and ``future`` are there where the answer is one message, and take the same.
    """

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
    ) -> Any:
        """Call the method.

        Args:
            request: a message, or what becomes one, such as a dict. Where requests are a stream,
                an iterable of them; it is iterated on a thread of gRPC's.
            timeout: seconds until the call ends with DEADLINE_EXCEEDED.
            metadata: a mapping or pairs, sent beside the client's own.
            credentials: call credentials, beside the channel's.
            wait_for_ready: wait for a connection, rather than fail with UNAVAILABLE.
            compression: of the requests.
            fields: the fields of the request, in place of ``request``; one that is named as an
                argument above can only be given by a dict.

        Returns:
            The response, or :class:`Responses` to iterate over.

        Raises:
            StatusError: the call ended with another status than OK.
            MessageError: the request does not fit; it was not sent.
        """
        options = self._options(timeout, metadata, credentials, wait_for_ready, compression)
        return self._answer(request, fields, options)

    def with_call(self, request: Any = None, /, **arguments: Any) -> tuple[Any, grpc.Call]:
        """The response, and the call that it came by, which has the metadata.

        Raises:
            TypeError: the answer is a stream, which has them itself.
        """
        future = self.future(request, **arguments)
        return future.result(), future

    def future(self, request: Any = None, /, **arguments: Any) -> Future:
        """Begin the call, and give what will have its response.

        Raises:
            TypeError: the answer is a stream.
        """
        fields, options = self._told(**arguments)
        call, outgoing = self._begin(self._multicallable.future, request, fields, options)
        return Future(call, self._codec, outgoing)

    @abc.abstractmethod
    def _answer(self, request: Any, fields: dict[str, Any], options: dict[str, Any]) -> Any:
        """What calling the method gives."""

    def _begin(
        self,
        begin: Callable[..., Any],
        request: Any,
        fields: dict[str, Any],
        options: dict[str, Any],
    ) -> tuple[Any, Outgoing | None]:
        """gRPC's call, and the stream of requests if it takes one."""
        if not self._codec.sends_stream:
            return begin(self._codec.encode_one(request, fields), **options), None
        requests = self._codec.stream_of(request, fields, Iterable)
        outgoing = Outgoing(requests, self._codec)
        call = begin(outgoing.encoded(), **options)
        outgoing.begun(call)
        return call, outgoing


class FutureMethod(Method):
    """One whose answer is one message."""

    def _answer(self, request: Any, fields: dict[str, Any], options: dict[str, Any]) -> Any:
        call, outgoing = self._begin(self._multicallable.future, request, fields, options)
        future = Future(call, self._codec, outgoing)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise


class UnaryMethod(FutureMethod):
    """One message for another: who calls waits for gRPC itself, and no thread is between."""

    def _answer(self, request: Any, fields: dict[str, Any], options: dict[str, Any]) -> Any:
        data = self._codec.encode_one(request, fields)
        try:
            data = self._multicallable(data, **options)
        except grpc.RpcError as error:
            failure = error
        else:
            return self._codec.decode(data)
        return self._codec.fail(failure)

    def with_call(self, request: Any = None, /, **arguments: Any) -> tuple[Any, grpc.Call]:
        """The response, and the call that it came by, which has the metadata."""
        fields, options = self._told(**arguments)
        data = self._codec.encode_one(request, fields)
        try:
            data, call = self._multicallable.with_call(data, **options)
        except grpc.RpcError as error:
            failure = error
        else:
            return self._codec.decode(data), call
        return self._codec.fail(failure)


class StreamMethod(Method):
    """One whose answer is a stream."""

    def _answer(self, request: Any, fields: dict[str, Any], options: dict[str, Any]) -> Any:
        call, outgoing = self._begin(self._multicallable, request, fields, options)
        return Responses(call, self._codec, outgoing)

    def with_call(self, request: Any = None, /, **arguments: Any) -> tuple[Any, grpc.Call]:
        """Raise: what a call of this kind gives is its call."""
        raise self._no("with_call")

    def future(self, request: Any = None, /, **arguments: Any) -> Future:
        """Raise: there is not one response to wait for."""
        raise self._no("future")

    def _no(self, name: str) -> TypeError:
        return TypeError(
            f"{self.info} answers with a stream and has no {name}; call it, and iterate: what it"
            " returns has code(), initial_metadata() and cancel()"
        )


class Outgoing:
    """Requests on their way; gRPC iterates over them on a thread of its own.

    What they raise there gRPC would log, and end the call with UNKNOWN. It is kept for who waits
    for the answer, and the call cancelled first: the end of the iteration is the end of the
    requests to the server, which would take them for all.

    The thread may wait for a request for ever. It must not hold the call, which is cancelled when
    nobody else does.
    """

    def __init__(self, requests: Iterable[Any], codec: Codec) -> None:
        self.error: BaseException | None = None
        self._requests = requests
        self._encode = codec.encode
        self._is_begun = threading.Event()
        self._call: Callable[[], Any] = lambda: None

    def begun(self, call: Any) -> None:
        """Say which call takes them."""
        self._call = weakref.ref(call)
        self._is_begun.set()

    def encoded(self) -> Iterator[bytes]:
        """What is sent."""
        requests, self._requests = self._requests, ()  # not to be held by who holds the error
        try:
            left = iter(requests)
        except BaseException as error:
            self._fail(error)
            return
        while True:
            try:
                data = self._encode(next(left))
            except StopIteration:
                return
            except BaseException as error:
                self._fail(error)
                return
            yield data

    def _fail(self, error: BaseException) -> None:
        self._is_begun.wait()
        call = self._call()
        if call is not None and call.cancel():  # else the call has ended, and not by this
            self.error = error


class _Call(grpc.Call):
    """What gRPC tells of a call under way, or over, whatever its kind."""

    def __init__(self, call: Any, codec: Codec, outgoing: Outgoing | None) -> None:
        self._call = call
        self._codec = codec
        self._outgoing = outgoing

    def _fail(self, error: Exception) -> NoReturn:
        """Raise what the caller is to see; what its own requests raised comes first."""
        if self._outgoing is not None and self._outgoing.error is not None:
            raise self._outgoing.error
        if isinstance(error, grpc.RpcError):
            self._codec.fail(error)
        raise error

    def initial_metadata(self) -> Metadata:
        """What the server sent first; waits for it."""
        return tuple(self._call.initial_metadata() or ())

    def trailing_metadata(self) -> Metadata:
        """What the server sent with the status; waits for it."""
        return tuple(self._call.trailing_metadata() or ())

    def code(self) -> grpc.StatusCode:
        """The status code; waits for the end of the call."""
        code: grpc.StatusCode = self._call.code()
        return code

    def details(self) -> str:
        """The text of the status; waits for the end of the call."""
        return self._call.details() or ""

    def is_active(self) -> bool:
        """Whether the call goes on."""
        return bool(self._call.is_active())

    def time_remaining(self) -> float | None:  # type: ignore[override]  # None without a deadline
        """Seconds until the deadline, None without one."""
        remaining: float | None = self._call.time_remaining()
        return remaining

    def cancel(self) -> bool:
        """Cancel the call; whether there was one to cancel."""
        return bool(self._call.cancel())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have ``callback`` called at the end of the call; False where it has ended."""
        return bool(self._call.add_callback(callback))


class Responses(_Call):
    """The responses of a call, as an iterator; leaving it early cancels the call, as ``with`` does.

    Raises:
        StatusError: when iterated, after the last response, unless the status is OK.
    """

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            data = next(self._call)
        except grpc.RpcError as error:
            failure = error
        else:
            try:
                return self._codec.decode(data)
            except StatusError:
                self.cancel()  # nobody can go on with it
                raise
        return self._fail(failure)  # out of the except, so that no exception gets another context

    def __repr__(self) -> str:
        return (
            f"<responses of {self._codec.method}: {'under way' if self.is_active() else 'ended'}>"
        )

    def __enter__(self) -> Responses:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


class Future(_Call, _GrpcFuture):
    """A call whose response is not waited for yet."""

    def result(self, timeout: float | None = None) -> Any:
        """The response; waits for it at most ``timeout`` seconds.

        Raises:
            StatusError: the call ended with another status than OK.
            grpc.FutureTimeoutError: it has not ended.
            grpc.FutureCancelledError: it was cancelled.
        """
        try:
            data = self._call.result(timeout)
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            failure: Exception = error
        else:
            return self._codec.decode(data)
        return self._fail(failure)

    def exception(self, timeout: float | None = None) -> Exception | None:
        """What :meth:`result` raises, None where it returns; the same that waiting may raise."""
        try:
            self.result(timeout)
        except (grpc.FutureTimeoutError, grpc.FutureCancelledError):
            raise
        except Exception as error:
            return error
        return None

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """The traceback of :meth:`exception`."""
        error = self.exception(timeout)
        return None if error is None else error.__traceback__

    def add_done_callback(self, fn: Callable[[grpc.Future[Any]], None]) -> None:
        """Have ``fn(self)`` called when the call has ended, on a thread of gRPC's."""
        self._call.add_done_callback(lambda _: fn(self))

    def cancelled(self) -> bool:
        """Whether the call was cancelled here."""
        return bool(self._call.cancelled())

    def running(self) -> bool:
        """Whether the call goes on."""
        return bool(self._call.running())

    def done(self) -> bool:
        """Whether the call has ended."""
        return bool(self._call.done())
