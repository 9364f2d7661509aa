"""Schemas and handlers → generic handlers → Routes, and the router that reads them.

Every service becomes what ``grpc.method_handlers_generic_handler`` makes. grpcio would try a list
of those one after the other on each call; the router in front finds the one by the path, in one
dict, whatever their number. Routes are an immutable snapshot: the router reads it once a call, so
replacing it replaces everything for calls that start later and nothing for calls under way.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc

from dynserve.errors import BindError, SymbolError
from dynserve.handlers import make_method_handler, shape_of
from dynserve.method import MethodInfo
from dynserve.names import Alike, Name, Names, one_of, plain, quoted
from dynserve.schema import Schema
from dynserve.service import Registration, Registry, own_name, place_of
from dynserve.status import ErrorRules, StatusError, unforeseen

__all__ = ["BoundService", "LateService", "Router", "Routes", "Unit", "bind"]

_log = logging.getLogger("dynserve.server")

_MAX_INDEXED = 256  # services whose methods are kept ready for 'did you mean'

_NO_RULES = ErrorRules()


class Unit:
    """What is bound together: one schema, and handlers for methods in it.

    A registry that is no ``Service`` holds handlers for any service, and the general fallback.
    """

    def __init__(
        self, schema: Schema, registries: Sequence[Registry], rules: ErrorRules = _NO_RULES
    ) -> None:
        self.schema = schema
        self.registries = registries
        self.rules = rules


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
        make: gives what is bound.
    """

    is_served = True
    holes: tuple[str, ...] = ()

    def __init__(self, name: str, make: Callable[[], Unit]) -> None:
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
            return bind([self._make()])
        except Exception as error:
            _log.exception("%s cannot be served", self.name)
            return error


class Routes:
    """An immutable snapshot of everything that is served.

    ``services`` are sorted by name: those that the sources declare, and those that have handlers.
    ``table`` has what serves a path, ``late`` gives what is bound when a path is first called, and
    ``unknown`` says what is near a path that nothing serves.
    """

    def __init__(
        self,
        services: Mapping[str, BoundService | LateService],
        table: Mapping[str, grpc.GenericRpcHandler],
        late: Callable[[str], grpc.GenericRpcHandler | None],
    ) -> None:
        self.services = services
        self.table = table
        self.late = late
        self.unknown = _Unknown(services).explain

    @property
    def holes(self) -> list[str]:
        """The methods without a handler, as ``pkg.Service/Method``."""
        return [f"{s.name}/{method}" for s in self.services.values() for method in s.holes]


class Router(grpc.GenericRpcHandler):
    """The one generic handler that an engine is given."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The method handler for a path; for an unknown one, a handler that says what is near."""
        path = handler_call_details.method
        routes = self.routes  # once: the whole call is served from this snapshot
        try:
            generic = routes.table.get(path) or routes.late(path)
            if generic is None:
                return _refusal(StatusError(grpc.StatusCode.UNIMPLEMENTED, routes.unknown(path)))
        except Exception as error:  # what is bound late cannot be: its file cannot be built, say
            return _refusal(unforeseen(error, path))
        return generic.service(handler_call_details)


def _refusal(status: StatusError) -> grpc.RpcMethodHandler[Any, Any]:
    """Answers any call, of whatever kind, with a status before it reads a request."""

    async def refuse(_requests: Any, call: Any) -> None:
        await call.abort(status.code(), status.details())

    return grpc.stream_stream_rpc_method_handler(refuse)


def bind(units: Iterable[Unit], late: Iterable[LateService] = ()) -> Routes:
    """Fit the handlers of all units to their schemas; those of late services have time.

    Raises:
        BindError: something does not fit; every problem found is in it.
    """
    binder = _Binder()
    for unit in units:
        binder.add(unit)
    for service in late:
        binder.add_late(service)
    return binder.finish()


class _Entry:
    """A registration whose method was found."""

    def __init__(self, method: MethodInfo, handler: Callable[..., Any], where: str) -> None:
        self.method = method
        self.handler = handler
        self.where = where


class _Binder:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.table: dict[str, grpc.GenericRpcHandler] = {}
        self.services: dict[str, BoundService | LateService] = {}
        self.late: dict[str, Callable[[str], grpc.GenericRpcHandler | None]] = {}
        self._names: dict[tuple[Schema, str | None], Names] = {}
        self._unknown: set[tuple[Schema, str]] = set()  # services that are not in the schema

    def add(self, unit: Unit) -> None:
        entries = self._entries(unit)
        fallbacks = self._fallbacks_of(unit)
        named = [r.service_name for r in unit.registries if r.service_name is not None]
        for name in dict.fromkeys([*unit.schema.declared_services, *entries, *named]):
            if not self._is_known(unit.schema, name, ""):
                continue
            if self._is_new(name, unit.schema):
                self._add_service(
                    unit, name, entries.get(name, {}), fallbacks.get(name) or fallbacks.get(None)
                )

    def add_late(self, service: LateService) -> None:
        if service.name not in self.services:
            self.services[service.name] = service
            self.late[service.name] = service.find
        else:
            self._is_new(service.name, service.schema)

    def finish(self) -> Routes:
        if self.problems:
            raise BindError(self.problems)
        services = dict(sorted(self.services.items()))
        return Routes(services, self.table, _late(self.late))

    def _is_new(self, service: str, schema: Schema) -> bool:
        """Whether no other schema has the service; noted where one has."""
        if service not in self.services:
            return True
        other = self.services[service].schema
        self.problems.append(
            f"service {service!r} is in two schemas: {other.label} and {schema.label}"
        )
        return False

    # ---- which method a registration means

    def _entries(self, unit: Unit) -> dict[str, dict[str, _Entry]]:
        """service → method → handler, problems noted."""
        entries: dict[str, dict[str, _Entry]] = {}
        for registry in unit.registries:
            for registration in registry.registrations:
                method = self._method_of(unit.schema, registration)
                if method is not None:
                    self._enter(entries, method, registration.handler, registration.where)
            for servicer in registry.servicers:
                self._enter_servicer(entries, unit.schema, servicer, registry.service_name or "")
        return entries

    def _enter(
        self,
        entries: dict[str, dict[str, _Entry]],
        method: MethodInfo,
        handler: Callable[..., Any],
        where: str,
    ) -> None:
        methods = entries.setdefault(method.service, {})
        if method.name in methods:
            known = methods[method.name].where
            self.problems.append(f"{method} has two handlers: {known} and {where}")
        else:
            methods[method.name] = _Entry(method, handler, where)

    def _enter_servicer(
        self,
        entries: dict[str, dict[str, _Entry]],
        schema: Schema,
        servicer: object,
        name: str,
    ) -> None:
        where = f"servicer {type(servicer).__name__}"
        if not self._is_known(schema, name, where):
            return
        info = schema.service(name)
        attributes = {plain(name): name for name in dir(servicer) if not name.startswith("_")}
        found = False
        for method in info.methods.values():
            handler = getattr(servicer, method.name, None)
            if handler is None:
                handler = getattr(servicer, attributes.get(plain(method.name), ""), None)
            if handler is None:
                continue
            found = True
            if callable(handler):
                self._enter(entries, method, handler, place_of(handler))
            else:
                self.problems.append(f"{where} has {handler!r} for {method}, expected a method")
        if not found:
            wanted = ", ".join(info.methods)
            self.problems.append(f"{where} has none of the methods of {name}: {wanted}")

    def _method_of(self, schema: Schema, registration: Registration) -> MethodInfo | None:
        where = registration.where
        if registration.service is not None and not self._is_known(
            schema, registration.service, where
        ):
            return None
        method = self._find(schema, registration)
        if method is not None and registration.kind not in (None, method.kind):
            self.problems.append(
                f"{where} is registered as {registration.kind}, but {method} is {method.kind};"
                f" use @{method.kind.name.lower()} or @rpc"
            )
            return None
        return method

    def _is_known(self, schema: Schema, service: str, where: str) -> bool:
        """Whether the schema has the service; noted once where it has not."""
        if service in schema.index.services:
            return True
        if (schema, service) not in self._unknown:
            self._unknown.add((schema, service))
            error = SymbolError("service", service, schema.index.services)
            self.problems.append(f"{where}: {error}" if where else str(error))
        return False

    def _find(self, schema: Schema, registration: Registration) -> MethodInfo | None:
        """The method by its name, or by the handler's own; in one service, or in all declared."""
        service, where = registration.service, registration.where
        wanted = registration.method
        names = self._names_of(schema, service)
        if wanted is None:
            wanted = own_name(registration.handler) or ""
            found = names.exactly(wanted) or names.alike(wanted)
        else:
            found = names.exactly(wanted)
        if len(found) == 1:
            return schema.service(found[0].service).methods[found[0].method]
        if found:
            self.problems.append(f"{where}: {wanted!r} is ambiguous{one_of(found)}")
        else:
            of = "any service of the schema" if service is None else f"service {service!r}"
            near = names.near(wanted, in_full=service is None)
            self.problems.append(f"{where}: no method {wanted!r} in {of}{near}")
        return None

    def _names_of(self, schema: Schema, service: str | None) -> Names:
        """Kept, as there may be thousands of methods and as many handlers."""
        key = schema, service
        if key not in self._names:
            services = schema.declared_services if service is None else [service]
            self._names[key] = Names(
                Name(name, method) for name in services for method in schema.method_kinds(name)
            )
        return self._names[key]

    # ---- one service

    def _add_service(
        self,
        unit: Unit,
        name: str,
        entries: Mapping[str, _Entry],
        fallback: Registration | None,
    ) -> None:
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for entry in entries.values():
            try:
                methods[entry.method.name] = make_method_handler(
                    entry.method, entry.handler, unit.schema, unit.rules
                )
            except TypeError as error:
                self.problems.append(f"{entry.where} {error}")
        handlers = {entry.method.name: entry.where for entry in entries.values()}
        if fallback is not None:
            handlers |= self._add_fallback(unit, name, handlers, fallback)
        self.services[name] = BoundService(name, unit.schema, handlers)
        if methods:
            generic = grpc.method_handlers_generic_handler(name, methods)
            self.table |= {f"/{name}/{method}": generic for method in methods}

    def _fallbacks_of(self, unit: Unit) -> dict[str | None, Registration]:
        """The fallbacks by service; that for all services is under None."""
        fallbacks: dict[str | None, Registration] = {}
        for registry in unit.registries:
            given = registry.fallback_handler
            if given is None:
                continue
            try:
                shape_of(given.handler)
            except TypeError as error:
                self.problems.append(f"{given.where} {error}")
            else:
                fallbacks[registry.service_name] = given
        return fallbacks

    def _add_fallback(
        self, unit: Unit, name: str, handled: Mapping[str, str], fallback: Registration
    ) -> dict[str, str]:
        only_streams = shape_of(fallback.handler).is_generator
        served = {
            method: fallback.where
            for method, kind in unit.schema.method_kinds(name).items()
            if method not in handled and (kind.response_streaming or not only_streams)
        }

        def build(method: str) -> grpc.GenericRpcHandler | None:
            if method not in served:
                return None
            info = unit.schema.service(name).methods[method]
            handler = make_method_handler(info, fallback.handler, unit.schema, unit.rules)
            return grpc.method_handlers_generic_handler(name, {method: handler})

        self.late[name] = build
        return served


def _late(
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
