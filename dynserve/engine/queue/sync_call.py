"""A call whose handler is sync: on a worker thread, or a quick one on the leader itself."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from dynserve.engine.limits import TOO_LONG
from dynserve.engine.threads import NoThreadError

from .call import END, Call, run_all, won
from .context import Metadata

if TYPE_CHECKING:
    from .plan import Plan
    from .poller import Poller

__all__ = ["Gate"]  # and SyncCall, whose methods are documented by grpc.ServicerContext

_log = logging.getLogger(__name__)


class Gate:
    """Lets one thread sleep until another wakes it; free of charge where there is no need to."""

    __slots__ = ("_asleep", "_lock")

    def __init__(self) -> None:
        self._asleep: list[None] = []
        self._lock = threading.Lock()
        self._lock.acquire()

    def sleep(self, is_over: Callable[[], object]) -> None:
        """Return when ``is_over`` may be true; ask it again, a wake-up may be an old one."""
        self._asleep.append(None)
        if is_over() and won(self._asleep):  # asked after it was announced: no wake-up is missed
            return
        self._lock.acquire()  # where the token is gone, its release is on the way

    def is_asleep(self) -> bool:
        """Whether a thread sleeps, or is about to."""
        return bool(self._asleep)

    def wake(self) -> None:
        """End the sleep of the thread, if it sleeps."""
        if won(self._asleep):
            self._lock.release()


def _wait_no_longer(call: Call) -> None:
    call.wait_no_longer()


# The stubs of grpcio are stricter than its own contexts: None for no deadline, lists of identities.
class SyncCall(Call, grpc.ServicerContext):  # type: ignore[misc]
    """A call whose handler is a function or a generator."""

    _take_back: Callable[[], object] = staticmethod(lambda: None)  # from the queue for a thread

    def __init__(self, poller: Poller, plan: Plan, event: Any) -> None:
        super().__init__(poller, plan, event)
        if plan.streams_in:
            self._arrival = Gate()
        if plan.streams_out:
            self._room = Gate()

    @property
    def event_loop(self) -> Any:
        """The loop of the server, for a handler that has something to run on it."""
        return self._poller.loop

    # ---- the leader's

    def launch(self, request: bytes | None) -> None:
        self._poller.needs_a_thread()
        if self.plan.is_quick:
            self._poller.quick.append((self, request))
            return
        try:
            if not self.plan.is_unary:
                self._poller.pools.streams.submit(self._task(request), wait=False)
                return
            pool = self._poller.pools.unary
            is_busy = pool.is_busy()
            if is_busy:  # it may wait long, and should not run if it ends before
                self.watch()
                if self._poller.queue_wait is not None:
                    self._poller.clock.set(self, self._poller.queue_wait, _wait_no_longer)
            self._take_back = pool.submit(self._task(request), wait=True)
        except NoThreadError:
            told = (
                "too many calls wait for a thread on this server"
                if self.plan.is_unary
                else "too many streams are open on this server"
            )
            self.refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, told)

    def _task(self, request: bytes | None) -> Callable[[], None]:
        return functools.partial(self._poller.context.copy().run, self.run, request)

    def _wake_reader(self) -> None:
        if self._arrival.is_asleep():
            self._poller.wake_later.append(self._arrival)

    def _wake_writer(self) -> None:
        if self._room.is_asleep() and self._has_room():
            self._poller.wake_later.append(self._room)

    def _interrupt(self) -> None:
        if self._take_back():
            self._poller.left(self)

    def wait_no_longer(self) -> None:
        if self._take_back():
            self.refuse(*TOO_LONG)

    def _run_callbacks(self, callbacks: Iterable[Callable[[], None]]) -> None:
        run = self._poller.context.copy().run
        try:
            self._poller.pools.callbacks.submit(functools.partial(run, run_all, callbacks))
        except NoThreadError:
            _log.error("callbacks at the end of a call found no thread")

    # ---- the handler's

    def run(self, request: bytes | None, on_leader: bool = False) -> None:
        """Run the handler and answer the call."""
        plan = self.plan
        begun = None
        try:
            if self._is_cancelled or self.time_remaining() == 0.0:
                self._expire()  # of no effect where the core has ended it
                return
            begun = time.perf_counter()
            argument = self._requests() if plan.streams_in else self._decoded(request)  # type: ignore[arg-type]
            response = plan.behaviour(argument, self)
            if plan.streams_out:
                self._respond_all(response)
            if self._may_answer():
                self._conclude(response)
        except BaseException as error:
            self._failed(error)
        finally:
            if begun is not None and plan.is_unary:
                plan.learn(time.perf_counter() - begun, on_leader)
            if not self._is_finished:  # the core ends it, or has
                self.watch()
            self._poller.left(self)

    def _respond_all(self, responses: Iterable[Any]) -> None:
        try:
            for response in responses:
                if self._is_cancelled:
                    break
                self._respond(response)
                if self._is_full():
                    while not self._has_room():
                        self._room.sleep(self._has_room)
        finally:
            close = getattr(responses, "close", None)
            if close is not None:  # here and now, on the thread that ran it
                close()

    def _requests(self) -> Iterator[Any]:
        while True:
            try:
                message = self._take()
            except IndexError:
                self._arrival.sleep(lambda: self._in)
            else:
                if message is END:
                    if self._is_cancelled:
                        raise grpc.RpcError("the call was cancelled")
                    return
                yield self._decoded(message)

    # ---- grpc.ServicerContext

    def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        self._abort(code, details, trailing_metadata)

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self._abort(status.code, status.details, status.trailing_metadata)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return self._add_callback(callback)

    def cancel(self) -> bool:
        if not self.is_active():
            return False
        self._call.cancel(grpc.StatusCode.CANCELLED.value[0], "cancelled by the server")
        return True

    def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        if self._is_cancelled:
            raise grpc.RpcError("the call has ended")
        self._send_headers(initial_metadata)
