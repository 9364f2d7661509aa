"""grpc.health.v1: whether the server and each of its services is ready; Check, List and Watch.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md

The contract and the messages are grpcio-health-checking's. Its servicers are not used: the one for
asyncio writes to watchers under the lock that a change of status needs, so one client that does not
read would keep the server from ever stopping; for the one for threads Check would wait behind
handlers that are busy. A subclass of the first would be this class over private attributes.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from dynserve.binding import bind
from dynserve.context import AsyncContext
from dynserve.names import quoted
from dynserve.routes import LateService, Routes
from dynserve.schema import Schema
from dynserve.service import Service
from dynserve.status import StatusError
from dynserve.unit import Unit

from .drain import shutting_down

if TYPE_CHECKING:
    from dynserve.auth.policy import Policy

__all__ = ["Health"]

_SERVICE = "grpc.health.v1.Health"


class Health:
    """The health of the server, under the name ``""``, and of each service. Used on one loop.

    ``statuses`` says by name what is serving. ``changed`` is set, and another one made, when they
    change.
    """

    def __init__(self) -> None:
        self.statuses: dict[str, bool] = {"": True}
        self._own = self.statuses
        self._others: Mapping[str, bool] = {}
        self.changed = asyncio.Event()
        self.is_draining = False
        self.is_over = False
        self._served: frozenset[str] = frozenset()

    def service(self, policy: Policy | None = None) -> LateService:
        """The service, to be bound; ``policy`` says who may call it."""
        return LateService(_SERVICE, functools.partial(self._bound, policy))

    def _bound(self, policy: Policy | None) -> Routes:
        from grpc_health.v1 import health_pb2  # enters protobuf's process-wide pool

        schema = Schema.load(health_pb2)
        service = Service(_SERVICE)
        service.add_servicer(self.servicer(schema))  # List, too, where the contract has it
        return bind([Unit(schema, [service], policy=policy)])

    def servicer(self, schema: Schema) -> object:
        """What serves the methods, with the messages of ``schema``."""
        return _Servicer(self, schema)

    def serve(self, services: Iterable[str]) -> None:
        """Know these services from now on, new ones as SERVING; forget those served before."""
        now = frozenset(services)
        kept = {n: s for n, s in self._own.items() if n not in self._served - now}
        self._update(dict.fromkeys(now, True) | kept)
        self._served = now

    def set(self, service: str, serving: bool) -> None:
        """Report a service, or ``""`` for the whole server, as SERVING or NOT_SERVING.

        Of no effect once the server drains.
        """
        if not self.is_draining:
            self._update({**self._own, service: serving})

    def heed(self, others: Mapping[str, bool]) -> None:
        """Know what other workers say: what one reports as NOT_SERVING all do."""
        self._others = others
        self._update(self._own)

    def drain(self) -> None:
        """Report everything as NOT_SERVING, for good."""
        self.is_draining = True
        self._update(self._own)

    def let_go(self) -> None:
        """End the streams of those who watch."""
        self.is_over = True
        self._update(self._own)

    def _update(self, own: dict[str, bool]) -> None:
        self._own = own
        said = {n: is_serving and self._others.get(n, True) for n, is_serving in own.items()}
        self.statuses = {
            n: is_serving and not self.is_draining
            for n, is_serving in {**self._others, **said}.items()
        }
        self.changed.set()
        self.changed = asyncio.Event()


class _Servicer:
    """The methods of the service."""

    def __init__(self, health: Health, schema: Schema) -> None:
        self._health = health
        response = schema.message("grpc.health.v1.HealthCheckResponse")
        self._unknown = response(status="SERVICE_UNKNOWN")
        self._responses = {
            False: response(status="NOT_SERVING"),
            True: response(status="SERVING"),
        }

    async def Check(self, request: Any) -> Any:
        """The status of a service."""
        is_serving = self._health.statuses.get(request.service)
        if is_serving is None:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND, f"unknown service {quoted(request.service)}"
            )
        return self._responses[is_serving]

    async def List(self, _request: Any) -> dict[str, Any]:
        """The status of every service."""
        statuses = self._health.statuses.items()
        return {"statuses": {name: self._responses[serving] for name, serving in statuses}}

    async def Watch(self, request: Any, context: AsyncContext) -> None:
        """The status of a service and its changes."""
        told = None
        while True:
            changed = self._health.changed
            is_serving = self._health.statuses.get(request.service)
            response = self._unknown if is_serving is None else self._responses[is_serving]
            if response is not told:  # of several changes during a write, the last one counts
                await context.write(response)
                told = response
            elif self._health.is_over:
                raise shutting_down()
            else:
                await changed.wait()
