"""The engine: ports, the calls that arrive, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any

import grpc

from dynserve.engine.limits import NO_LIMITS, TOO_MANY, CallLimits
from dynserve.engine.running import RunningCall, unwound
from dynserve.engine.threads import Pools

from . import core
from .async_call import AsyncCall
from .call import Call
from .plan import Plan, plan_of
from .poller import Poller
from .sync_call import SyncCall

__all__ = ["QueueEngine"]

_log = logging.getLogger(__name__)

_REQUESTED = 32  # calls that the core may hand over at once
_Refusal = tuple[grpc.StatusCode, str]
_UNKNOWN = grpc.StatusCode.UNIMPLEMENTED, "no such method"
_FAILED = grpc.StatusCode.INTERNAL, "the method could not be looked up"


class _Details:
    """``grpc.HandlerCallDetails``."""

    __slots__ = ("invocation_metadata", "method")

    def __init__(self, method: str, invocation_metadata: Any) -> None:
        self.method = method
        self.invocation_metadata = invocation_metadata


class QueueEngine:
    """A server on grpcio's completion queue. Made on the loop that async handlers run on.

    Args:
        handlers: what is served.
        options: channel arguments, as ``grpc.server`` takes them.
        compression: the default for responses.
        limits: what calls are granted.
        xds: whether a control plane manages the server; adding a port then returns -1.
        threads: how many unary sync handlers run at the same time.
        stream_threads: how many streaming sync handlers run at the same time.
    """

    def __init__(
        self,
        handlers: Sequence[grpc.GenericRpcHandler],
        *,
        options: Sequence[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
        limits: CallLimits = NO_LIMITS,
        xds: bool = False,
        threads: int | None = None,
        stream_threads: int = 1000,
    ) -> None:
        self._handlers = tuple(handlers)
        self._limits = limits
        self._limit = limits.maximum_concurrent_rpcs
        self._is_timed = not (limits.default_timeout is None and limits.max_timeout is None)
        self._loop = asyncio.get_running_loop()
        self._queue = core.Queue()
        self._core = core.make_server(options, compression, xds)
        self._core.register_completion_queue(self._queue)
        pools = Pools(threads, stream_threads)
        limit = dict(options).get("grpc.max_send_message_length", -1)
        largest = limit if limit >= 0 else sys.maxsize
        queue_wait = limits.max_queue_wait
        self._poller = Poller(self._queue, self._loop, pools, largest, queue_wait, self._cancel)
        self._state = threading.Lock()  # for what follows
        self._is_serving = False
        self._is_stopped = False
        self._is_over = False
        self._ended = asyncio.Event()

    def add_port(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen on an address; returns the port, which the system chose where 0 was asked for.

        Raises:
            RuntimeError: the address cannot be bound.
        """
        if credentials is None:
            port = self._core.add_http2_port(address.encode())
        else:
            port = self._core.add_http2_port(address.encode(), credentials._credentials)  # type: ignore[attr-defined]
        if not port:
            raise RuntimeError(f"cannot bind {address}")
        return int(port)

    async def start(self) -> None:
        """Begin to serve."""
        with self._state:
            self._core.start()
            self._is_serving = True
            for _ in range(_REQUESTED):
                self._core.request_call(self._queue, self._queue, self._on_call)
        self._poller.start()

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, let those under way finish for ``grace`` seconds, cancel the rest."""
        if not self._is_serving and not self._is_stopped:
            self._is_stopped = True  # it never started
            self._ended.set()
        self._poller.stop_lending()
        self._refuse_calls()
        if grace:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), grace)
        if not self._ended.is_set():
            self._cancel()
            await self._ended.wait()
        await unwound(call.task for call in self._poller.serving.copy())

    async def wait_for_termination(self) -> None:
        """Return when the server has stopped."""
        await self._ended.wait()

    def calls(self) -> list[RunningCall]:
        """The calls that run right now, the oldest first."""
        calls = [call.described() for call in self._poller.serving.copy()]
        return sorted(calls, key=lambda call: -call.seconds)

    def _refuse_calls(self) -> None:
        with self._state:
            if self._is_serving:
                self._is_serving = False
                self._is_stopped = True
                self._core.shutdown(self._queue, self._on_shutdown)

    def _cancel(self) -> None:
        """Cancel all calls; any thread."""
        self._refuse_calls()
        self._poller.is_cancelling = True  # before it is asked what serves: see Call.begin
        for call in list(self._poller.serving):
            call.watch()  # or its end would be told with its answer only
        with self._state:
            if not self._is_over:
                self._core.cancel_all_calls()

    # ---- the leader's

    def _on_call(self, event: Any) -> None:
        with self._state:
            if self._is_serving:
                self._core.request_call(self._queue, self._queue, self._on_call)
        if not event.success:
            return
        plan, refusal = self._look_up(event)
        call = (AsyncCall if plan.is_async else SyncCall)(self._poller, plan, event)
        self._poller.enter(call)
        if self._limit is not None and self._is_past_limit(call):
            refusal = TOO_MANY
        if refusal is None:
            if self._is_timed and not plan.is_exempt:
                call.grant(self._limits.timeout(call.time_remaining()))
            if plan.is_async:
                self._poller.may_lend_with(event.call)
            call.begin()
        else:
            call.refuse(*refusal)

    def _is_past_limit(self, call: Call) -> bool:
        exempt = self._poller.exempt
        if call.plan.is_exempt:
            exempt.add(call)
            return False
        return len(self._poller.serving) - len(exempt) > (self._limit or 0)

    def _look_up(self, event: Any) -> tuple[Plan, _Refusal | None]:
        path = event.call_details.method.decode(errors="replace")
        try:
            handler = self._find(_Details(path, event.invocation_metadata))
            if handler is None:
                return _NO_PLAN, _UNKNOWN
            return plan_of(handler, path, self._limits.is_exempt), None
        except BaseException:  # of whatever kind: the leader has to go on
            _log.exception("no handler was found for %s", path)
            return _NO_PLAN, _FAILED

    def _find(self, details: _Details) -> Any:
        for handler in self._handlers:
            found = handler.service(details)
            if found is not None:
                return found
        return None

    def _on_shutdown(self, _event: Any) -> None:
        self._poller.when_idle(self._end)

    def _end(self) -> None:
        # The queue is not shut down: a handler that still runs may send to it. It goes with its
        # last reference.
        self._poller.halt()
        with self._state:
            self._is_over = True
            self._core.destroy()
        try:
            self._loop.call_soon_threadsafe(self._ended.set)
        except RuntimeError:  # the loop was closed: nobody waits
            _log.debug("the loop was closed before its server had ended")


_NO_PLAN = Plan(grpc.unary_unary_rpc_method_handler(lambda request, context: request))
