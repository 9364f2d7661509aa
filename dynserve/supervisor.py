"""Keeps a server serving: where gRPC's own ends by itself, another takes its place.

grpc.aio decodes the path of a request in the loop that accepts calls. One request whose path is not
UTF-8, from any peer, ends that loop, and with it the server
(https://github.com/grpc/grpc/blob/master/src/python/grpcio/grpc/_cython/_cygrpc/aio/server.pyx.pxi,
``_server_main_loop``). The calls under way go on; connections are lost when they have ended.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from dynserve.addresses import add_port
from dynserve.errors import AddressError, TerminatedError

if TYPE_CHECKING:
    from dynserve.engine.base import Engine
    from dynserve.engine.running import RunningCall

__all__ = ["Supervisor"]

_log = logging.getLogger("dynserve.server")

_MAX_RESTARTS = 30
_PERIOD = 60.0  # seconds in which there may be so many
_LISTENER_CLOSES = (0.0, 0.05, 0.2, 1.0)  # seconds; gRPC closes it some time after the loop's end
_FOREVER = 1e6  # seconds


class Supervisor:
    """Starts engines, one after the other, on the same addresses. Used on one loop.

    Args:
        make: makes an engine.
        credentials: makes those of a port; None where connections are not encrypted.
        unix_mode: the permissions of unix sockets.
        shares_ports: whether other processes may listen on the same ports.
    """

    def __init__(
        self,
        make: Callable[[], Engine],
        credentials: Callable[[], grpc.ServerCredentials | None] = lambda: None,
        unix_mode: int | None = None,
        shares_ports: bool = False,
    ) -> None:
        self._make = make
        self._credentials = credentials
        self._unix_mode = unix_mode
        self._shares_ports = shares_ports
        self._engines: list[Engine] = []  # the last one serves, others finish their calls
        self._ended: asyncio.Future[BaseException | None] | None = None  # the result: why
        self._watching: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def is_started(self) -> bool:
        """Whether it serves, or did."""
        return self._watching is not None

    async def start(self, listen: Sequence[str]) -> tuple[str, ...]:
        """Serve on these addresses; returns them with the ports that the system chose.

        Raises:
            AddressError: an address cannot be listened on; then it listens on none.
            RuntimeError: it was started before.
        """
        if self._watching is not None:
            raise RuntimeError("a server starts once; make another with app.server()")
        addresses = await self._open(listen)
        self._watching = asyncio.ensure_future(self._watch(addresses))
        # The failure is logged, and raised to who waits; nobody may.
        self._watching.add_done_callback(lambda task: task.cancelled() or task.exception())
        return addresses

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, let those under way finish for ``grace`` seconds, cancel the rest."""
        if self._watching is None:
            return
        self._is_stopping = True
        stopping = [asyncio.ensure_future(engine.stop(grace)) for engine in self._engines]
        self._end(None)
        await asyncio.gather(*stopping)
        await asyncio.wait({self._watching})

    async def wait(self) -> None:
        """Return when it was stopped.

        Raises:
            TerminatedError: it ended by itself, too often to go on.
            AddressError: it ended by itself, and its address was taken meanwhile.
        """
        if self._watching is not None:
            # Not awaited itself: whoever waits may be cancelled.
            await asyncio.wait({self._watching})
            self._watching.result()

    def calls(self) -> list[RunningCall]:
        """The calls that run right now, of all engines."""
        return [call for engine in self._engines for call in engine.calls()]

    async def _watch(self, addresses: Sequence[str]) -> None:
        restarts: collections.deque[float] = collections.deque(maxlen=_MAX_RESTARTS)
        loop = asyncio.get_running_loop()
        while self._ended is not None and (cause := await self._ended) is not None:
            told = f"gRPC's server ended by itself: {type(cause).__name__}: {cause}"
            if len(restarts) == _MAX_RESTARTS and loop.time() - restarts[0] < _PERIOD:
                _log.critical("%s; it did so too often and is not started again", told)
                raise TerminatedError(told) from cause
            restarts.append(loop.time())
            _log.error("%s; another takes its place", told, exc_info=cause)
            retiring = asyncio.ensure_future(self._retire(self._engines[-1]))
            try:
                await self._reopen(addresses)
            except AddressError as error:
                _log.critical("%s", error)
                raise
            if self._is_stopping:
                await self._engines[-1].stop(None)
                await retiring
                return

    async def _retire(self, engine: Engine) -> None:
        await engine.stop(_FOREVER)
        self._engines.remove(engine)

    async def _reopen(self, addresses: Sequence[str]) -> None:
        for delay in _LISTENER_CLOSES:
            try:
                await asyncio.sleep(delay)
                await self._open(addresses)
            except AddressError:
                continue
            return
        await self._open(addresses)

    async def _open(self, listen: Sequence[str]) -> tuple[str, ...]:
        engine = self._make()
        before = asyncio.all_tasks()
        try:
            addresses = tuple(self._add_port(engine, one) for one in listen)
            await engine.start()
        except BaseException:
            await _discard(engine)
            raise
        self._engines.append(engine)
        self._ended = asyncio.get_running_loop().create_future()
        for task in asyncio.all_tasks() - before:
            if _is_grpcs(task):
                task.add_done_callback(self._on_done)
        return addresses

    def _add_port(self, engine: Engine, address: str) -> str:
        credentials = self._credentials()
        return add_port(engine, address, credentials, self._unix_mode, self._shares_ports)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (cause := task.exception()) is not None:
            self._end(cause)

    def _end(self, cause: BaseException | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(cause)


def _is_grpcs(task: asyncio.Task[Any]) -> bool:
    """Whether a new task is gRPC's, such as the loop that accepts calls: Cython made its coroutine.

    Watched, because ``wait_for_termination`` does not return before the last call has ended, while
    no new one is accepted; and because cancelling who waits in it keeps the server from stopping.
    """
    return not isinstance(task.get_coro(), types.CoroutineType)


async def _discard(engine: Engine) -> None:
    """Close the ports of an engine: one that was never started would keep them."""
    try:
        await engine.start()
    finally:
        await engine.stop(None)
