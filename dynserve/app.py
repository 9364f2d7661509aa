"""App: what a user composes and runs."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, overload

from dynserve.callables import place_of
from dynserve.composition import Served, compose
from dynserve.errors import SettingError, SourceError
from dynserve.lifespan import checked_lifespan
from dynserve.middleware import Middleware
from dynserve.schema import Schema
from dynserve.schema.sources import Source
from dynserve.server import DEFAULT_ADDRESS, Server
from dynserve.service import Handler, Registry, Service
from dynserve.settings import Settings, checked_settings
from dynserve.status import ErrorRules, StatusError
from dynserve.unit import Unit

if TYPE_CHECKING:
    from typing import Literal

    import grpc
    from typing_extensions import Unpack

    from dynserve.auth.policy import Policy
    from dynserve.observer import Observer
    from dynserve.settings import ServerOptions
    from dynserve.workers.link import Link

__all__ = ["App"]

_Lifespan = TypeVar("_Lifespan", bound=Callable[[], Any])
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
        settings: those of the server, as the app's own defaults; see
            :data:`dynserve.settings.SETTINGS`.

    Raises:
        TypeError: sources and a schema were given, or there is no such setting.
        SettingError: a setting has a value that it cannot have.
    """

    def __init__(
        self,
        *sources: Source,
        include: Sequence[str | os.PathLike[str]] = (),
        schema: Schema | None = None,
        **settings: Unpack[ServerOptions],
    ) -> None:
        if schema is not None and sources:
            raise TypeError("give either sources or a schema, not both")
        super().__init__()
        self.settings = checked_settings(settings)
        given = _defaults.get(Defaults())
        self._sources = sources or given.sources
        self._include = (*given.include, *include)
        self._search = given.search
        self.services: dict[str, Service] = {}
        self.mounted: list[App] = []
        self.rules = ErrorRules()
        self.option_middleware: dict[str, list[Middleware]] = {}
        self.policy: Policy | None = None
        self.lifespan_function: Callable[[], Any] | None = None
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
        return self.services.setdefault(name, Service(name))

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
            self.rules.add(error, handler)
            return handler

        return register

    @overload
    def on_option(self, name: str) -> Callable[[Handler], Handler]: ...
    @overload
    def on_option(self, name: str, middleware: Handler) -> Handler: ...
    def on_option(self, name: str, middleware: Handler | None = None) -> Any:
        """Have middleware run around every method that carries an option; a decorator, too.

        ::

            @app.on_option("shop.auth")
            def authorize(context, auth):  # the option's value
                if auth.role not in context.identity.claims["roles"]:
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
                yield

        It runs inside of what the app and the service have, and outside of what the method has. An
        option of the service counts for all its methods.

        Args:
            name: of a custom option, such as ``"shop.auth"``, or of a standard one, such as
                ``"deprecated"``.
            middleware: a function with one ``yield`` that takes the context and the option's value,
                a scalar, a message, or a tuple of them.

        Raises:
            TypeError: it is no such function.
        """

        def register(function: Handler) -> Handler:
            self.option_middleware.setdefault(name, []).append(Middleware(function, None))
            return function

        return register if middleware is None else register(middleware)

    def lifespan(self, function: _Lifespan) -> _Lifespan:
        """Have a function with one ``yield`` run around the life of the server; a decorator.

        What it yields is the ``state`` of every context; it may be sync, in which case it runs on
        the event loop before the server listens and after its last call.

        Raises:
            TypeError: it is no generator function without arguments.
            ValueError: the app has a lifespan.
        """
        if self.lifespan_function is not None:
            raise ValueError(f"the app has a lifespan: {place_of(self.lifespan_function)}")
        self.lifespan_function = checked_lifespan(function)
        return function

    def auth(
        self,
        authenticate: Callable[[Any], Any],
        *,
        public: Iterable[str] = (),
        health: Literal["open", "required"] = "open",
        reflection: Literal["open", "required"] = "required",
    ) -> None:
        """Have every call be authenticated, also of methods that do not exist.

        Args:
            authenticate: is given the context and returns an :class:`Identity`, or None to refuse,
                or raises a StatusError; sync or async. :mod:`dynserve.auth` has ready ones.
            public: methods that anybody may call: ``"pkg.Service/Method"``, ``"pkg.Service/*"``.
            health: whether health checks have to be authenticated.
            reflection: whether reflection has to be.

        Raises:
            TypeError: ``authenticate`` cannot be called.
            CredentialsError: another argument is none of these.
            ValueError: the app has authentication.
        """
        from dynserve.auth.policy import Policy  # not needed where everybody may call

        if self.policy is not None:
            raise ValueError(f"the app has authentication: {self.policy!r}")
        self.policy = Policy(authenticate, public=public, health=health, reflection=reflection)

    def mount(self, other: App) -> None:
        """Serve another app beside this one.

        Each keeps its schema, its exception handlers and its lifespan. Middleware of this one runs
        around the other's, and authentication of this one counts for the other unless that has its
        own.

        Raises:
            TypeError: ``other`` is no app.
            ValueError: that would mount an app in itself.
        """
        given: object = other
        if not isinstance(given, App):
            raise TypeError(f"got {given!r} to mount, expected an App")
        if self in other.tree():
            raise ValueError("an app cannot be mounted in itself")
        self.mounted.append(other)

    def tree(self) -> list[App]:
        """This app and all that are mounted in it, each once."""
        found: dict[App, None] = {self: None}
        for app in self.mounted:
            found.update(dict.fromkeys(app.tree()))
        return list(found)

    def served(self, settings: Settings) -> Served:
        """What a server of this app binds with these settings; see :func:`compose`."""
        return compose(self, settings)

    def units(self) -> list[Unit]:
        """What a server binds by the app's own settings: this app and those mounted."""
        return self.served(self.settings_with({})).units

    def schemas(self) -> list[Schema]:
        """The schemas of this app and of those mounted, each once."""
        return list(dict.fromkeys(app.schema for app in self.tree() if app.has_unit()))

    def server(
        self,
        *listen: str,
        credentials: grpc.ServerCredentials | None = None,
        options: Iterable[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
        observers: Iterable[Observer] = (),
        link: Link | None = None,
        **settings: Unpack[ServerOptions],
    ) -> Server:
        """A server of this app.

        Args:
            listen: addresses; see :class:`Server`, as for ``credentials``, ``options``,
                ``compression``, ``observers`` and ``link``.
            settings: see :data:`dynserve.settings.SETTINGS`; they go before what environment
                variables say, and before what the app was made with.

        Raises:
            BindError: handlers do not fit the schema.
            SourceError: there is nothing to serve: no source, no handler, nothing mounted.
            SettingError: a setting has a value that it cannot have.
            TypeError: there is no such setting.
        """
        if self.is_empty():
            raise SourceError(
                "App()", "has no source and no handler; write App('my.proto'), or give --proto"
            )
        said = self.settings_with(settings)
        units, policy = self.served(said)
        return Server(
            units,
            link.listen if link is not None else listen or (DEFAULT_ADDRESS,),
            settings=said,
            link=link,
            credentials=credentials,
            options=options,
            compression=compression,
            observers=observers,
            policy=policy,
        )

    def run(
        self,
        *listen: str,
        credentials: grpc.ServerCredentials | None = None,
        options: Iterable[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
        observers: Iterable[Observer] = (),
        **settings: Unpack[ServerOptions],
    ) -> None:
        """Serve until SIGINT or SIGTERM, by default on 127.0.0.1:50051; stops gracefully.

        What it listens on is said on standard error. The arguments are those of :meth:`server`.
        With ``workers`` the process becomes their supervisor, and starts this program for each.

        Raises:
            RuntimeError: the module is being loaded as a plugin, whose app is served by that.
        """
        if _defaults.get(None) is not None:
            raise RuntimeError(
                "app.run() in a module that is loaded as a plugin would serve it twice; put it"
                " under: if __name__ == '__main__':"
            )
        from dynserve.workers.link import Link
        from dynserve.workers.start import supervise

        link = Link.of_environment()
        supervise(self.settings_with(settings), listen or (DEFAULT_ADDRESS,), link)
        server = self.server(
            *listen,
            credentials=credentials,
            options=options,
            compression=compression,
            observers=observers,
            link=link,
            **settings,
        )
        tells = link is None or link.is_first
        server.run_forever(
            (lambda: _say_addresses(server)) if tells else None, lambda: say_waiting(server)
        )

    def settings_with(self, given: Mapping[str, Any]) -> Settings:
        """What holds for a server of this app for which this is given.

        What the app does not say itself, an app that is mounted in it may.

        Raises:
            SettingError: a value cannot be, or two apps that are mounted say different things.
            TypeError: there is no such setting.
        """
        return Settings(given, self._said())

    def _said(self) -> dict[str, Any]:
        said: dict[str, Any] = {}
        for app in self.mounted:
            for name, value in app._said().items():
                if name not in self.settings and said.setdefault(name, value) != value:
                    expected = f"what another app says that is mounted beside it: {said[name]!r}"
                    raise SettingError(name, value, expected)
        return said | self.settings

    def is_empty(self) -> bool:
        """Whether there is nothing to serve, in this app and in those mounted."""
        return not any(app.has_unit() for app in self.tree())

    def has_unit(self) -> bool:
        """Whether there is something in this app itself, rather than in those mounted in it."""
        is_sourced = bool(self._sources) or "schema" in self.__dict__
        return is_sourced or bool(self.registrations or self.services or self.fallback_handler)


def say_waiting(server: Server) -> None:
    """Tell why the server does not end at once."""
    grace = server.settings.grace
    sys.stderr.write(f"Waiting up to {grace:g} s for calls under way; stop again to cancel them\n")
    sys.stderr.flush()


def _say_addresses(server: Server) -> None:
    for address in server.addresses:
        sys.stderr.write(f"Listening on {address}\n")
    if server.metrics_address:
        sys.stderr.write(f"Metrics on http://{server.metrics_address}/metrics\n")
    sys.stderr.flush()
