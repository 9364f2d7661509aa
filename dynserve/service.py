"""Service: handlers for the methods of one service. Decorators over one plain ``add()``.

Nothing is checked against a schema here and the order of registration does not matter; binding
checks everything at once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, overload

from dynserve.method import Kind

__all__ = ["Registration", "Registry", "Service"]

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Registration(NamedTuple):
    """A handler as the user registered it.

    ``service`` and ``method`` are None where the user left them out; ``method`` is then found by
    the handler's own name. ``kind`` is what a decorator asserted. ``where`` is the place of the
    handler, for errors.
    """

    handler: Callable[..., Any]
    service: str | None
    method: str | None
    kind: Kind | None
    where: str


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
    def __call__(self, name: str | None = None, /) -> Callable[[Handler], Handler]: ...
    def __call__(self, name: Any = None, /) -> Any:
        if name is None or isinstance(name, str):

            def register(handler: Handler) -> Handler:
                self._owner.add(handler, name, kind=self._kind)
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

    def add(
        self, handler: Callable[..., Any], name: str | None = None, *, kind: Kind | None = None
    ) -> None:
        """Register a handler.

        Args:
            handler: called with the request (or the iterator of requests) and, if it takes a second
                argument, the context. Any callable: function, generator, coroutine function, async
                generator, method, ``functools.partial``, object with ``__call__``.
            name: ``"Method"`` or ``"pkg.Service/Method"``; by default the handler's own name.
            kind: what the method is expected to be; another kind is an error when bound.

        Raises:
            TypeError: ``handler`` cannot be called, or has no name of its own and none was given.
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
        self.registrations.append(Registration(handler, service, method, kind, place_of(handler)))

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
            handler, self.service_name, None, None, place_of(handler)
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


def own_name(handler: Callable[..., Any]) -> str | None:
    """The name that a callable was given where it was written; None for a lambda or an object."""
    if isinstance(handler, functools.partial):
        return own_name(handler.func)
    name = getattr(handler, "__name__", None)
    return None if name == "<lambda>" else name


def place_of(handler: Callable[..., Any]) -> str:
    """Where a handler was written, for an error: ``name (file.py:12)``."""
    if isinstance(handler, functools.partial):
        return place_of(handler.func)
    name = getattr(handler, "__qualname__", None) or f"{type(handler).__qualname__} object"
    function: Any = inspect.unwrap(handler)
    if not inspect.isroutine(function) and not isinstance(function, type):
        function = getattr(type(function), "__call__", function)  # noqa: B004 - the function is wanted
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name
