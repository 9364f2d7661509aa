"""From a thread to the event loop, and from the loop to a thread, within one call.

Whatever crosses takes the context variables along, and brings back what was set on the other side.
What runs on the other side ends with the call: tasks are cancelled, and generators closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol

import grpc

from dynserve.middleware import take_over
from dynserve.status import StatusError

from .pipes import END, ToLoop, ToThread
from .threads import NoThreadError, ThreadPool, Threads

__all__ = ["Flow", "Sending", "run_logged"]

_log = logging.getLogger("dynserve.handlers")

_NO_LOOP = "a sync handler returned an awaitable; declare it with 'async def'"
_ON_LOOP = (
    "what a sync handler was given was used on the event loop, which would block it; declare the"
    " handler with 'async def'"
)
_NOT_CANCELLED = "an async handler let a CancelledError out, but was not cancelled"
_NO_THREAD = "too many calls wait for a thread on this server"


class _Stoppable(Protocol):
    def stop(self) -> None:
        """Have it end; from any thread."""


class Flow:
    """One call on its way through interceptors of both worlds.

    Args:
        context: the call's own context, as the handler's endpoint made it.
        loop: the event loop of the server; None where there is none.
        threads: those for sync code that the loop waits for.
        is_sync: whether the call as a whole runs on a thread. Then its end is told by the context,
            which is asked for it when something first crosses over to the loop.
    """

    def __init__(
        self,
        context: Any,
        loop: asyncio.AbstractEventLoop | None,
        threads: Threads,
        is_sync: bool,
    ) -> None:
        self.context = context
        self.threads = threads
        self.is_over = False
        self.is_answered = False  # the handler is done, and was not cancelled
        self._loop = loop
        self._is_watched = not is_sync
        self._has_thread = is_sync
        self._lock = threading.RLock()  # a view may ask through another view
        self._stoppables: dict[int, _Stoppable] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the server.

        Raises:
            TypeError: there is none.
        """
        if self._loop is None:
            raise TypeError(_NO_LOOP)
        return self._loop

    def is_on_loop(self) -> bool:
        """Whether this thread runs the loop, where waiting for it would be for ever."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    # ---- the end

    def __enter__(self) -> Flow:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.is_answered = kind is None
        self.end()

    def end(self) -> None:
        """The call is over: what runs for it on the other side is ended. From any thread."""
        with self._lock:
            self.is_over = True
            stoppables, self._stoppables = self._stoppables, {}
        for stoppable in stoppables.values():
            stoppable.stop()

    def ask(self, outer: Any, name: str, default: Any, *args: Any) -> Any:
        """What a context of the loop's says, for a thread; the default once the call is over.

        grpc.aio frees a call at its end, and asking it then is a crash.
        """
        with self._lock:
            return default if self.is_over else getattr(outer, name)(*args)

    def add(self, stoppable: _Stoppable) -> None:
        """Have it stopped at the end of the call."""
        with self._lock:
            is_over = self.is_over
            if not is_over:
                self._stoppables[id(stoppable)] = stoppable
            is_watched, self._is_watched = self._is_watched, True
        if is_over:
            stoppable.stop()
        elif not is_watched and not self.context.add_callback(self.end):
            self.end()

    def drop(self, stoppable: _Stoppable) -> None:
        """It has ended."""
        with self._lock:
            self._stoppables.pop(id(stoppable), None)

    # ---- from a thread to the loop

    def wait(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run a coroutine function on the loop; its result. On a thread."""
        gate = threading.Lock()
        gate.acquire()
        errand = _Errand(self, work, gate.release)
        errand.start()
        gate.acquire()
        return errand.outcome()

    def loop_sends(self, work: Callable[[Callable[[Any], Awaitable[None]]], Any]) -> Sending:
        """Run a coroutine function on the loop, for what it sends. On a thread.

        The coroutine function gets a coroutine function, ``send(item)``, which waits while the
        thread is behind. What is returned is to be stopped when nobody receives any more.
        """
        sending = Sending(self, work)
        sending.start()
        return sending

    def iterate(self, work: Callable[[Callable[[Any], Awaitable[None]]], Any]) -> Iterator[Any]:
        """What :meth:`loop_sends` receives."""
        sending = self.loop_sends(work)
        try:
            while (item := sending.receive()) is not END:
                yield item
        finally:
            sending.stop()

    # ---- from the loop to a thread

    async def on_thread(self, work: Callable[[Callable[[BaseException], None]], Any]) -> Any:
        """Run a function on a thread; its result. On the loop.

        The function gets a function that ends the waiting for it with an error.
        """
        done: asyncio.Future[tuple[BaseException | None, Any]] = self.loop.create_future()
        variables = contextvars.copy_context()
        settle = functools.partial(self._settle, done)

        def task() -> None:
            error = result = None
            try:
                if not self.is_over:  # else it ended while it waited for a thread
                    result = variables.run(work, settle)
            except BaseException as raised:
                error = raised
            settle(error, result)

        # A call that has a thread does not wait for others' to get another.
        has_thread, self._has_thread = self._has_thread, True
        try:
            _submit(self.threads.streams if has_thread else self.threads.unary, task)
            error, result = await done
        finally:
            self._has_thread = has_thread
        take_over(variables)
        if error is not None:
            raise error
        return result

    def _settle(self, done: asyncio.Future[Any], error: Any, result: Any = None) -> None:
        def settle() -> None:
            if not done.done():  # else the call was cancelled meanwhile
                done.set_result((error, result))

        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits there
            self.loop.call_soon_threadsafe(settle)

    def thread_iterates(self, work: Callable[[Callable[[BaseException], None]], Any]) -> ToLoop:
        """Run a function on a thread, and iterate there what it returns. On the loop.

        What is returned is to be stopped when nobody receives any more; it is at the end.
        """
        pipe = ToLoop(self.loop, contextvars.copy_context())
        drain = functools.partial(pipe.drain, functools.partial(work, pipe.fail))
        _submit(self.threads.streams, functools.partial(pipe.variables.run, drain))
        self.add(pipe)
        return pipe

    async def iterate_thread(
        self, work: Callable[[Callable[[BaseException], None]], Any]
    ) -> AsyncIterator[Any]:
        """What :meth:`thread_iterates` receives."""
        pipe = self.thread_iterates(work)
        try:
            while (item := await pipe.receive()) is not END:
                yield item
            take_over(pipe.variables)
        finally:
            pipe.stop()
            self.drop(pipe)


def _submit(pool: ThreadPool, task: Callable[[], object]) -> None:
    try:
        pool.submit(task)
    except NoThreadError:
        raise StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, _NO_THREAD) from None


class _Errand:
    """A task on the loop for a thread.

    Args:
        flow: the call that it belongs to, and ends with.
        work: a coroutine function.
        is_done: called at its end.
    """

    def __init__(
        self, flow: Flow, work: Callable[[], Awaitable[Any]], is_done: Callable[[], None]
    ) -> None:
        self._flow = flow
        self._work = work
        self._is_done = is_done
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._error: BaseException | None = None
        self._result: Any = None
        self._variables: contextvars.Context | None = None

    def start(self) -> None:
        """Begin; on the thread.

        Raises:
            grpc.RpcError: the loop was closed.
            TypeError: this is the loop, or there is none.
        """
        loop = self._flow.loop
        if self._flow.is_on_loop():
            raise TypeError(_ON_LOOP)
        self._flow.add(self)
        try:
            loop.call_soon_threadsafe(self._begin, context=contextvars.copy_context())
        except RuntimeError:
            raise grpc.RpcError("the server has stopped") from None

    def _begin(self) -> None:  # loop
        self._task = self._flow.loop.create_task(self._run())
        self._task.add_done_callback(self._end)
        if self._is_stopped:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self._result = await self._work()
        except BaseException as error:  # also what would end the loop: it belongs to the thread
            self._error = error
        finally:
            self._variables = contextvars.copy_context()

    def _end(self, task: asyncio.Task[None]) -> None:  # loop
        if task.cancelled():  # before its first step
            self._error = asyncio.CancelledError()
        self._flow.drop(self)
        self._is_done()

    def stop(self) -> None:
        """Cancel it; from any thread."""
        self._is_stopped = True
        with contextlib.suppress(RuntimeError):  # the loop was closed: its tasks are gone
            self._flow.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:  # loop
        if self._task is not None:
            self._task.cancel()

    def outcome(self) -> Any:
        """What it returned, or raised; on the thread, at its end."""
        if self._variables is not None:
            take_over(self._variables)
        error, self._error = self._error, None
        if isinstance(error, asyncio.CancelledError):
            if self._is_stopped:
                raise grpc.RpcError("the call was cancelled")
            raise RuntimeError(_NOT_CANCELLED) from error
        if error is not None:
            raise error
        return self._result


class Sending(_Errand):
    """A task on the loop that sends to a thread.

    Args:
        flow: the call that it belongs to, and ends with.
        work: a coroutine function that takes another, ``send(item)``.
    """

    def __init__(
        self, flow: Flow, work: Callable[[Callable[[Any], Awaitable[None]]], Awaitable[Any]]
    ) -> None:
        self._pipe = ToThread(flow.loop)
        super().__init__(flow, functools.partial(work, self._pipe.send), self._pipe.end)

    def receive(self) -> Any:
        """What it sent, END at its end; raises what it raised. On a thread."""
        item = self._pipe.receive()
        if item is END:
            self.outcome()
        return item


def run_logged(callback: Callable[[], object]) -> None:
    """Run a callback of the user's."""
    try:
        callback()
    except BaseException:
        _log.exception("a callback at the end of a call failed")
