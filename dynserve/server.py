"""Server: ports, credentials, start, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from dynserve.addresses import check_mode
from dynserve.binding import bind
from dynserve.builtin import Drain, Health, reflection_services
from dynserve.channel_arguments import channel_arguments
from dynserve.dump import dump
from dynserve.engine.limits import CallLimits
from dynserve.engines import engine_maker, new_event_loop
from dynserve.equipment import Equipment, access_log_shown, check_xds
from dynserve.errors import UnhandledMethodsError
from dynserve.main_loop import (
    Stopping,
    first_of,
    on_signals,
    run_loop,
    run_main,
    secrets_not_logged,
)
from dynserve.policies import check_public
from dynserve.routes import Router, Routes
from dynserve.settings import Settings
from dynserve.supervisor import Supervisor
from dynserve.surrounded import Gate

if TYPE_CHECKING:
    from dynserve.auth.policy import Policy
    from dynserve.engine.base import Engine
    from dynserve.lifespan import Lifespan
    from dynserve.method import MethodInfo
    from dynserve.observer import Observer
    from dynserve.unit import Unit
    from dynserve.workers.link import Link

__all__ = ["DEFAULT_ADDRESS", "Server"]

_log = logging.getLogger("dynserve.server")

DEFAULT_ADDRESS = "127.0.0.1:50051"
_A_WHILE = 0.5  # seconds of stopping, after which a person would wonder
_THIS_MACHINE = ("127.", "localhost:", "[::1]:", "unix:", "unix-abstract:")
_BUILT_IN = ("/grpc.health.v1.Health/", "/grpc.reflection.v1", "/grpc.channelz.v1.", "/dynserve.")


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
        self._policy = policy
        self._drain = Drain()
        self._health = Health() if self.settings.health else None
        self._builtin = [self._health.service(policy)] if self._health else []
        if self.settings.reflection:
            self._builtin += reflection_services(self._current_routes, self._drain, policy)
        if self.settings.admin:
            from dynserve.builtin.admin import admin_services  # an extra

            self._builtin += admin_services(self.dump, policy)
        self._lifespans: list[Lifespan] = []
        self._ending: asyncio.Task[None] | None = None
        gate = Gate(self._observers, policy)
        self._router = Router(self._bind(units), gate, self.settings.max_metadata_size)
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
        if self._supervisor.is_started:
            raise RuntimeError("a server starts once; make another with app.server()")
        try:
            for lifespan in self._lifespans:
                await lifespan.start()
            self._equipment.start(self._methods)
            self._report_health()
            self._warn_of_plain_text()
            self._addresses = await self._supervisor.start(self._listen)
        except BaseException:
            self._equipment.stop()
            await _end_all(self._lifespans)
            raise

    def _warn_of_plain_text(self) -> None:
        """Secrets that a network can read are none."""
        open_ = [one for one in self._listen if not one.startswith(_THIS_MACHINE)]
        if self._policy is not None and open_ and self._equipment.credentials() is None:
            what = "calls are authenticated, but connections to %s are not encrypted"
            _log.warning(f"{what}: set tls_cert and tls_key, or put a proxy in front", open_[0])

    async def replace(self, units: Iterable[Unit]) -> None:
        """Serve these units from the next call on; calls under way keep what they started with.

        A lifespan that runs already goes on, a new one is started; what is not needed any more ends
        with the server, since calls may still use it.

        Raises:
            BindError, UnhandledMethodsError: as when the server was made; nothing is replaced.
            Exception: whatever a lifespan raises; nothing is replaced.
        """
        known = len(self._lifespans)
        routes = self._bind(units)
        if self._supervisor.is_started:
            for lifespan in self._lifespans[known:]:
                await lifespan.start()
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

    async def stop(self, grace: float | EllipsisType | None = ...) -> None:
        """Report NOT_SERVING, refuse new calls, let those under way finish, cancel the rest.

        ``grace`` is in seconds, by default that of the settings; None cancels at once. May be
        called again, with less patience.
        """
        await self._stop(self.settings.grace if isinstance(grace, EllipsisType) else grace)

    async def _stop(self, seconds: float | None, drains: bool = True) -> None:
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
        asked = Stopping(self._link is None)
        dumps = {signal.SIGUSR1: lambda: _say(self.dump())} if hasattr(signal, "SIGUSR1") else {}
        seeing = access_log_shown(self.settings)
        with secrets_not_logged(), seeing, on_signals(asked.on_signal, dumps):
            if self._link is not None:
                heed = self._health.heed if self._health is not None else _ignore
                await self._link.open(heed=heed, stop=asked.on_stop, cancel=asked.again.set)
            await self.start()
            try:
                if self._link is not None:
                    self._link.ready(self._addresses)
                if ready is not None:
                    ready()
                await first_of(asked.first.wait(), self.wait_for_termination())
            except BaseException:  # gRPC's server has to be stopped while its loop runs
                await self.stop(None)
                raise
            await self._stop_as_asked(asked, waiting)
            if self._link is not None:
                self._link.close()

    async def _stop_as_asked(self, asked: Stopping, waiting: Callable[[], object] | None) -> None:
        stopping = asyncio.ensure_future(self._stop_gently(asked))
        await first_of(asyncio.shield(stopping), asked.again.wait(), asyncio.sleep(_A_WHILE))
        if waiting is not None and not (stopping.done() or asked.again.is_set()):
            waiting()
        await first_of(asyncio.shield(stopping), asked.again.wait())
        if asked.again.is_set():
            stopping.cancel()
            await self.stop(None)
        with contextlib.suppress(asyncio.CancelledError):
            await stopping

    async def _stop_gently(self, asked: Stopping) -> None:
        if asked.drains and self.settings.drain_wait:
            await self.drain()
            await asyncio.sleep(self.settings.drain_wait)
        # A successor on the same ports serves: load balancers have nothing to notice.
        await self._stop(self.settings.grace, drains=not asked.is_replaced)

    def _bind(self, units: Iterable[Unit]) -> Routes:
        units = list(units)
        running = {lifespan.function: lifespan for lifespan in self._lifespans}
        for unit in units:
            unit.observers = self._observers
            if unit.lifespan is not None:
                unit.share(running.setdefault(unit.lifespan.function, unit.lifespan))
        routes = bind(units, self._builtin)
        check_public([self._policy, *(unit.policy for unit in units)], routes)
        self._lifespans = list(running.values())
        if self.settings.strict and routes.holes:
            raise UnhandledMethodsError(routes.holes)
        return routes

    async def _end_lifespans(self) -> None:
        """End them, the last that was started first; however many wait for it, and once."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(_end_all(self._lifespans))
        await asyncio.shield(self._ending)

    def _methods(self) -> Iterator[MethodInfo]:
        """The methods that have a handler, but those of the server's own services."""
        for service in self._router.routes.services.values():
            if not f"/{service.name}/".startswith(_BUILT_IN):
                methods = service.schema.service(service.name).methods
                yield from (methods[name] for name in service.handlers)

    def _report_health(self) -> None:
        if self._health is not None:
            services = self._router.routes.services.values()
            self._health.serve(service.name for service in services if service.is_served)


def _ignore(_others: Mapping[str, bool]) -> None:
    """Health is not served."""


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


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
        lambda path: path.startswith(_BUILT_IN),
    )


def _make_engine(name: str, handlers: Sequence[grpc.GenericRpcHandler], **options: Any) -> Engine:
    maker = engine_maker(name)
    loop = type(asyncio.get_running_loop())
    _log.debug("%s serves, on %s.%s", maker.__name__, loop.__module__, loop.__name__)
    return maker(handlers, **options)
