"""Running a server as a program does: from its start to what signals, or a supervisor, ask for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from dynserve.equipment import access_log_shown
from dynserve.main_loop import Stopping, first_of, on_signals

if TYPE_CHECKING:
    from dynserve.server import Server
    from dynserve.workers.link import Link

__all__ = ["run_until_stopped"]

_A_WHILE = 0.5  # seconds of stopping, after which a person would wonder


async def run_until_stopped(
    server: Server,
    link: Link | None,
    ready: Callable[[], object] | None,
    waiting: Callable[[], object] | None,
) -> None:
    """Start a server, and stop it when it is asked for; see ``Server.run``."""
    asked = Stopping(counts=link is None)
    dumps = {signal.SIGUSR1: lambda: _say(server.dump())} if hasattr(signal, "SIGUSR1") else {}
    with access_log_shown(server.settings), on_signals(asked.on_signal, dumps):
        if link is not None:
            await link.open(heed=server.heed, stop=asked.on_stop, cancel=asked.again.set)
        if await _start(server, asked):
            try:
                if link is not None:
                    link.ready(server.addresses)
                if ready is not None:
                    ready()
                await first_of(asked.first.wait(), server.wait_for_termination())
            except BaseException:  # gRPC's server has to be stopped while its loop runs
                await server.stop(None)
                raise
            await _stop(server, asked, waiting)
        if link is not None:
            link.close()


async def _start(server: Server, asked: Stopping) -> bool:
    """Start, unless it is asked to stop before; then nothing is left of it."""
    starting = asyncio.ensure_future(server.start())
    await first_of(asyncio.shield(starting), asked.first.wait())
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
    if starting.cancelled():
        return False
    starting.result()
    return True


async def _stop(server: Server, asked: Stopping, waiting: Callable[[], object] | None) -> None:
    if asked.drains and server.settings.drain_wait:
        await server.drain()
        await first_of(asyncio.sleep(server.settings.drain_wait), asked.again.wait())
    # Where a successor on the same ports serves, load balancers have nothing to notice.
    grace = None if asked.again.is_set() else server.settings.grace
    stopping = asyncio.ensure_future(server.stop(grace, drains=not asked.is_replaced))
    await first_of(asyncio.shield(stopping), asked.again.wait(), asyncio.sleep(_A_WHILE))
    if waiting is not None and not (stopping.done() or asked.again.is_set()):
        waiting()
    await first_of(asyncio.shield(stopping), asked.again.wait())
    if asked.again.is_set():
        await server.stop(None)
    await stopping


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()
