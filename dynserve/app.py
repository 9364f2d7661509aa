"""App: what a user composes and runs."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from dynserve.binding import Unit
from dynserve.errors import SourceError
from dynserve.schema import Schema
from dynserve.schema.sources import Source
from dynserve.server import DEFAULT_ADDRESS, DEFAULT_GRACE, Server
from dynserve.service import Registry, Service
from dynserve.status import ErrorRules, StatusError

__all__ = ["App"]

_Error = TypeVar("_Error", bound=Exception)
_Rule: TypeAlias = Callable[[_Error], StatusError]


class Defaults(NamedTuple):
    """What apps get that are made while a plugin is loaded.

    ``sources`` are for apps that name none, ``include`` goes in front of every app's own,
    ``search`` is where relative sources are looked up after the working directory.
    """

    sources: tuple[Source, ...] = ()
    include: tuple[str | os.PathLike[str], ...] = ()
    search: tuple[str | os.PathLike[str], ...] = ()


# Not set, no plugin is being loaded.
_defaults: contextvars.ContextVar[Defaults] = contextvars.ContextVar("dynserve_defaults")


@contextlib.contextmanager
def defaults(value: Defaults) -> Iterator[None]:
    """Give apps that are made in the ``with`` block these defaults."""
    token = _defaults.set(value)
    try:
        yield
    finally:
        _defaults.reset(token)


class App(Registry):
    """Handlers for the services of one schema, with what can be mounted beside it.

    Args:
        sources: what to load; see :meth:`Schema.load`. They are compiled when something of the
            schema is first needed. Without any, ``dynserve run --proto`` names them.
        include: import roots. Without them the roots are inferred from the sources.
        schema: a schema that is there already, in place of sources.
    """

    def __init__(
        self,
        *sources: Source,
        include: Sequence[str | os.PathLike[str]] = (),
        schema: Schema | None = None,
    ) -> None:
        if schema is not None and sources:
            raise TypeError("give either sources or a schema, not both")
        super().__init__()
        given = _defaults.get(Defaults())
        self._sources = sources or given.sources
        self._include = (*given.include, *include)
        self._search = given.search
        self._services: dict[str, Service] = {}
        self._mounted: list[App] = []
        self._rules = ErrorRules()
        self.takes_default_sources = not sources and schema is None
        if schema is not None:
            self.schema = schema

    @functools.cached_property
    def schema(self) -> Schema:
        """The schema, compiled or opened on first use.

        Raises:
            SourceError, CompileError, CompilerError, DescriptorError: see :meth:`Schema.load`.
        """
        if not self._sources:
            raise SourceError(
                "App()", "has handlers but no source; write App('my.proto'), or give --proto"
            )
        return Schema.load(*self._sources, include=self._include, search=self._search)

    def service(self, name: str) -> Service:
        """The service of that full name, to register handlers with; the same one every time."""
        return self._services.setdefault(name, Service(name))

    def add_servicer(self, servicer: object, service: str) -> None:
        """Register the methods of an object by rpc name; see :meth:`Service.add_servicer`."""
        self.service(service).add_servicer(servicer)

    def exception_handler(self, error: type[_Error]) -> Callable[[_Rule[_Error]], _Rule[_Error]]:
        """Map an exception class, and what derives from it, to a status; a decorator.

        The function is given the exception and returns a :class:`StatusError`. It is a plain
        function for sync and async handlers alike.

        Raises:
            TypeError: it is not an exception class, or the function is async.
            ValueError: the class has a handler.
        """

        def register(handler: _Rule[_Error]) -> _Rule[_Error]:
            self._rules.add(error, handler)
            return handler

        return register

    def mount(self, other: App) -> None:
        """Serve another app beside this one. Each keeps its schema and its exception handlers.

        Raises:
            TypeError: ``other`` is no app.
            ValueError: that would mount an app in itself.
        """
        given: object = other
        if not isinstance(given, App):
            raise TypeError(f"got {given!r} to mount, expected an App")
        if self in other.tree():
            raise ValueError("an app cannot be mounted in itself")
        self._mounted.append(other)

    def tree(self) -> list[App]:
        """This app and all that are mounted in it, each once."""
        found: dict[App, None] = {self: None}
        for app in self._mounted:
            found.update(dict.fromkeys(app.tree()))
        return list(found)

    def units(self) -> list[Unit]:
        """What a server binds: this app and those mounted."""
        return [
            Unit(app.schema, [app, *app._services.values()], app._rules)
            for app in self.tree()
            if not app._is_empty()
        ]

    def server(self, *listen: str, **options: Any) -> Server:
        """A server of this app; ``options`` are those of :class:`Server`.

        Raises:
            BindError: handlers do not fit the schema.
            SourceError: there is nothing to serve: no source, no handler, nothing mounted.
        """
        if self.is_empty():
            raise SourceError(
                "App()", "has no source and no handler; write App('my.proto'), or give --proto"
            )
        return Server(self.units(), listen or (DEFAULT_ADDRESS,), **options)

    def run(self, *listen: str, grace: float = DEFAULT_GRACE, **options: Any) -> None:
        """Serve until SIGINT or SIGTERM, by default on 127.0.0.1:50051; stops gracefully.

        What it listens on is said on standard error.

        Args:
            listen: addresses; see :class:`Server`.
            grace: seconds that calls under way have to finish when the server stops.
            options: those of :class:`Server`.

        Raises:
            RuntimeError: the module is being loaded as a plugin, whose app is served by that.
        """
        if _defaults.get(None) is not None:
            raise RuntimeError(
                "app.run() in a module that is loaded as a plugin would serve it twice; put it"
                " under: if __name__ == '__main__':"
            )

        server = self.server(*listen, **options)
        server.run_forever(grace, lambda: _say_addresses(server), lambda: say_waiting(grace))

    def is_empty(self) -> bool:
        """Whether there is nothing to serve, in this app and in those mounted."""
        return all(app._is_empty() for app in self.tree())

    def _is_empty(self) -> bool:
        """An app that only holds others together has no schema."""
        return not self._sources and "schema" not in self.__dict__ and not self._has_handlers()

    def _has_handlers(self) -> bool:
        return bool(self.registrations or self._services or self.fallback_handler)


def say_waiting(grace: float) -> None:
    """Tell why the server does not end at once."""
    sys.stderr.write(f"Waiting up to {grace:g} s for calls under way; stop again to cancel them\n")
    sys.stderr.flush()


def _say_addresses(server: Server) -> None:
    for address in server.addresses:
        sys.stderr.write(f"Listening on {address}\n")
    sys.stderr.flush()
