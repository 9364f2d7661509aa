"""Server: ports, credentials, start, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from dynserve.addresses import check_mode
from dynserve.binding import bind
from dynserve.builtin import REFLECTION, Drain, Health, reflection_services
from dynserve.channel_arguments import channel_arguments
from dynserve.dump import dump
from dynserve.engine.limits import CallLimits
from dynserve.engines import engine_maker, new_event_loop
from dynserve.equipment import Equipment, check_xds
from dynserve.errors import UnhandledMethodsError
from dynserve.main_loop import run_loop, run_main
from dynserve.policies import check_public
from dynserve.routes import BoundService, LateService, Router, Routes
from dynserve.runner import run_until_stopped
from dynserve.settings import Settings
from dynserve.supervisor import Supervisor

if TYPE_CHECKING:
    from typing import Protocol

    from dynserve.auth.policy import Policy
    from dynserve.engine.base import Engine
    from dynserve.lifespan import Lifespan
    from dynserve.method import MethodInfo
    from dynserve.observer import Observer
    from dynserve.unit import Unit
    from dynserve.workers.link import Link

    class Composed(Protocol):
        """An app, which is a floor above."""

        def served(self, settings: Settings, /) -> tuple[list[Unit], Policy | None]:
            """What it has to be bound, and who may call what is of no unit."""


__all__ = ["DEFAULT_ADDRESS", "Server"]

_log = logging.getLogger("dynserve.server")

DEFAULT_ADDRESS = "127.0.0.1:50051"
_THIS_MACHINE = ("127.", "localhost:", "[::1]:", "unix:", "unix-abstract:")
_UNLIMITED = frozenset({"grpc.health.v1.Health", *REFLECTION})


class Server:
    """Serves units, and the reflection and health services, on some addresses.

    Usually made by ``App.server()``; in a coroutine::

        async with app.server("127.0.0.1:0") as server:
            print(server.addresses)

    or, from code that has no event loop, on a thread of its own::

        with app.server("127.0.0.1:0").in_thread() as server:
            ...

    Args:
        units: what to serve, as ``App.units()`` gives it.
        listen: addresses: ``HOST:PORT`` (port 0: the system chooses), ``[::]:PORT``,
            ``unix:PATH``, ``unix-abstract:NAME``.
        credentials: from ``grpc.ssl_server_credentials`` and its like, in place of the settings
            ``tls_…``; without either, connections are not encrypted.
        options: channel arguments of gRPC's core, which override what settings say.
        compression: the default for responses.
        observers: see every call; beside those that settings ask for.
        policy: who may call what no unit has a policy for: health, reflection, unknown methods.
        settings: all else; :data:`dynserve.settings.SETTINGS` says what there is.
        link: of a worker to its supervisor, for :meth:`run`.

    Raises:
        BindError: handlers do not fit the schema.
        UnhandledMethodsError: ``strict``, and methods have no handler.
        SettingError: settings do not go together, or with what is served.
        TypeError: an address is not a str.
    """

    def __init__(
        self,
        units: Iterable[Unit],
        listen: Sequence[str] = (DEFAULT_ADDRESS,),
        *,
        credentials: grpc.ServerCredentials | None = None,
        options: Iterable[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
        observers: Iterable[Observer] = (),
        policy: Policy | None = None,
        settings: Settings | None = None,
        link: Link | None = None,
    ) -> None:
        self.settings = settings or Settings({})
        self._link = link
        self._listen = tuple(map(_checked_address, listen))
        check_mode(self._listen, self.settings.unix_mode)
        self._equipment = Equipment(
            self.settings, credentials, self._listen, is_worker=link is not None
        )
        self._observers = (*self._equipment.observers, *observers)
        self._drain = Drain()
        self._health = Health() if self.settings.health else None
        self._lifespans: list[Lifespan] = []
        self._ending: asyncio.Task[None] | None = None
        self._starting: asyncio.Future[None] | None = None
        self._replacing: asyncio.Lock | None = None
        routes, self._lifespans = self._bind(units, policy)
        self._router = Router(routes, self._observers, self.settings.max_metadata_size)
        make = functools.partial(
            _make_engine,
            self.settings.engine,
            [self._router],
            options=channel_arguments(self.settings, options, shares_ports=link is not None),
            compression=compression,
            limits=_limits_of(self.settings),
            threads=self.settings.threads,
            stream_threads=self.settings.stream_threads,
        )
        if self.settings.xds:
            check_xds(self._listen, self.settings)
            make = functools.partial(make, xds=True)
        self._supervisor = Supervisor(
            make,
            self._equipment.credentials,
            self.settings.unix_mode,
            shares_ports=link is not None or self.settings.xds,
        )
        self._addresses: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """What the server listens on, with the ports that the system chose; empty before start."""
        return self._addresses

    @property
    def metrics_address(self) -> str:
        """Where metrics are served, with the port that the system chose; empty where none are."""
        return self._equipment.metrics_address

    @property
    def routes(self) -> Routes:
        """The snapshot that new calls are served from."""
        return self._router.routes

    def _current_routes(self) -> Routes:
        return self._router.routes

    async def start(self) -> None:
        """Listen and begin to serve.

        Raises:
            AddressError: an address cannot be listened on; then it listens on none.
            EngineError: the engine that was asked for does not work here.
            RuntimeError: the server was started before.
            Exception: whatever a lifespan raises.
        """
        if self._supervisor.is_started or self._starting is not None:
            raise RuntimeError("a server starts once; make another with app.server()")
        self._starting = asyncio.get_running_loop().create_future()  # who stops it waits for that
        try:
            for lifespan in self._lifespans:
                await lifespan.start()
            self._equipment.start(self._methods)
            self._report_health()
            self._warn()
            self._addresses = await self._supervisor.start(self._listen)
        except BaseException:
            self._equipment.stop()
            await _end_all(self._lifespans)
            raise
        finally:
            self._starting.set_result(None)
            self._starting = None

    def _warn(self) -> None:
        """What is open to a network and should not be, most likely."""
        networks = [one for one in self._listen if not one.startswith(_THIS_MACHINE)]
        policy = self._router.routes.policy
        if not networks:
            return
        if policy is not None and not self.settings.xds and self._equipment.credentials() is None:
            # Secrets that a network can read are none.
            what = "calls are authenticated, but connections to %s are not encrypted"
            _log.warning(f"{what}: set tls_cert and tls_key, or put a proxy in front", networks[0])
        if policy is None and self.settings.admin:
            _log.warning("the admin services on %s are open to everybody", networks[0])

    async def replace(self, app: Composed) -> None:
        """Serve this app from the next call on; calls under way keep what they started with.

        It is served with the settings that the server has. A lifespan that runs already goes on, a
        new one is started; what is not needed any more ends with the server, since calls may still
        use it.

        Args:
            app: an :class:`App`.

        Raises:
            BindError, UnhandledMethodsError: as when the server was made; nothing is replaced.
            SettingError: the app does not go together with the settings; nothing is replaced.
            Exception: whatever a lifespan raises; nothing is replaced.
        """
        if self._replacing is None:
            self._replacing = asyncio.Lock()
        async with self._replacing:
            units, policy = app.served(self.settings)
            routes, lifespans = self._bind(units, policy)
            new = [lifespan for lifespan in lifespans if lifespan not in self._lifespans]
            if self._supervisor.is_started:
                started: list[Lifespan] = []
                try:
                    for lifespan in new:
                        await lifespan.start()
                        started.append(lifespan)
                except BaseException:
                    await _end_all(started)
                    raise
            self._lifespans = [*self._lifespans, *new]
            self._router.routes = routes
            self._report_health()

    async def set_health(self, service: str, serving: bool) -> None:
        """Report a service, or ``""`` for the server, as SERVING or NOT_SERVING."""
        if self._health is not None:
            self._health.set(service, serving)
            if self._link is not None:
                self._link.report(service, serving)

    async def drain(self) -> None:
        """Report NOT_SERVING, for load balancers to notice; calls are served as before.

        There is no way back; what follows is :meth:`stop`.
        """
        if self._health is not None:
            self._health.drain()

    async def stop(self, grace: float | EllipsisType | None = ..., *, drains: bool = True) -> None:
        """Report NOT_SERVING, refuse new calls, let those under way finish, cancel the rest.

        ``grace`` is in seconds, by default that of the settings; None cancels at once. May be
        called again, with less patience. Without ``drains`` health is not touched: another process
        has taken over.
        """
        seconds = self.settings.grace if isinstance(grace, EllipsisType) else grace
        if self._starting is not None:
            await asyncio.wait({self._starting})
        if not self._supervisor.is_started:
            return
        if drains:
            await self.drain()
        stopping = asyncio.ensure_future(self._supervisor.stop(seconds))
        self._drain.start()
        if self._health is not None:
            self._health.let_go()
        await stopping
        self._equipment.stop()
        await self._end_lifespans()

    def dump(self) -> str:
        """What runs right now, for people to read: calls, threads, tasks. On the server's loop."""
        return dump(self._supervisor.calls())

    async def wait_for_termination(self) -> None:
        """Return when the server was stopped.

        Raises:
            TerminatedError: gRPC's own server ended by itself, too often to go on.
            AddressError: it ended by itself, and an address was taken meanwhile.
        """
        await self._supervisor.wait()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @contextlib.contextmanager
    def in_thread(self, grace: float | EllipsisType | None = ...) -> Iterator[Server]:
        """Serve on an event loop in a thread of its own while the ``with`` block runs.

        ``grace`` is what :meth:`stop` is given at the end.
        """
        loop = new_event_loop(self.settings.engine)
        thread = threading.Thread(target=run_loop, args=(loop,), name="dynserve-loop", daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.start(), loop).result()
            try:
                yield self
            finally:
                asyncio.run_coroutine_threadsafe(self.stop(grace), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def run_forever(
        self,
        ready: Callable[[], object] | None = None,
        waiting: Callable[[], object] | None = None,
    ) -> None:
        """As :meth:`run`, on an event loop that is made for it.

        Raises:
            RuntimeError: an event loop runs on this thread; there :meth:`run` is to be awaited.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("an event loop runs here: await Server.run() instead")
        loop = new_event_loop(self.settings.engine)
        run_main(self.run(ready, waiting), loop)

    async def run(
        self,
        ready: Callable[[], object] | None = None,
        waiting: Callable[[], object] | None = None,
    ) -> None:
        """Start, serve until SIGINT or SIGTERM, then stop gracefully.

        After SIGTERM the server reports NOT_SERVING and serves on for the time of ``drain_wait``.
        A second signal cancels the calls under way. A third one ends the process at once, with
        128 and the signal's number, even where a handler keeps the event loop from running.
        ``ready`` is called once, when calls are served and a signal is a request to stop;
        ``waiting`` when stopping takes a while.

        Raises:
            AddressError: as :meth:`start`.
            TerminatedError: as :meth:`wait_for_termination`.
        """
        await run_until_stopped(self, self._link, ready, waiting)

    def heed(self, others: Mapping[str, bool]) -> None:
        """Report as NOT_SERVING what other workers do; by service, True for SERVING."""
        if self._health is not None:
            self._health.heed(others)

    def _bind(self, units: Iterable[Unit], policy: Policy | None) -> tuple[Routes, list[Lifespan]]:
        """The routes, and the lifespans that they need; those that run already are shared."""
        units = list(units)
        running = {id(lifespan.owner): lifespan for lifespan in self._lifespans}
        needed: dict[int, Lifespan] = {}
        for unit in units:
            unit.observers = self._observers
            for lifespan in unit.lifespans:
                owner = id(lifespan.owner)
                needed[owner] = running.setdefault(owner, lifespan)
            if unit.lifespan is not None:
                unit.share(needed[id(unit.lifespan.owner)])
        routes = bind(units, self._builtin(policy), policy)
        check_public([policy, *(unit.policy for unit in units)], routes)
        if self.settings.strict and routes.holes:
            raise UnhandledMethodsError(routes.holes)
        return routes, list(needed.values())

    def _builtin(self, policy: Policy | None) -> list[LateService]:
        services = [self._health.service(policy)] if self._health else []
        if self.settings.reflection:
            services += reflection_services(self._current_routes, self._drain, policy)
        if self.settings.admin:
            from dynserve.builtin.admin import admin_services  # an extra

            services += admin_services(self.dump, policy)
        return services

    async def _end_lifespans(self) -> None:
        """End them, the last that was started first; however many wait for it, and once."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(_end_all(self._lifespans))
        await asyncio.shield(self._ending)

    def _methods(self) -> Iterator[MethodInfo]:
        """The methods that have a handler, but those of the server's own services."""
        for service in self._router.routes.services.values():
            if isinstance(service, BoundService):
                methods = service.schema.service(service.name).methods
                yield from (methods[name] for name in service.handlers)

    def _report_health(self) -> None:
        if self._health is not None:
            services = self._router.routes.services.values()
            self._health.serve(service.name for service in services if service.is_served)


async def _end_all(lifespans: Iterable[Lifespan]) -> None:
    for lifespan in reversed(list(lifespans)):
        try:
            await lifespan.end()
        except Exception:  # the others have something to end, too
            _log.exception("the lifespan of an app failed at its end")


def _checked_address(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError(f"got {given!r} to listen on, expected a str such as '127.0.0.1:50051'")
    return given


def _limits_of(settings: Settings) -> CallLimits:
    return CallLimits(
        settings.maximum_concurrent_rpcs,
        settings.default_timeout,
        settings.max_timeout,
        settings.max_queue_wait,
        lambda path: path.removeprefix("/").rpartition("/")[0] in _UNLIMITED,
    )


def _make_engine(name: str, handlers: Sequence[grpc.GenericRpcHandler], **options: Any) -> Engine:
    maker = engine_maker(name)
    loop = type(asyncio.get_running_loop())
    _log.debug("%s serves, on %s.%s", maker.__name__, loop.__module__, loop.__name__)
    return maker(handlers, **options)
