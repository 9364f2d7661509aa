"""Which engine serves: the queue engine where it works, else the portable one.

``queue`` stands on a private layer of grpcio, so ``auto`` has it prove itself first. The proof is
kept in the cache folder: what passed once with these very versions is not tried at every start.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from dynserve.errors import EngineError
from dynserve.schema.cache import Cache, default_folder

if TYPE_CHECKING:
    from dynserve.engine.base import Engine

__all__ = ["ENGINES", "engine_maker", "new_event_loop"]

_log = logging.getLogger("dynserve.server")

ENGINES = ("auto", "queue", "aio")
_PROVEN = b"the queue engine works"


def engine_maker(name: str) -> Callable[..., Engine]:
    """The class of the engine of that name, one of ``ENGINES``.

    Raises:
        EngineError: the queue engine was asked for, and does not work here.
    """
    problem = _problem() if name != "aio" else "not asked for"
    if not problem:
        from dynserve.engine.queue import QueueEngine

        return QueueEngine
    if name == "queue":
        raise EngineError(name, problem)
    if name == "auto":
        _warn(problem)
    from dynserve.engine.aio import AioEngine

    return AioEngine


def new_event_loop(name: str) -> asyncio.AbstractEventLoop:
    """The event loop that the engine of that name runs best on.

    Where the queue engine's own cannot be, that is uvloop's if it is installed.

    Raises:
        EngineError: as :func:`engine_maker`.
    """
    if engine_maker(name).__name__ == "QueueEngine":
        from dynserve.engine.queue.loop import QueueLoop

        if QueueLoop.is_possible():
            return QueueLoop()
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@functools.cache
def _warn(problem: str) -> None:
    _log.warning("the queue engine is not used: %s; grpc.aio serves, several times slower", problem)


@functools.cache
def _problem() -> str:
    """Why the queue engine cannot be used, empty where it can; found out once a process."""
    folder = default_folder()
    cache = Cache(folder) if folder is not None else None
    versions = (grpc.__version__, sys.version, sys.platform)
    key = Cache.key([_PROVEN, *(version.encode() for version in versions)])
    if cache is not None and cache.load(key) is not None:
        return ""
    try:
        from dynserve.engine.queue.probe import probe

        probe()
    except Exception as error:  # of a layer that may have changed in any way
        return f"it failed with grpcio {grpc.__version__}: {type(error).__name__}: {error}"
    if cache is not None:
        cache.store(key, _PROVEN)
    return ""
