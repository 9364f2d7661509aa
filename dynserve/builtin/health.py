"""grpc.health.v1: whether the server and each of its services is ready; Check, List and Watch.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md

The contract and the messages are grpcio-health-checking's. Its servicers are not used: the one for
asyncio writes to watchers under the lock that a change of status needs, so one client that does not
read would keep the server from ever stopping; for the one for threads Check would wait behind
handlers that are busy. A subclass of the first would be this class over private attributes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from dynserve.binding import Unit
from dynserve.context import AsyncContext
from dynserve.names import quoted
from dynserve.schema import Schema
from dynserve.service import Service
from dynserve.status import StatusError

from .drain import shutting_down

__all__ = ["Health"]

SERVICE = "grpc.health.v1.Health"
_Status = health_pb2.HealthCheckResponse


class Health:
    """The health of the server, under the name ``""``, and of each service. Used on one loop."""

    def __init__(self) -> None:
        self._schema = Schema.load(health_pb2)
        self._response: Any = self._schema.message("grpc.health.v1.HealthCheckResponse")
        self._statuses: dict[str, int] = {"": _Status.SERVING}
        self._served: frozenset[str] = frozenset()
        self._is_draining = False
        self._changed = asyncio.Event()  # of the statuses as they are; a change brings another

    def unit(self) -> Unit:
        """The service, to be bound."""
        service = Service(SERVICE)
        service.add_servicer(self)  # List, too, where the contract has it
        return Unit(self._schema, [service])

    def serve(self, services: Iterable[str]) -> None:
        """Know these services from now on, new ones as SERVING; forget those served before."""
        now = frozenset(services)
        kept = {n: s for n, s in self._statuses.items() if n not in self._served - now}
        new = _Status.NOT_SERVING if self._is_draining else _Status.SERVING
        self._update(dict.fromkeys(now, new) | kept)
        self._served = now

    def set(self, service: str, serving: bool) -> None:
        """Report a service, or ``""`` for the whole server, as SERVING or NOT_SERVING.

        Of no effect once the server drains.
        """
        if not self._is_draining:
            status = _Status.SERVING if serving else _Status.NOT_SERVING
            self._update({**self._statuses, service: status})

    def drain(self) -> None:
        """Report everything as NOT_SERVING, for good, and let the watchers go."""
        self._is_draining = True
        self._update(dict.fromkeys(self._statuses, _Status.NOT_SERVING))

    def _update(self, statuses: dict[str, int]) -> None:
        self._statuses = statuses
        self._changed.set()
        self._changed = asyncio.Event()

    # ---- the methods

    async def Check(self, request: Any) -> Any:
        """The status of a service."""
        status = self._statuses.get(request.service)
        if status is None:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND, f"unknown service {quoted(request.service)}"
            )
        return self._response(status=status)

    async def List(self, request: Any) -> dict[str, Any]:
        """The status of every service."""
        statuses = self._statuses.items()
        return {"statuses": {name: self._response(status=status) for name, status in statuses}}

    async def Watch(self, request: Any, context: AsyncContext) -> None:
        """The status of a service and its changes."""
        told = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _Status.SERVICE_UNKNOWN)
            if status != told:  # of several changes during a write, the last one counts
                await context.write(self._response(status=status))
                told = status
            elif self._is_draining:
                raise shutting_down()
            else:
                await changed.wait()
