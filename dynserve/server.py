"""Server: ports, credentials, start, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from dynserve.binding import Unit, bind
from dynserve.builtin import Drain, Health, reflection_services
from dynserve.engines import ENGINES, engine_maker, new_event_loop
from dynserve.errors import UnhandledMethodsError
from dynserve.routes import Router, Routes
from dynserve.supervisor import Supervisor

if TYPE_CHECKING:
    from dynserve.engine.base import Engine

__all__ = ["DEFAULT_ADDRESS", "Server"]

_log = logging.getLogger("dynserve.server")

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_GRACE = 10.0
_A_WHILE = 0.5  # seconds of stopping, after which a person would wonder

# A port belongs to one process: with SO_REUSEPORT, on by default in gRPC, a stale server would go
# on taking every other connection.
_OPTIONS = (("grpc.so_reuseport", 0),)


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
        credentials: from ``grpc.ssl_server_credentials`` and its like; without, connections are
            not encrypted.
        reflection: whether clients can discover the services.
        health: whether ``grpc.health.v1.Health`` is served.
        strict: refuse to start while a declared method has no handler.
        options: channel arguments of gRPC's core, which override the server's own.
        compression: the default for responses.
        maximum_concurrent_rpcs: calls past it are refused with RESOURCE_EXHAUSTED.
        threads: how many unary sync handlers run at the same time.
        stream_threads: how many streaming sync handlers run at the same time.
        engine: ``"queue"``, which is several times faster; ``"aio"``, which uses nothing but the
            public grpc.aio; ``"auto"``, the first where it works. By default what the environment
            variable ``DYNSERVE_ENGINE`` says, else ``"auto"``.

    Raises:
        BindError: handlers do not fit the schema.
        UnhandledMethodsError: ``strict``, and methods have no handler.
        TypeError: an address is not a str.
        ValueError: ``threads``, ``stream_threads`` or ``maximum_concurrent_rpcs`` is less than 1,
            or there is no such engine.
    """

    def __init__(
        self,
        units: Iterable[Unit],
        listen: Sequence[str] = (DEFAULT_ADDRESS,),
        *,
        credentials: grpc.ServerCredentials | None = None,
        reflection: bool = True,
        health: bool = True,
        strict: bool = False,
        options: Iterable[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
        maximum_concurrent_rpcs: int | None = None,
        threads: int | None = None,
        stream_threads: int = 1000,
        engine: str | None = None,
    ) -> None:
        _check_limits(
            threads=threads,
            stream_threads=stream_threads,
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
        )
        self._engine = _checked_engine(engine)
        self._listen = tuple(map(_checked_address, listen))
        self._strict = strict
        self._drain = Drain()
        self._health = Health() if health else None
        self._builtin = [self._health.service()] if self._health else []
        if reflection:
            self._builtin += reflection_services(lambda: self._router.routes, self._drain)
        self._router = Router(self._bind(units))
        make = functools.partial(
            _make_engine,
            self._engine,
            [self._router],
            options=(*_OPTIONS, *options),
            compression=compression,
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
            threads=threads,
            stream_threads=stream_threads,
        )
        self._supervisor = Supervisor(make, credentials)
        self._addresses: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """What the server listens on, with the ports that the system chose; empty before start."""
        return self._addresses

    @property
    def routes(self) -> Routes:
        """The snapshot that new calls are served from."""
        return self._router.routes

    async def start(self) -> None:
        """Listen and begin to serve.

        Raises:
            AddressError: an address cannot be listened on; then it listens on none.
            EngineError: the engine that was asked for does not work here.
            RuntimeError: the server was started before.
        """
        self._report_health()
        self._addresses = await self._supervisor.start(self._listen)

    async def replace(self, units: Iterable[Unit]) -> None:
        """Serve these units from the next call on; calls under way keep what they started with.

        Raises:
            BindError, UnhandledMethodsError: as when the server was made; nothing is replaced.
        """
        self._router.routes = self._bind(units)
        self._report_health()

    async def set_health(self, service: str, serving: bool) -> None:
        """Report a service, or ``""`` for the server, as SERVING or NOT_SERVING."""
        if self._health is not None:
            self._health.set(service, serving)

    async def stop(self, grace: float | None = DEFAULT_GRACE) -> None:
        """Report NOT_SERVING, refuse new calls, let those under way finish, cancel the rest.

        ``grace`` is in seconds; None cancels at once. May be called again, with less patience.
        """
        if not self._supervisor.is_started:
            return
        if self._health is not None:
            self._health.drain()
        stopping = asyncio.ensure_future(self._supervisor.stop(grace))
        self._drain.start()
        await stopping

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
    def in_thread(self, grace: float | None = DEFAULT_GRACE) -> Iterator[Server]:
        """Serve on an event loop in a thread of its own while the ``with`` block runs.

        ``grace`` is what :meth:`stop` is given at the end.
        """
        loop = new_event_loop(self._engine)
        thread = threading.Thread(target=_run_loop, args=(loop,), name="dynserve-loop", daemon=True)
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
        grace: float = DEFAULT_GRACE,
        ready: Callable[[], object] | None = None,
        waiting: Callable[[], object] | None = None,
    ) -> None:
        """As :meth:`run`, on an event loop that is made for it.

        Raises:
            RuntimeError: an event loop runs on this thread; there :meth:`run` is to be awaited.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("an event loop runs here: await Server.run() instead")
        loop = new_event_loop(self._engine)
        _run_main(self.run(grace, ready, waiting), loop)

    async def run(
        self,
        grace: float = DEFAULT_GRACE,
        ready: Callable[[], object] | None = None,
        waiting: Callable[[], object] | None = None,
    ) -> None:
        """Start, serve until SIGINT or SIGTERM, then stop gracefully.

        A second signal cancels the calls under way. A third one ends the process at once, with
        128 and the signal's number, even where a handler keeps the event loop from running.
        ``ready`` is called once, when calls are served and a signal is a request to stop;
        ``waiting`` when stopping takes a while, for calls are under way.

        Raises:
            AddressError: as :meth:`start`.
            TerminatedError: as :meth:`wait_for_termination`.
        """
        signalled, again = asyncio.Event(), asyncio.Event()
        with _on_signals(signalled.set, again.set):
            await self.start()
            try:
                if ready is not None:
                    ready()
                await _first_of(signalled.wait(), self.wait_for_termination())
            except BaseException:  # gRPC's server has to be stopped while its loop runs
                await self.stop(None)
                raise
            stopping = asyncio.ensure_future(self.stop(grace))
            await _first_of(asyncio.shield(stopping), again.wait(), asyncio.sleep(_A_WHILE))
            if waiting is not None and not (stopping.done() or again.is_set()):
                waiting()
            await _first_of(asyncio.shield(stopping), again.wait())
            if again.is_set():
                await self.stop(None)
            await stopping

    def _bind(self, units: Iterable[Unit]) -> Routes:
        routes = bind(units, self._builtin)
        if self._strict and routes.holes:
            raise UnhandledMethodsError(routes.holes)
        return routes

    def _report_health(self) -> None:
        if self._health is not None:
            services = self._router.routes.services.values()
            self._health.serve(service.name for service in services if service.is_served)


def _checked_address(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError(f"got {given!r} to listen on, expected a str such as '127.0.0.1:50051'")
    return given


def _checked_engine(given: str | None) -> str:
    name = given or os.environ.get("DYNSERVE_ENGINE") or "auto"
    if name not in ENGINES:
        where = "engine" if given else "DYNSERVE_ENGINE"
        raise ValueError(f"got {where}={name!r}, expected one of {', '.join(map(repr, ENGINES))}")
    return name


def _make_engine(name: str, handlers: Sequence[grpc.GenericRpcHandler], **options: Any) -> Engine:
    maker = engine_maker(name)
    loop = type(asyncio.get_running_loop())
    _log.debug("%s serves, on %s.%s", maker.__name__, loop.__module__, loop.__name__)
    return maker(handlers, **options)


def _check_limits(**limits: int | None) -> None:
    for name, limit in limits.items():
        if limit is not None and limit < 1:
            raise ValueError(f"got {name}={limit!r}, expected at least 1")


async def _first_of(*awaitables: Awaitable[object]) -> None:
    """Wait for the first to end, and raise what it raised; the others are cancelled."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        task.result()


def _run_main(main: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    """What ``asyncio.run`` does, with a loop of ours, also on Python 3.10."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        _close_loop(loop)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        _close_loop(loop)


def _close_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_until_complete(_end_all_tasks(loop))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _end_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """What asyncio.run() does at its end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            message = "a task failed while the server's event loop was ended"
            context = {"message": message, "exception": task.exception(), "task": task}
            loop.call_exception_handler(context)


@contextlib.contextmanager
def _on_signals(*steps: Callable[[], object]) -> Iterator[None]:
    """Take the steps on the loop, one with each SIGINT or SIGTERM; after them the process ends.

    By ``signal.signal``, not by the loop's own means: a handler may keep the loop from running.
    """
    loop = asyncio.get_running_loop()
    left = list(steps)

    def on_signal(number: int, _frame: object) -> None:
        if not left:
            os._exit(128 + number)  # as shells have it
        loop.call_soon_threadsafe(left.pop(0))

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, on_signal) for number in numbers]
    try:
        with _woken_by_signals(loop):
            yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have every signal wake the loop.

    Python takes note of a signal and calls its handler later; one that comes just as the loop falls
    asleep would be handled when the loop wakes for another reason, hours later maybe.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if before != -1:  # the loop sees to it itself, as uvloop's does
            signal.set_wakeup_fd(before)
            yield
            return
        loop.add_reader(reader, reader.recv, 4096)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            loop.remove_reader(reader)
