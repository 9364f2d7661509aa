"""grpc.health.v1: grpcio-health-checking's servicer, bound as a servicer of generated code is.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health, health_pb2

from dynserve.binding import Unit
from dynserve.context import AsyncContext
from dynserve.schema import Schema
from dynserve.service import Service

from .drain import Drain

__all__ = ["Health"]

SERVICE = "grpc.health.v1.Health"
_Status = health_pb2.HealthCheckResponse


class Health:
    """The health of the server, under the name ``""``, and of each service."""

    def __init__(self, drain: Drain) -> None:
        self._servicer = _DrainedServicer(drain)
        self._known: set[str] = set()

    def unit(self) -> Unit:
        """The service, to be bound."""
        service = Service(SERVICE)
        service.add_servicer(self._servicer)
        return Unit(Schema.load(health_pb2), [service])

    async def serve(self, services: Iterable[str]) -> None:
        """Report these services as SERVING, and those that were before and are not, as unknown."""
        now = set(services)
        for name in self._known - now:
            await self._servicer.set(name, _Status.SERVICE_UNKNOWN)
        for name in now:
            await self._servicer.set(name, _Status.SERVING)
        self._known = now

    async def set(self, service: str, serving: bool) -> None:
        """Report a service, or ``""`` for the whole server, as SERVING or NOT_SERVING."""
        await self._servicer.set(service, _Status.SERVING if serving else _Status.NOT_SERVING)

    async def drain(self) -> None:
        """Report everything as NOT_SERVING, for good."""
        await self._servicer.enter_graceful_shutdown()


class _DrainedServicer(health.aio.HealthServicer):
    """Watchers are told of the shutdown and let go, rather than kept until the grace is over."""

    def __init__(self, drain: Drain) -> None:
        super().__init__()
        self._drain = drain

    async def List(self, request: Any, context: AsyncContext) -> Any:
        """The status of every service; grpcio-health-checking leaves this one out."""
        response: Any = health_pb2.HealthListResponse()  # type: ignore[attr-defined]  # the stub is older
        for name, status in self._server_status.items():  # type: ignore[attr-defined]  # the same
            response.statuses[name].status = status
        return response

    async def Watch(  # type: ignore[override]  # messages of another pool, the same otherwise
        self, request: Any, context: AsyncContext
    ) -> None:
        await self._drain.run(super().Watch(request, context))
