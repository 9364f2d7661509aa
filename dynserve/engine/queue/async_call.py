"""A call whose handler is async: on the loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NoReturn

import grpc
import grpc.aio

from .call import END, Call, run_all

__all__: list[str] = []  # AsyncCall, whose methods are documented by grpc.aio.ServicerContext


# As for the sync one, and its stubs want what a client has, too.
class AsyncCall(Call, grpc.aio.ServicerContext[Any, Any]):  # type: ignore[misc]
    """A call whose handler is a coroutine function or an async generator."""

    _task: asyncio.Task[None] | None = None
    _is_running = False  # never reset
    _is_told = False  # that the call is over, by an exception where it sent or received
    _arrival: asyncio.Event | None = None
    _room: asyncio.Event | None = None
    _waiting = 0  # writers, for room

    # ---- the leader's: what concerns the handler is posted to the loop

    def launch(self, request: bytes | None) -> None:
        self._poller.jobs.append(functools.partial(self._launch, request))

    def _wake_reader(self) -> None:
        if self._arrival is not None:
            self._poller.jobs.append(self._arrival.set)

    def _wake_writer(self) -> None:
        if self._room is not None and self._waiting and self._has_room():
            self._poller.jobs.append(self._room.set)

    def _interrupt(self) -> None:
        self._poller.jobs.append(self._cancel_task)

    def _run_callbacks(self, callbacks: Iterable[Callable[[], None]]) -> None:
        run = self._poller.context.copy().run
        self._poller.jobs.append(functools.partial(run, run_all, callbacks))

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What runs the handler."""
        return self._task

    def _coroutine(self) -> object:  # any thread
        return None if self._task is None else self._task.get_coro()

    # ---- the loop's

    def _launch(self, request: bytes | None) -> None:
        if self._is_cancelled:  # before it began; the task would never take its first step
            self._poller.left(self)
            return
        self._task = self._poller.loop.create_task(self._run(request))
        self._poller.launched.append(self)

    def after_first_step(self) -> None:
        """The handler had its first turn; if it was not its last, cancellation matters."""
        if not self._is_finished:
            self.watch()

    def _cancel_task(self) -> None:
        if self._task is not None:
            if not self._is_told:  # else it unwinds already, and may do so in peace
                self._task.cancel()
            if not self._is_running:  # and never will
                self._poller.left(self)

    async def _run(self, request: bytes | None) -> None:
        self._is_running = True
        plan = self.plan
        result: Any = None
        try:
            argument = self._requests() if plan.streams_in else self._decoded(request)  # type: ignore[arg-type]
            result = plan.behaviour(argument, self)
            if hasattr(result, "__aiter__"):
                async for response in result:
                    await self.write(response)
                self._conclude()
            else:
                self._conclude(await result)
        except BaseException as error:
            self._failed(error)
            if hasattr(result, "aclose"):
                await result.aclose()
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
        finally:
            self._poller.left(self)

    async def _requests(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def _over(self) -> asyncio.CancelledError:
        """The task learns that the call is over before it is cancelled: once is enough."""
        self._is_told = self._task is asyncio.current_task()
        return asyncio.CancelledError()

    async def _wait_for_room(self) -> None:
        room = self._room = self._room or asyncio.Event()
        self._waiting += 1
        try:
            while not self._has_room():  # asked after it was announced: no wake-up is missed
                room.clear()
                await room.wait()
        finally:
            self._waiting -= 1

    # ---- grpc.aio.ServicerContext

    async def read(self) -> Any:
        while True:
            try:
                message = self._take()
            except IndexError:
                arrival = self._arrival = self._arrival or asyncio.Event()
                arrival.clear()
                if not self._in:
                    await arrival.wait()
            else:
                if message is not END:
                    return self._decoded(message)
                if self._is_cancelled:
                    raise self._over()
                return grpc.aio.EOF

    async def write(self, message: Any) -> None:
        if self._is_cancelled or self._is_finished:
            raise self._over()
        self._respond(message)
        if self._is_full():
            await self._wait_for_room()

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        if self._is_cancelled:
            raise self._over()
        self._send_headers(initial_metadata)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        self._abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self._abort(status.code, status.details, status.trailing_metadata)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if not self._add_callback(functools.partial(callback, self)):
            self._poller.loop.call_soon(callback, self)

    def done(self) -> bool:
        return self._is_closed or self._is_finished

    def cancelled(self) -> bool:
        return self._is_cancelled
