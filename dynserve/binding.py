"""Schemas and handlers → generic handlers → Routes.

Every service becomes what ``grpc.method_handlers_generic_handler`` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from dynserve.callables import own_name, place_of, shape_of
from dynserve.errors import BindError, SymbolError
from dynserve.method import MethodInfo
from dynserve.names import Name, Names, one_of, plain
from dynserve.routes import BoundService, LateService, Routes, bound_late
from dynserve.schema import Schema
from dynserve.service import Around, Registration
from dynserve.unit import Unit

if TYPE_CHECKING:
    from dynserve.auth.policy import Policy

__all__ = ["Unit", "bind"]


def bind(
    units: Iterable[Unit], late: Iterable[LateService] = (), policy: Policy | None = None
) -> Routes:
    """Fit the handlers of all units to their schemas; those of late services have time.

    ``policy`` says who is told what is not there.

    Raises:
        BindError: something does not fit; every problem found is in it.
    """
    late = list(late)
    binder = _Binder({service.name for service in late})
    for unit in units:
        binder.add(unit)
    for service in late:
        binder.add_late(service)
    return binder.finish(policy)


class _Entry(NamedTuple):
    """A handler whose method was found; ``around`` runs around it alone."""

    method: MethodInfo
    handler: Callable[..., Any]
    where: str
    around: Around


class _Binder:
    def __init__(self, built_in: Collection[str]) -> None:
        self._built_in = built_in
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
            if name in self._built_in and not (name in entries or name in named):
                continue  # what was exported of a server has health and reflection in it
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

    def finish(self, policy: Policy | None) -> Routes:
        if self.problems:
            raise BindError(self.problems)
        services = dict(sorted(self.services.items()))
        return Routes(services, self.table, bound_late(self.late), policy)

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
                    self._enter(entries, _Entry(method, *registration.of_handler()))
            for servicer in registry.servicers:
                self._enter_servicer(entries, unit.schema, servicer, registry.service_name or "")
        return entries

    def _enter(self, entries: dict[str, dict[str, _Entry]], entry: _Entry) -> None:
        method = entry.method
        methods = entries.setdefault(method.service, {})
        if method.name in methods:
            known = methods[method.name].where
            self.problems.append(f"{method} has two handlers: {known} and {entry.where}")
        else:
            methods[method.name] = entry

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
                self._enter(entries, _Entry(method, handler, place_of(handler), Around()))
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
                methods[entry.method.name] = unit.make(entry.method, entry.handler, entry.around)
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
            handler = unit.make(info, fallback.handler, fallback.around)
            return grpc.method_handlers_generic_handler(name, {method: handler})

        self.late[name] = build
        return served
