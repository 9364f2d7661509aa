"""A worker's end: what its supervisor tells it, and what it tells the supervisor."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .channel import VARIABLE, Channel
from .lifeline import end_without

__all__ = ["Link"]

_log = logging.getLogger("dynserve.workers")


class Link:
    """The connection of a worker to its supervisor. Used on one event loop.

    Attributes:
        number: which of the workers this is, from 1 on; its successor has the same.
        workers: how many there are.
        listen: the addresses to listen on, with the ports that the supervisor chose.
        is_first: whether this is the one to tell the user what is served.
    """

    def __init__(self, channel: Channel, told: Mapping[str, Any]) -> None:
        self.number: int = told["number"]
        self.workers: int = told["of"]
        self.listen: tuple[str, ...] = tuple(told["listen"])
        self.is_first: bool = told["first"]
        self._channel = channel
        self._own: dict[str, bool] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: asyncio.Future[None] | None = None

    @classmethod
    def of_environment(cls) -> Link | None:
        """The link of this process, None where it is no worker.

        To be called once, before the process starts others: they are no workers. From now on the
        process ends when its supervisor does, see :func:`~.lifeline.end_without`.
        """
        told = os.environ.pop(VARIABLE, None)
        if told is None:
            return None
        values = json.loads(told)
        for file in (values["file"], values["lifeline"]):
            os.set_inheritable(file, False)
        end_without(values["lifeline"], values["stop_seconds"])
        return cls(Channel(socket.socket(fileno=values["file"])), values)

    async def open(
        self,
        *,
        heed: Callable[[Mapping[str, bool]], object],
        stop: Callable[[str], object],
        cancel: Callable[[], object],
    ) -> None:
        """Hear the supervisor from now on; returns when the first has been heard. To be closed.

        Args:
            heed: called with the health of the other workers, by service, True for SERVING, now
                and whenever it changes. A service is NOT_SERVING where they or this one say so.
            stop: called when the worker is to stop gracefully, more than once maybe, with why.
                "replaced": a successor serves, and the server goes on, so there is nothing to
                report to load balancers, nor to wait for them. "interrupted": the server stops, but
                by Ctrl-C, which does not wait for load balancers. "stopping": it stops; also when
                the supervisor is gone.
            cancel: called when it is not to wait for calls under way any more.
        """
        self._heed, self._stop, self._cancel = heed, stop, cancel
        self._loop = asyncio.get_running_loop()
        self._open = self._loop.create_future()
        self._loop.add_reader(self._channel.fileno(), self._read)
        self._flush()
        await self._open

    def close(self) -> None:
        """Hear nothing any more."""
        if self._loop is not None:
            self._loop.remove_reader(self._channel.fileno())
            self._loop.remove_writer(self._channel.fileno())
            self._loop = None
        self._channel.close()

    def ready(self, addresses: Sequence[str]) -> None:
        """Tell that calls are served on these addresses, and that signals are handled."""
        self._send("ready", list(addresses))

    def report(self, service: str, serving: bool) -> None:
        """Tell the other workers that the program has set the health of a service."""
        self._own[service] = serving
        self._send("health", self._own)

    def _send(self, kind: str, value: Any) -> None:
        self._channel.send(kind, value)
        self._flush()

    def _flush(self) -> None:
        if self._loop is None:
            return  # done when the link is opened
        if self._channel.flush():
            self._loop.remove_writer(self._channel.fileno())
        else:
            self._loop.add_writer(self._channel.fileno(), self._flush)

    def _read(self) -> None:
        messages, is_open, problem = self._channel.receive()
        for kind, value in messages:
            if kind == "health":
                self._heed(value)
                self._is_open()
            elif kind == "stop":
                self._stop(value)
            elif kind == "cancel":
                self._cancel()
        if not is_open:
            _log.warning("the supervisor is gone, this worker stops%s", problem and f": {problem}")
            self.close()
            self._is_open()
            self._stop("stopping")

    def _is_open(self) -> None:
        if self._open is not None and not self._open.done():
            self._open.set_result(None)
