"""The portable engine: grpc.aio, by its public interface only.

Async behaviours run on the loop, sync ones on worker threads of this engine: grpc.aio has a way to
do that too, but it switches threads for each message, keeps a stream's thread from unary calls, and
tells the handler nothing of a cancellation.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from .call import AsyncCall
from .grants import Grants
from .limits import NO_LIMITS, CallLimits
from .running import RunningCall, unwound
from .sync import serve_stream, serve_unary
from .threads import Pools

__all__ = ["AioEngine"]


class AioEngine:
    """A ``grpc.aio`` server that also runs sync behaviours well. Made on the loop that it serves.

    Args:
        handlers: what is served.
        options: channel arguments, as ``grpc.aio.server`` takes them.
        compression: the default for responses.
        limits: what calls are granted.
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
        threads: int | None = None,
        stream_threads: int = 1000,
    ) -> None:
        pools = self._pools = Pools(threads, stream_threads, limits.max_queue_wait)
        self._grants = grants = Grants(limits)
        self._server = grpc.aio.server(
            handlers=[_Adapter(handler, pools, grants) for handler in handlers],
            options=options,
            compression=compression,
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
        await unwound(self._grants.tasks.values())
        self._pools.close()

    async def wait_for_termination(self) -> None:
        """Return when the server has stopped."""
        await self._server.wait_for_termination()

    def calls(self) -> list[RunningCall]:
        """The calls that run right now, the oldest first."""
        return self._grants.calls()


class _Adapter(grpc.GenericRpcHandler):
    """Hands behaviours on as coroutine functions, which get a context without grpc.aio's traps.

    Async generators of plain grpcio are grpc.aio's own affair; dynserve binds none.
    """

    def __init__(self, inner: grpc.GenericRpcHandler, pools: Pools, grants: Grants) -> None:
        self._inner = inner
        self._pools = pools
        self._grants = grants

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = self._inner.service(handler_call_details)
        if handler is None:
            return None
        # Kept on the handler, and gone with it: a schema that was replaced is not kept alive.
        known = getattr(handler, "_dynserve_adapted", None)
        if type(known) is tuple and known[0] is self:
            return known[1]  # type: ignore[no-any-return]
        adapted = self._adapt(handler, handler_call_details.method)
        with contextlib.suppress(AttributeError):  # a class with slots: adapted for each call
            handler._dynserve_adapted = self, adapted  # type: ignore[attr-defined]
        return adapted

    def _adapt(self, handler: Any, path: str) -> grpc.RpcMethodHandler[Any, Any]:
        streams_in, streams_out = handler.request_streaming, handler.response_streaming
        attribute = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
        behaviour = getattr(handler, attribute)
        run: Callable[..., Any]
        if inspect.isasyncgenfunction(behaviour):
            return handler  # type: ignore[no-any-return]
        if inspect.iscoroutinefunction(behaviour):
            run = _async_behaviour(behaviour, streams_out)
        elif streams_in or streams_out:
            run = functools.partial(serve_stream, behaviour, self._pools, streams_in, streams_out)
        else:
            run = functools.partial(serve_unary, behaviour, self._pools)
        run = self._grants.around(run, path)
        make = getattr(grpc, f"{attribute}_rpc_method_handler")
        return make(run, handler.request_deserializer, handler.response_serializer)  # type: ignore[no-any-return]


def _async_behaviour(
    behaviour: Callable[[Any, Any], Any], streams_out: bool
) -> Callable[[Any, Any], Any]:
    async def run(request: Any, raw: Any) -> Any:
        call = AsyncCall(raw)
        try:
            response = await behaviour(request, call)
            if not streams_out:
                await call.before_response()
            return response
        finally:
            call.end()

    return run
