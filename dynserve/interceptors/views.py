"""What a handler of one world is given of a call that is of the other: its context and requests."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from typing import Any, NoReturn

import grpc
import grpc.aio

from dynserve.context import AsyncContext, Context
from dynserve.method import MethodInfo
from dynserve.status import StatusError

from .crossing import Flow, Sending, run_logged
from .pipes import END, ToLoop
from .threads import NoThreadError

__all__ = ["AsyncRequests", "AsyncView", "SyncRequests", "SyncView", "async_view", "sync_view"]

_log = logging.getLogger("dynserve.handlers")

# What a thread is told of a call that is over.
_WHEN_OVER = {
    "invocation_metadata": (),
    "peer": "",
    "auth_context": {},
    "time_remaining": 0.0,
}


class SyncRequests(Iterator[Any]):
    """Requests that arrive on the loop, for a thread."""

    def __init__(self, flow: Flow, source: AsyncIterable[Any]) -> None:
        self.source = source
        self._flow = flow
        self._sending: Sending | None = None

    @property
    def has_begun(self) -> bool:
        """Whether some may have been taken from the source."""
        return self._sending is not None

    async def _send_all(self, send: Callable[[Any], Awaitable[None]]) -> None:
        async for request in self.source:
            await send(request)

    def __next__(self) -> Any:
        if self._sending is None:
            self._sending = self._flow.loop_sends(self._send_all)
        request = self._sending.receive()
        if request is END:
            raise StopIteration
        return request

    def stop(self) -> None:
        """Read no more; from any thread, for handlers read on threads of their own too."""
        if self._sending is not None:
            self._sending.stop()


class AsyncRequests(AsyncIterator[Any]):
    """Requests that a thread has to wait for, for the loop.

    No async generator: that ends where a read is cancelled, by ``asyncio.wait_for`` say.
    """

    def __init__(self, flow: Flow, source: Iterable[Any]) -> None:
        self.source = source
        self._flow = flow
        self._pipe: ToLoop | None = None

    @property
    def has_begun(self) -> bool:
        """Whether some may have been taken from the source."""
        return self._pipe is not None

    async def __anext__(self) -> Any:
        if self._pipe is None:
            self._pipe = self._flow.thread_iterates(lambda _fail: self.source)
        request = await self._pipe.receive()
        if request is END:
            raise StopAsyncIteration
        return request

    def stop(self) -> None:
        """Read no more."""
        if self._pipe is not None:
            self._pipe.stop()
            self._flow.drop(self._pipe)


def sync_requests(flow: Flow, requests: Any) -> Any:
    """The requests of the loop for a thread; those that came from a thread unread go back."""
    if isinstance(requests, AsyncRequests) and not requests.has_begun:
        return requests.source
    return SyncRequests(flow, requests)


def async_requests(flow: Flow, requests: Any) -> Any:
    """The requests of a thread for the loop; those that came from the loop unread go back."""
    if isinstance(requests, SyncRequests) and not requests.has_begun:
        return requests.source
    return AsyncRequests(flow, requests)


class _OfTheCall:
    """What is dynserve's own: asked of, and set on, the call's own context.

    Interceptors may put any context of theirs in between, and attributes on it: those too are found
    here.
    """

    _call: Any

    @property
    def identity(self) -> Any:
        return self._call.flow.context.identity

    @identity.setter
    def identity(self, identity: Any) -> None:
        self._call.flow.context.identity = identity

    @property
    def state(self) -> Any:
        return self._call.flow.context.state

    @property
    def request_id(self) -> Any:
        return self._call.flow.context.request_id

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._call.outer, name)


# ---- on the loop, over a context of a thread's


def _same(value: Any) -> Any:
    return value


class AsyncView(_OfTheCall, AsyncContext):  # type: ignore[misc]
    """The context of an async handler inside of a sync interceptor."""

    def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        """As the context of the interceptor, which may be a wrapper of its own, does it."""
        trailing = tuple(trailing_metadata or ())
        # Not more arguments than needed: wrappers of contexts often take two.
        self._call.outer.abort(code, details, *([trailing] if trailing else []))
        super().abort(code, details, trailing)  # the wrapper did not raise


def async_view(
    flow: Flow,
    outer: Any,
    method: MethodInfo,
    coerce: Callable[[object], Any],
    requests: Any,
    send: Callable[[Any], Awaitable[None]] | None,
) -> AsyncView:
    """The context for an async handler.

    Args:
        flow: the call.
        outer: the context that the sync side was given, or made.
        method: what is called.
        coerce: makes a response message of what is written.
        requests: an async iterator, None for a method with one request.
        send: where responses go that are written, None for a method with one response.
    """
    return AsyncView(_AsyncCall(flow, outer, requests, send), method, _same, coerce)


class _AsyncCall:
    """What an ``AsyncContext`` stands on, over a sync context."""

    def __init__(self, flow: Flow, outer: Any, requests: Any, send: Any) -> None:
        self.flow = flow
        self.outer = outer
        self._requests = requests
        self._send = send

    def __getattr__(self, name: str) -> Any:
        return getattr(self.outer, name)

    async def send_initial_metadata(self, metadata: Any) -> None:
        await self.flow.on_thread(lambda _fail: self.outer.send_initial_metadata(metadata))

    async def read(self) -> Any:
        if self._requests is None:
            raise TypeError("a method with one request has no stream to read from")
        return await anext(self._requests, grpc.aio.EOF)

    async def write(self, message: Any) -> None:
        if self._send is None:
            raise TypeError("a method with one response has no stream to write to; return it")
        if not self.outer.is_active():
            raise asyncio.CancelledError
        await self._send(message)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        run = functools.partial(self.flow.loop.call_soon_threadsafe, callback, None)
        if not self.outer.add_callback(run):
            run()

    def done(self) -> bool:
        return not self.outer.is_active()

    def cancelled(self) -> bool:
        return self.done() and not self.flow.is_answered


# ---- on a thread, over a context of the loop's


class SyncView(_OfTheCall, Context):  # type: ignore[misc]
    """The context of a sync handler inside of a grpc.aio interceptor."""

    def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        """As the context of the interceptor, which may be a wrapper of its own, does it."""
        trailing = tuple(trailing_metadata or ())

        async def abort() -> None:
            aborted = self._call.outer.abort(code, details, *([trailing] if trailing else []))
            if inspect.isawaitable(aborted):
                await aborted

        if self._call.flow.is_on_loop():  # called by an AsyncView: it ends without waiting
            _step(abort())
        else:
            self._call.flow.wait(abort)
        super().abort(code, details, trailing)  # the wrapper did not raise


def _step(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine up to where it would wait."""
    with contextlib.closing(coroutine), contextlib.suppress(StopIteration):
        coroutine.send(None)


def sync_view(
    flow: Flow, outer: Any, method: MethodInfo, fail: Callable[[BaseException], None]
) -> SyncView:
    """The context for a sync handler.

    Args:
        flow: the call.
        outer: the context that the side on the loop was given, or made.
        method: what is called.
        fail: ends, from any thread, the loop's waiting for the handler.
    """
    return SyncView(_SyncCall(flow, outer, fail), method)


class _SyncCall:
    """What a ``Context`` stands on, over an async context."""

    def __init__(self, flow: Flow, outer: Any, fail: Callable[[BaseException], None]) -> None:
        self.flow = flow
        self.outer = outer
        self._fail = fail
        self._is_stopped = False

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self.flow.ask, self.outer, name, _WHEN_OVER.get(name))

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop:
        return self.flow.loop

    def send_initial_metadata(self, metadata: Any) -> None:
        self.flow.wait(lambda: self.outer.send_initial_metadata(metadata))

    def is_active(self) -> bool:
        return not (self._is_stopped or self.flow.is_over)

    def cancel(self) -> bool:
        if not self.is_active():
            return False
        self._is_stopped = True
        self._fail(StatusError(grpc.StatusCode.CANCELLED, "cancelled by the server"))
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self.flow.is_over:
            return False

        def run(_context: Any = None) -> None:  # loop: it is a handler's code and may block
            self.flow.end()  # the callback should not find the call active
            try:
                self.flow.threads.streams.submit(functools.partial(run_logged, callback))
            except NoThreadError:
                _log.error("a callback at the end of a call found no thread")

        def register() -> None:  # loop
            if self.flow.is_over:
                run()
            else:
                self.outer.add_done_callback(run)

        self.flow.loop.call_soon_threadsafe(register)
        return True
