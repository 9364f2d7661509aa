"""What every engine is."""

from __future__ import annotations

from typing import Protocol

import grpc

from .running import RunningCall

__all__ = ["Engine"]


class Engine(Protocol):
    """A server of plain grpcio handlers. Made, and used, on the loop that it serves."""

    def add_port(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen on an address; returns the port, which the system chose where 0 was asked for.

        Raises:
            RuntimeError: the address cannot be bound.
        """

    async def start(self) -> None:
        """Begin to serve."""

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, let those under way finish for ``grace`` seconds, cancel the rest."""

    async def wait_for_termination(self) -> None:
        """Return when the server has stopped."""

    def calls(self) -> list[RunningCall]:
        """The calls that run right now, the oldest first."""
