"""The portable engine: grpc.aio, by its public interface only.

Async behaviours are grpc.aio's own affair. Sync ones run on worker threads of this engine: grpc.aio
has a way to do that too, but it switches threads for each message, keeps a stream's thread from
unary calls, and tells the handler nothing of a cancellation.

Unary calls and streams have threads of their own, so streams that last cannot starve unary calls.
Past the limit of streams a further one is refused with RESOURCE_EXHAUSTED, as it could wait for
ever; a unary call past the limit of threads waits for one.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio

from .bridge import ClosedError, Pipe
from .threads import ThreadPool

__all__ = ["AioEngine"]

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
Metadata = tuple[tuple[str, "str | bytes"], ...]


def default_threads() -> int:
    """How many unary sync handlers run at the same time unless told otherwise."""
    return min(64, (os.cpu_count() or 1) * 4 + 8)


class AioEngine:
    """A ``grpc.aio`` server that also runs sync behaviours well. Made on the loop that it serves.

    Args:
        handlers: what is served.
        options: channel arguments, as ``grpc.aio.server`` takes them.
        compression: the default for responses.
        maximum_concurrent_rpcs: calls past it are refused with RESOURCE_EXHAUSTED.
        threads: how many unary sync handlers run at the same time.
        stream_threads: how many streaming sync handlers run at the same time.
    """

    def __init__(
        self,
        handlers: Sequence[grpc.GenericRpcHandler],
        *,
        options: Sequence[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
        maximum_concurrent_rpcs: int | None = None,
        threads: int | None = None,
        stream_threads: int = 1000,
    ) -> None:
        unary = ThreadPool(threads or default_threads(), "dynserve-unary")
        streams = ThreadPool(stream_threads, "dynserve-stream")
        self._server = grpc.aio.server(
            handlers=[_Adapter(handler, unary, streams) for handler in handlers],
            options=options,
            compression=compression,
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
        )

    def add_port(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen on an address; returns the port, which the system chose where 0 was asked for.

        Raises:
            RuntimeError: the address cannot be bound.
        """
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, let those under way finish for ``grace`` seconds, cancel the rest."""
        await self._server.stop(grace)

    async def wait_for_termination(self) -> None:
        """Return when the server has stopped."""
        await self._server.wait_for_termination()


class _Adapter(grpc.GenericRpcHandler):
    """Hands async behaviours on as they are, and sync ones wrapped in a coroutine."""

    def __init__(
        self, inner: grpc.GenericRpcHandler, unary: ThreadPool, streams: ThreadPool
    ) -> None:
        self._inner = inner
        self._unary = unary
        self._streams = streams

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = self._inner.service(handler_call_details)
        if handler is None:
            return None
        streams_in, streams_out = handler.request_streaming, handler.response_streaming
        attribute = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
        behaviour = getattr(handler, attribute)
        if inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour):
            return handler  # type: ignore[no-any-return]
        run = functools.partial(
            _serve_stream if streams_in or streams_out else _serve_unary,
            behaviour,
            self._streams if streams_in or streams_out else self._unary,
        )
        if streams_in or streams_out:
            run = functools.partial(run, streams_in, streams_out)
        make = getattr(grpc, f"{attribute}_rpc_method_handler")
        return make(run, handler.request_deserializer, handler.response_serializer)  # type: ignore[no-any-return]


class _Abort(Exception):
    """A sync behaviour called ``abort``; it leaves the thread as this."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Metadata) -> None:
        super().__init__(code, details)
        self.code, self.details, self.trailing = code, details, trailing


async def _serve_unary(
    behaviour: Callable[[Any, Any], Any], pool: ThreadPool, request: Any, call: Any
) -> Any:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = SyncContext(call, loop, lambda abort: _settle(done, abort, None))

    def work() -> None:
        error = result = None
        try:
            result = behaviour(request, context)
        except BaseException as raised:
            error = _carried(raised)
        _call_soon(loop, _settle, done, error, result)

    _submit(pool.submit, context, work)
    try:
        return await done
    except _Abort as abort:
        await _abort(call, abort)
    finally:
        context.end()


async def _abort(call: Any, abort: _Abort) -> NoReturn:
    send: Callable[..., Awaitable[NoReturn]] = call.abort
    try:
        await send(abort.code, abort.details, abort.trailing)
    except grpc.aio.InternalError:  # the call is over; nobody to send the status to
        raise asyncio.CancelledError from None


def _settle(done: asyncio.Future[Any], error: BaseException | None, result: Any) -> None:
    if done.done():  # the call was cancelled meanwhile
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def _carried(error: BaseException) -> Exception:
    """The error in a form that can cross to the loop without ending it."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"a handler raised {type(error).__name__}")


async def _serve_stream(
    behaviour: Callable[[Any, Any], Any],
    pool: ThreadPool,
    streams_in: bool,
    streams_out: bool,
    request: Any,
    call: Any,
) -> Any:
    loop = asyncio.get_running_loop()
    requests, responses = Pipe(loop), Pipe(loop)
    context = SyncContext(call, loop, responses.end)

    def work() -> None:
        error = None
        try:
            source = _requests_of(requests) if streams_in else request
            result = behaviour(source, context)
            _drain(result if streams_out else [result], responses)
        except ClosedError:
            pass
        except BaseException as raised:
            error = _carried(raised)
        responses.end(error)

    if not _submit(pool.try_submit, context, work):
        await call.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams are open on this server"
        )
    feeder = loop.create_task(_feed(call, requests)) if streams_in else None
    try:
        if not streams_out:
            return await responses.receive()
        while (response := await responses.receive()) is not None:
            await call.write(response)
    except _Abort as abort:
        await _abort(call, abort)
    except grpc.aio.InternalError:  # a write failed: the call is over, its cancellation on the way
        raise asyncio.CancelledError from None
    finally:
        context.end()
        requests.close()
        responses.close()
        if feeder is not None:
            feeder.cancel()


async def _feed(call: Any, requests: Pipe) -> None:
    try:
        while (request := await call.read()) is not grpc.aio.EOF:
            await requests.send(request)
        # A cancelled call too ends its requests, and is reported as cancelled a moment later. One
        # turn of the loop, and they are not taken for complete.
        await asyncio.sleep(0)
    except ClosedError:
        pass
    except Exception as error:  # reading fails when the call has ended in between
        _log.debug("a stream of requests broke off: %r", error)
        requests.end(grpc.RpcError("the call has ended"))
    else:
        requests.end()


def _requests_of(requests: Pipe) -> Iterable[bytes]:
    try:
        yield from requests
    except ClosedError:
        raise grpc.RpcError("the call was cancelled") from None


def _drain(result: Iterable[bytes], responses: Pipe) -> None:
    """Send all that a behaviour yields; its generator is closed on the thread that ran it."""
    try:
        for response in result:
            responses.put(response)
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()


def _submit(
    submit: Callable[[Callable[[], None]], _Result], context: SyncContext, work: Callable[[], None]
) -> _Result:
    run = contextvars.copy_context().run

    def task() -> None:
        if context.is_active():  # else it ended while it waited for a thread
            run(work)

    return submit(task)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # the loop was closed; nobody waits for the answer
        _log.debug("a handler outlived its server")


class SyncContext(grpc.ServicerContext):
    """``grpc.ServicerContext`` for a behaviour on a thread, over grpc.aio's context.

    grpc.aio frees the call when its coroutine ends, and asking it then is a crash, so everything
    goes through one lock with the flag that says whether the call is still there. ``event_loop`` is
    the loop of the server, for behaviours that have something to run on it.
    """

    def __init__(
        self, call: Any, loop: asyncio.AbstractEventLoop, stop: Callable[[_Abort], None]
    ) -> None:
        self._call = call
        self.event_loop = loop
        self._stop = stop
        self._lock = threading.Lock()
        self._ended = False
        self._callbacks: list[Callable[[], None]] = []

    def end(self) -> None:
        """The call is over: from here on nothing of it is touched. On the loop."""
        with self._lock:
            self._ended = True
            callbacks, self._callbacks = self._callbacks, []
        if callbacks:  # they are a handler's code and may block
            threading.Thread(target=_run_all, args=(callbacks,), daemon=True).start()

    def _ask(self, name: str, default: Any, *args: Any) -> Any:
        with self._lock:
            return default if self._ended else getattr(self._call, name)(*args)

    def is_active(self) -> bool:
        return not self._ended

    def time_remaining(self) -> float | None:  # type: ignore[override]  # None: no deadline
        remaining: float | None = self._ask("time_remaining", 0.0)
        return remaining

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._lock:
            if not self._ended:
                self._callbacks.append(callback)
            return not self._ended

    def cancel(self) -> bool:
        if self._ended:
            return False
        abort = _Abort(grpc.StatusCode.CANCELLED, "cancelled by the server", ())
        _call_soon(self.event_loop, self._stop, abort)
        return True

    def invocation_metadata(self) -> Metadata:
        return tuple(self._ask("invocation_metadata", ()) or ())

    def peer(self) -> str:
        return str(self._ask("peer", ""))

    def peer_identities(self) -> Iterable[bytes] | None:
        identities: Iterable[bytes] | None = self._ask("peer_identities", None)
        return identities

    def peer_identity_key(self) -> str | None:
        key: str | None = self._ask("peer_identity_key", None)
        return key

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:  # type: ignore[override]  # lists
        properties: Mapping[str, Iterable[bytes]] = self._ask("auth_context", {})
        return properties

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        if _is_running(self.event_loop):
            raise RuntimeError(
                "a sync handler's context was used on the event loop; declare the handler with"
                " 'async def'"
            )

        async def send() -> None:
            if self._ended:  # asked on the loop, where it becomes true
                raise grpc.RpcError("the call has ended")
            await self._call.send_initial_metadata(tuple(initial_metadata))

        asyncio.run_coroutine_threadsafe(send(), self.event_loop).result()

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._ask("set_trailing_metadata", None, tuple(trailing_metadata))

    def trailing_metadata(self) -> Metadata:
        return tuple(self._ask("trailing_metadata", ()) or ())

    def set_code(self, code: grpc.StatusCode) -> None:
        self._ask("set_code", None, code)

    def set_details(self, details: str) -> None:
        self._ask("set_details", None, details)

    def code(self) -> grpc.StatusCode | None:
        code: grpc.StatusCode | None = self._ask("code", None)
        return code

    def details(self) -> str:
        return str(self._ask("details", "") or "")

    def set_compression(self, compression: grpc.Compression) -> None:
        self._ask("set_compression", None, compression)

    def disable_next_message_compression(self) -> None:
        self._ask("disable_next_message_compression", None)

    def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        raise _Abort(code, details, tuple(trailing_metadata))

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.abort(status.code, status.details, status.trailing_metadata)


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this thread runs the loop, where waiting for it would be for ever."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _run_all(callbacks: Iterable[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            _log.exception("a callback at the end of a call failed")
