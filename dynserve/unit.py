"""Unit: one schema, handlers for its methods, and what runs around them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message

from dynserve.context import Shared
from dynserve.handlers import Surroundings, make_method_handler
from dynserve.method import MethodInfo
from dynserve.schema import Schema
from dynserve.service import Around, Registry
from dynserve.status import ErrorRules

if TYPE_CHECKING:
    from dynserve.auth.policy import Policy
    from dynserve.interceptors import Threads
    from dynserve.lifespan import Lifespan
    from dynserve.middleware import Middleware
    from dynserve.observer import Observer
    from dynserve.validation import Validator

__all__ = ["Unit"]

_NO_RULES = ErrorRules()
_NOTHING = Around()


class Unit:
    """What is bound together: one schema, and handlers for methods in it.

    Args:
        schema: of all its services.
        registries: the handlers. One that is no ``Service`` holds handlers for any service, and
            the general fallback.
        rules: how their exceptions become statuses.
        around: what runs around every handler, the outermost first.
        on_option: what runs around the methods that carry an option, by its name.
        policy: who may call.
        lifespan: what has to be started before, and ended after, all calls; it gives the state.
        outer_lifespans: those of the apps that it is mounted in, the outermost first.
        validates: whether requests are checked by the rules of their .proto.
    """

    def __init__(
        self,
        schema: Schema,
        registries: Sequence[Registry],
        rules: ErrorRules = _NO_RULES,
        *,
        around: Around = _NOTHING,
        on_option: Mapping[str, Sequence[Middleware]] | None = None,
        policy: Policy | None = None,
        lifespan: Lifespan | None = None,
        outer_lifespans: Sequence[Lifespan] = (),
        validates: bool = False,
    ) -> None:
        self.schema = schema
        self.registries = registries
        self.rules = rules
        self.around = around
        self.on_option = on_option or {}
        self.policy = policy
        self.lifespan = lifespan
        self.lifespans = (*outer_lifespans, *([] if lifespan is None else [lifespan]))
        self.shared = lifespan.shared if lifespan is not None else Shared()
        self.observers: Sequence[Observer] = ()
        self._validates = validates
        self._services = {r.service_name: r.around for r in registries if r.service_name}

    def share(self, lifespan: Lifespan) -> None:
        """Have a lifespan that runs already, maybe."""
        self.lifespan, self.shared = lifespan, lifespan.shared

    def make(
        self, method: MethodInfo, handler: Callable[..., Any], own: Around
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The grpcio method handler for a method, with all that runs around it.

        ``own`` is what runs around this handler alone.

        Raises:
            TypeError: the handler cannot serve the method; the text goes on from its name.
        """
        service = self._services.get(method.service, _NOTHING)
        around = self.around.then(service).then(Around(self._by_option(method))).then(own)
        if around.interceptors:
            from dynserve.interceptors import intercepted

            coerce = functools.partial(self.schema.convert, message=method.response)
            handler = intercepted(handler, method, around.interceptors, coerce, self._threads)
        policy = self.policy
        is_guarded = policy is not None and policy.needs_authentication(method.path)
        surroundings = Surroundings(
            self.observers,
            policy.authenticate if policy is not None and is_guarded else None,
            around.middleware,
            self._check_of(method),
            self.shared,
        )
        return make_method_handler(method, handler, self.schema, self.rules, surroundings)

    def _by_option(self, method: MethodInfo) -> tuple[Middleware, ...]:
        found: list[Middleware] = []
        for name, middleware in self.on_option.items():
            for options in (self.schema.service(method.service).options, method.options):
                if name in options:
                    found += [one.with_value(options[name]) for one in middleware]
        return tuple(found)

    def _check_of(self, method: MethodInfo) -> Callable[[Message], None] | None:
        return self._validator.check_of(method.request) if self._validates else None

    @functools.cached_property
    def _threads(self) -> Threads:
        from dynserve.interceptors import Threads

        return Threads()

    @functools.cached_property
    def _validator(self) -> Validator:
        from dynserve.validation import Validator  # an extra

        return Validator(self.schema)
