"""Sync behaviours on worker threads, under an engine that has an event loop.

A unary call is one task for a thread. A stream is a task too, with a pipe each way between it and
the loop. Unary calls and streams have threads of their own, so streams that last cannot starve
unary calls. Where there is no thread the call is refused with RESOURCE_EXHAUSTED; a unary call
waits for one first.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio

from .bridge import ClosedError, Pipe
from .call import AsyncCall, receive
from .limits import TOO_LONG
from .threads import NoThreadError, Pools, ThreadPool

__all__ = ["serve_stream", "serve_unary"]

_log = logging.getLogger(__name__)
Behaviour = Callable[[Any, Any], Any]
Metadata = tuple[tuple[str, "str | bytes"], ...]


class _Abort(Exception):
    """A sync behaviour called ``abort``; it leaves the thread as this."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Metadata) -> None:
        super().__init__(code, details)
        self.code, self.details, self.trailing = code, details, trailing


def _no_thread(what: str) -> _Abort:
    return _Abort(grpc.StatusCode.RESOURCE_EXHAUSTED, what, ())


async def serve_unary(behaviour: Behaviour, pools: Pools, request: Any, raw: Any) -> Any:
    """Run a behaviour with one request and one response on a thread."""
    loop = asyncio.get_running_loop()
    call = AsyncCall(raw)
    done: asyncio.Future[Any] = loop.create_future()
    context = SyncContext(call, loop, pools, lambda abort: _settle(done, abort, None))

    def work() -> None:
        error = result = None
        try:
            result = behaviour(request, context)
        except BaseException as raised:
            error = _carried(raised)
        _call_soon(loop, _settle, done, error, result)

    take_back = timer = None
    try:
        is_busy = pools.unary.is_busy()
        take_back = _submit(pools.unary, context, work, wait=True)
        if is_busy and pools.queue_wait is not None:
            timer = loop.call_later(pools.queue_wait, _wait_no_longer, take_back, done)
        response = await done
        await call.before_response()
        return response
    except NoThreadError:
        await _abort(call, _no_thread("too many calls wait for a thread on this server"))
    except _Abort as abort:
        await _abort(call, abort)
    finally:
        context.end()
        if timer is not None:
            timer.cancel()
        if take_back is not None:
            take_back()  # with its request, if it still waits for a thread


def _wait_no_longer(take_back: Callable[[], object], done: asyncio.Future[Any]) -> None:
    if take_back() is not None:
        _settle(done, _Abort(*TOO_LONG, ()), None)


async def serve_stream(
    behaviour: Behaviour, pools: Pools, streams_in: bool, streams_out: bool, request: Any, raw: Any
) -> Any:
    """Run a behaviour with a stream of requests, of responses, or of both, on a thread."""
    loop = asyncio.get_running_loop()
    call = AsyncCall(raw)
    requests, responses = Pipe(loop), Pipe(loop)
    context = SyncContext(call, loop, pools, responses.fail)
    source = _requests_of(requests) if streams_in else request
    work = functools.partial(_run_stream, behaviour, source, context, responses, streams_out)
    feeder = None
    try:
        _submit(pools.streams, context, work, wait=False)
        if streams_in:
            feeder = loop.create_task(_feed(raw, requests))
        if not streams_out:
            response = await responses.receive()
            await call.before_response()
            return response
        while (response := await responses.receive()) is not None:
            await call.write(response)
    except NoThreadError:
        await _abort(call, _no_thread("too many streams are open on this server"))
    except _Abort as abort:
        await _abort(call, abort)
    finally:
        context.end()  # first: what the thread then meets is known to be the end of the call
        requests.close()
        responses.close()
        if feeder is not None:
            feeder.cancel()


def _run_stream(
    behaviour: Behaviour, source: Any, context: Any, responses: Pipe, streams_out: bool
) -> None:
    error = None
    try:
        result = behaviour(source, context)
        _drain(result if streams_out else [result], responses)
    except ClosedError:
        pass
    except BaseException as raised:
        error = _carried(raised)
    responses.end(error)


async def _abort(call: AsyncCall, abort: _Abort) -> NoReturn:
    await call.abort(abort.code, abort.details, abort.trailing)
    raise abort  # call.abort() has raised; this is for the reader


def _settle(done: asyncio.Future[Any], error: BaseException | None, result: Any) -> None:
    if done.done():  # the call was cancelled meanwhile
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def _carried(error: BaseException) -> Exception:
    """The error in a form that can cross to the loop without ending it, or telling the peer."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError("a handler raised what is no error")


async def _feed(raw: Any, requests: Pipe) -> None:
    try:
        while (request := await receive(raw)) is not grpc.aio.EOF:
            await requests.send(request)
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
    pool: ThreadPool, context: SyncContext, work: Callable[[], None], wait: bool
) -> Callable[[], object]:
    run = contextvars.copy_context().run

    def task() -> None:
        if context.is_active():  # else it ended while it waited for a thread
            run(work)

    return pool.submit(task, wait=wait)


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
        self,
        call: AsyncCall,
        loop: asyncio.AbstractEventLoop,
        pools: Pools,
        stop: Callable[[_Abort], None],
    ) -> None:
        self._call: Any = call
        self.event_loop = loop
        self._pools = pools
        self._stop = stop
        self._lock = threading.Lock()
        self._ended = False
        self._stopped = False  # by its handler, but not over yet
        self._callbacks: list[Callable[[], None]] = []

    def end(self) -> None:
        """The call is over: from here on nothing of it is touched. On the loop."""
        with self._lock:
            self._ended = True
            callbacks, self._callbacks = self._callbacks, []
        self._call.end()
        if callbacks:  # they are a handler's code and may block
            run = functools.partial(contextvars.copy_context().run, _run_all, callbacks)
            try:
                self._pools.callbacks.submit(run)
            except NoThreadError:
                _log.error("%d callbacks at the end of a call found no thread", len(callbacks))

    def _ask(self, name: str, default: Any, *args: Any) -> Any:
        with self._lock:
            return default if self._ended else getattr(self._call, name)(*args)

    def is_active(self) -> bool:
        return not (self._ended or self._stopped)

    def time_remaining(self) -> float | None:  # type: ignore[override]  # None: no deadline
        remaining: float | None = self._ask("time_remaining", 0.0)
        return remaining

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._lock:
            if not self._ended:
                self._callbacks.append(callback)
            return not self._ended

    def cancel(self) -> bool:
        if not self.is_active():
            return False
        self._stopped = True
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
        except BaseException:
            _log.exception("a callback at the end of a call failed")
