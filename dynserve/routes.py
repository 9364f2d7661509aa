"""Routes: an immutable snapshot of all that is served, and the router that reads it.

grpcio would try a list of generic handlers one after the other on each call; the router in front of
them finds the one by the path, in one dict, whatever their number. It reads the snapshot once a
call, so that replacing it replaces everything for calls that start later, and nothing for calls
under way.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from dynserve.names import Alike, quoted
from dynserve.schema import Schema
from dynserve.status import StatusError, unforeseen
from dynserve.surrounded import Gate

if TYPE_CHECKING:
    from dynserve.auth.policy import Policy
    from dynserve.observer import Observer

__all__ = ["BoundService", "LateService", "Router", "Routes", "bound_late"]

_log = logging.getLogger("dynserve.server")

# https://www.rfc-editor.org/rfc/rfc9113#name-defined-settings, SETTINGS_MAX_HEADER_LIST_SIZE
_ENTRY_OVERHEAD = 32  # bytes
_MAX_INDEXED = 256  # services whose methods are kept ready for 'did you mean'


class BoundService:
    """A service of the snapshot.

    ``handlers`` maps the methods that have a handler to the place of it.
    """

    def __init__(self, name: str, schema: Schema, handlers: Mapping[str, str]) -> None:
        self.name = name
        self.schema = schema
        self.handlers = handlers

    @property
    def is_served(self) -> bool:
        """Whether any of its methods has a handler."""
        return bool(self.handlers)

    @property
    def holes(self) -> tuple[str, ...]:
        """The names of the methods without a handler."""
        return tuple(m for m in self.schema.method_kinds(self.name) if m not in self.handlers)


class LateService:
    """A service of the snapshot that is bound when it is first called or described.

    Every method of it has a handler. Where it cannot be bound it raises the same error each time.

    Args:
        name: its full name.
        make: gives it bound, alone.
    """

    is_served = True
    holes: tuple[str, ...] = ()

    def __init__(self, name: str, make: Callable[[], Routes]) -> None:
        self.name = name
        self._make = make
        self._lock = threading.Lock()
        self._bound: Routes | Exception | None = None

    @property
    def schema(self) -> Schema:
        """The schema that declares it."""
        return self._routes().services[self.name].schema

    @property
    def handlers(self) -> Mapping[str, str]:
        """The places of the handlers by method."""
        return self._routes().services[self.name].handlers

    def find(self, method: str) -> grpc.GenericRpcHandler | None:
        """What serves a method, None where there is no such method."""
        return self._routes().table.get(f"/{self.name}/{method}")

    def _routes(self) -> Routes:
        if self._bound is None:
            with self._lock:  # it is called on one thread and described on another
                if self._bound is None:
                    self._bound = self._try_to_bind()
        if isinstance(self._bound, Exception):
            raise self._bound.with_traceback(None)
        return self._bound

    def _try_to_bind(self) -> Routes | Exception:
        try:
            return self._make()
        except Exception as error:
            _log.exception("%s cannot be served", self.name)
            return error


class Routes:
    """An immutable snapshot of everything that is served.

    ``services`` are sorted by name: those that the sources declare, and those that have handlers.
    ``table`` has what serves a path, ``late`` gives what is bound when a path is first called, and
    ``unknown`` says what is near a path that nothing serves; ``policy`` says who is told.
    """

    def __init__(
        self,
        services: Mapping[str, BoundService | LateService],
        table: Mapping[str, grpc.GenericRpcHandler],
        late: Callable[[str], grpc.GenericRpcHandler | None],
        policy: Policy | None = None,
    ) -> None:
        self.services = services
        self.policy = policy
        self.table = table
        self.late = late
        self.unknown = _Unknown(services).explain

    @property
    def holes(self) -> list[str]:
        """The methods without a handler, as ``pkg.Service/Method``."""
        return [f"{s.name}/{method}" for s in self.services.values() for method in s.holes]


class Router(grpc.GenericRpcHandler):
    """The one generic handler that an engine is given.

    Args:
        routes: what is served; may be replaced at any time.
        observers: see what is refused here, too.
        max_metadata_size: bytes, as HTTP/2 counts them; a call with more is refused. gRPC's core
            has the same limit, unless its options say otherwise.
    """

    def __init__(
        self,
        routes: Routes,
        observers: Sequence[Observer] = (),
        max_metadata_size: int = sys.maxsize,
    ) -> None:
        self.routes = routes
        self._observers = observers
        self._max_metadata_size = max_metadata_size

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The method handler for a path; for an unknown one, a handler that says what is near."""
        path = handler_call_details.method
        routes = self.routes  # once: the whole call is served from this snapshot
        size = 0
        for key, value in handler_call_details.invocation_metadata:
            size += len(key) + len(value) + _ENTRY_OVERHEAD
        if size > self._max_metadata_size:
            return self._refusal(routes, path, self._too_large)
        try:
            generic = routes.table.get(path) or routes.late(path)
        except Exception as error:  # what is bound late cannot be: its file cannot be built, say
            status = unforeseen(error, path)
            return self._refusal(routes, path, lambda _path: status)
        if generic is None:
            return self._refusal(routes, path, _unimplemented(routes))
        return generic.service(handler_call_details)

    def _too_large(self, _path: str) -> StatusError:
        text = f"metadata is larger than {self._max_metadata_size} bytes"
        return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

    def _refusal(
        self, routes: Routes, path: str, status: Callable[[str], StatusError]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Answers any call, of whatever kind, with a status before it reads a request."""
        gate = Gate(self._observers, routes.policy)

        async def refuse(_requests: Any, call: Any) -> None:
            await gate.refuse(path, status, call)

        return grpc.stream_stream_rpc_method_handler(refuse)


def _unimplemented(routes: Routes) -> Callable[[str], StatusError]:
    def status(path: str) -> StatusError:
        return StatusError(grpc.StatusCode.UNIMPLEMENTED, routes.unknown(path))

    return status


def bound_late(
    services: Mapping[str, Callable[[str], grpc.GenericRpcHandler | None]],
) -> Callable[[str], grpc.GenericRpcHandler | None]:
    """Binds a method when it is first called: a fallback may serve thousands."""
    bound: dict[str, grpc.GenericRpcHandler] = {}

    def late(path: str) -> grpc.GenericRpcHandler | None:
        generic = bound.get(path)
        if generic is None:
            service, _, method = path.removeprefix("/").rpartition("/")
            build = services.get(service)
            generic = build(method) if build is not None else None
            if generic is not None:
                bound[path] = generic
        return generic

    return late


class _Unknown:
    """Says what is near an unknown path. What it needs is made when the first peer asks."""

    def __init__(self, services: Mapping[str, BoundService | LateService]) -> None:
        self._services = services
        self._methods = functools.lru_cache(_MAX_INDEXED)(self._alike_methods)

    def explain(self, path: str) -> str:
        service, _, method = path.removeprefix("/").rpartition("/")
        bound = self._services.get(service)
        if bound is None:
            near = _did_you_mean(self._names.near(service))
            return f"unknown service {quoted(service)}{near}"
        if method in bound.schema.method_kinds(service):
            return f"method {service}/{method} is not implemented on this server"
        near = _did_you_mean(self._methods(service).near(method))
        return f"unknown method {quoted(method)} of service {service!r}{near}"

    @functools.cached_property
    def _names(self) -> Alike:
        return Alike(self._services)

    def _alike_methods(self, service: str) -> Alike:
        return Alike(self._services[service].schema.method_kinds(service))


def _did_you_mean(names: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else ""
