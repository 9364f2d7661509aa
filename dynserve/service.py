"""Service: handlers for the methods of one service. Decorators over one plain ``add()``.

Nothing is checked against a schema here and the order of registration does not matter; binding
checks everything at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias, TypeVar, overload

import grpc
import grpc.aio

from dynserve.callables import own_name, place_of
from dynserve.method import Kind
from dynserve.middleware import Middleware

__all__ = ["Around", "Interceptor", "Registration", "Registry", "Service"]

Handler = TypeVar("Handler", bound=Callable[..., Any])
Interceptor: TypeAlias = "grpc.ServerInterceptor | grpc.aio.ServerInterceptor"
Given: TypeAlias = "Callable[..., Any] | Interceptor"


class Around(NamedTuple):
    """What runs around handlers: middleware, and inside of it gRPC's interceptors."""

    middleware: tuple[Middleware, ...] = ()
    interceptors: tuple[Interceptor, ...] = ()

    def then(self, inner: Around) -> Around:
        """This, and inside of it another."""
        return Around(
            (*self.middleware, *inner.middleware), (*self.interceptors, *inner.interceptors)
        )

    @staticmethod
    def of(given: Iterable[Given]) -> Around:
        """What a user gave, checked.

        Raises:
            TypeError: something is neither a one-``yield`` function nor an interceptor.
        """
        middleware: list[Middleware] = []
        interceptors: list[Interceptor] = []
        for one in given:
            if isinstance(one, (grpc.ServerInterceptor, grpc.aio.ServerInterceptor)):
                interceptors.append(one)
            elif isinstance(one, type) and hasattr(one, "intercept_service"):
                raise TypeError(
                    f"got the class {one.__qualname__} as an interceptor, expected an object of it:"
                    f" {one.__qualname__}()"
                )
            else:
                middleware.append(Middleware(one))
        return Around(tuple(middleware), tuple(interceptors))


_NOTHING_AROUND = Around()


class Registration(NamedTuple):
    """A handler as the user registered it.

    ``service`` and ``method`` are None where the user left them out; ``method`` is then found by
    the handler's own name. ``kind`` is what a decorator asserted. ``where`` is the place of the
    handler, for errors. ``around`` runs around it alone.
    """

    handler: Callable[..., Any]
    service: str | None
    method: str | None
    kind: Kind | None
    where: str
    around: Around = _NOTHING_AROUND

    def of_handler(self) -> tuple[Callable[..., Any], str, Around]:
        """What concerns the handler, and not the method that it is for."""
        return self.handler, self.where, self.around


class _Decorator:
    """``@owner.rpc``, with and without a name; bound to its owner by attribute access."""

    def __init__(self, kind: Kind | None) -> None:
        self._kind = kind
        which = f"a {kind} method" if kind else "a method, whatever its kind"
        self.__doc__ = (
            f"Register a handler for {which}: with the method's name, or bare, when the handler's"
            " own name is taken (list_features for ListFeatures). Returns the handler unchanged."
        )

    def __get__(self, owner: Registry | None, owner_type: type) -> _BoundDecorator:
        return _BoundDecorator(owner, self._kind, self.__doc__)  # type: ignore[arg-type]  # None: help() only


class _BoundDecorator:
    def __init__(self, owner: Registry, kind: Kind | None, doc: str | None) -> None:
        self._owner = owner
        self._kind = kind
        self.__doc__ = doc

    @overload
    def __call__(self, name: Handler, /) -> Handler: ...
    @overload
    def __call__(
        self, name: str | None = None, /, *, middleware: Iterable[Given] = ()
    ) -> Callable[[Handler], Handler]: ...
    def __call__(self, name: Any = None, /, *, middleware: Iterable[Given] = ()) -> Any:
        if name is None or isinstance(name, str):
            around = tuple(middleware)  # it may decorate several

            def register(handler: Handler) -> Handler:
                self._owner.add(handler, name, kind=self._kind, middleware=around)
                return handler

            return register
        self._owner.add(name, None, kind=self._kind)
        return name


class Registry:
    """Handlers by method; base of :class:`Service` and of ``App``.

    ``service_name`` is the service that all of them are for, None where each names its own.
    """

    rpc = _Decorator(None)
    unary_unary = _Decorator(Kind.UNARY_UNARY)
    unary_stream = _Decorator(Kind.UNARY_STREAM)
    stream_unary = _Decorator(Kind.STREAM_UNARY)
    stream_stream = _Decorator(Kind.STREAM_STREAM)

    def __init__(self, service: str | None = None) -> None:
        self.service_name = service
        self.registrations: list[Registration] = []
        self.servicers: list[object] = []
        self.fallback_handler: Registration | None = None
        self.around = _NOTHING_AROUND

    def add(
        self,
        handler: Callable[..., Any],
        name: str | None = None,
        *,
        kind: Kind | None = None,
        middleware: Iterable[Given] = (),
    ) -> None:
        """Register a handler.

        Args:
            handler: called with the request (or the iterator of requests) and, if it takes a second
                argument, the context. Any callable: function, generator, coroutine function, async
                generator, method, ``functools.partial``, object with ``__call__``.
            name: ``"Method"`` or ``"pkg.Service/Method"``; by default the handler's own name.
            kind: what the method is expected to be; another kind is an error when bound.
            middleware: what runs around this handler alone; see :meth:`add_middleware`.

        Raises:
            TypeError: ``handler`` cannot be called, or has no name of its own and none was given;
                something in ``middleware`` is none.
            ValueError: ``name`` is that of another service's method.
        """
        if not callable(handler):
            raise TypeError(f"got {handler!r} as a handler, expected something that can be called")
        if name is None and own_name(handler) is None:
            raise TypeError(
                f"{handler!r} has no name of its own; name the method: add(handler, 'Method')"
            )
        service, method = self.service_name, name
        if name is not None and "/" in name:
            prefix, _, method = name.removeprefix("/").rpartition("/")
            if service is not None and prefix != service:
                raise ValueError(f"{name!r} is not a method of service {service!r}")
            service = prefix
        self.registrations.append(
            Registration(handler, service, method, kind, place_of(handler), Around.of(middleware))
        )

    def middleware(self, function: Handler) -> Handler:
        """Have a function with one ``yield`` run around every handler of these; a decorator.

        Raises:
            TypeError: it is no generator function that takes the context.
        """
        self.add_middleware(function)
        return function

    def add_middleware(self, *given: Given) -> None:
        """Have these run around every handler: of the app, or of this service.

        The first is the outermost. What an app has runs outside of what its services have, and that
        outside of what a method has.

        Args:
            given: functions with one ``yield``, sync or async, that take the context; and existing
                interceptors, ``grpc.ServerInterceptor`` and ``grpc.aio.ServerInterceptor``, which
                run inside of all those functions.

        Raises:
            TypeError: something is neither.
        """
        self.around = self.around.then(Around.of(given))

    def fallback(self, handler: Handler) -> Handler:
        """Serve every method that has no handler of its own with this one; a decorator.

        ``context.method`` tells which method is called. A generator function, sync or async, serves
        the methods that respond with a stream; any other serves all methods and returns a message
        or an iterable of messages as the method asks.

        Raises:
            TypeError: ``handler`` cannot be called.
            ValueError: there is a fallback.
        """
        if not callable(handler):
            raise TypeError(f"got {handler!r} as a handler, expected something that can be called")
        if self.fallback_handler is not None:
            raise ValueError(f"there is a fallback: {self.fallback_handler.where}")
        self.fallback_handler = Registration(
            handler, self.service_name, None, None, place_of(handler), _NOTHING_AROUND
        )
        return handler


class Service(Registry):
    """Handlers for the methods of one service, by its full name."""

    def __init__(self, name: str) -> None:
        if not name or "/" in name:
            raise ValueError(f"got {name!r}, expected a service's full name such as 'pkg.Service'")
        super().__init__(name)
        self.name = name

    def add_servicer(self, servicer: object) -> None:
        """Register the methods of an object by rpc name, as servicers of generated code have them.

        ``servicer.GetFeature`` or ``servicer.get_feature`` serves ``GetFeature``; a method of the
        service that the object does not have stays without a handler.

        Raises:
            TypeError: ``servicer`` is a class.
        """
        if isinstance(servicer, type):
            name = servicer.__qualname__
            raise TypeError(
                f"got the class {name} as a servicer, expected an object of it: {name}()"
            )
        self.servicers.append(servicer)

    def __repr__(self) -> str:
        return f"<Service {self.name}: {len(self.registrations)} handlers>"
