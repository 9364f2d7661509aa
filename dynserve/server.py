"""Server: ports, credentials, start, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from dynserve.binding import Router, Routes, Unit, bind
from dynserve.engine import AioEngine
from dynserve.errors import AddressError, UnhandledMethodsError

if TYPE_CHECKING:
    from dynserve.builtin import Drain, Health

__all__ = ["DEFAULT_ADDRESS", "Server"]

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_GRACE = 10.0

# A port belongs to one process: with SO_REUSEPORT, on by default in gRPC, a stale server would go
# on taking every other connection.
_OPTIONS = (("grpc.so_reuseport", 0),)
_HOST_PORT = re.compile(r"(\[.*\]|[^:]*):(\d+)")


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

    Raises:
        BindError: handlers do not fit the schema.
        UnhandledMethodsError: ``strict``, and methods have no handler.
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
    ) -> None:
        # Not before a server is made: their messages enter protobuf's process-wide pool.
        from dynserve.builtin import Drain, Health, reflection_units

        self._listen = tuple(listen)
        self._credentials = credentials
        self._strict = strict
        self._drain: Drain = Drain()
        self._health: Health | None = Health() if health else None
        self._builtin = [self._health.unit()] if self._health else []
        if reflection:
            self._builtin += reflection_units(lambda: self._router.routes, self._drain)
        self._router = Router(self._bind(units))
        self._engine_options: dict[str, Any] = {
            "options": (*_OPTIONS, *options),
            "compression": compression,
            "maximum_concurrent_rpcs": maximum_concurrent_rpcs,
            "threads": threads,
            "stream_threads": stream_threads,
        }
        self._engine: AioEngine | None = None
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
            RuntimeError: the server was started before.
        """
        if self._engine is not None:
            raise RuntimeError("a server starts once; make another with app.server()")
        engine = self._engine = AioEngine([self._router], **self._engine_options)
        try:
            self._addresses = tuple(
                _add_port(engine, address, self._credentials) for address in self._listen
            )
        except AddressError:
            await engine.start()  # a grpc.aio server that was never started keeps its ports
            await engine.stop(None)
            raise
        self._report_health()
        await engine.start()

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
        if self._engine is None:
            return
        if self._health is not None:
            self._health.drain()
        stopping = asyncio.ensure_future(self._engine.stop(grace))
        self._drain.start()
        await stopping

    async def wait_for_termination(self) -> None:
        """Return when the server has stopped."""
        if self._engine is not None:
            await self._engine.wait_for_termination()

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
    def in_thread(self) -> Iterator[Server]:
        """Serve on an event loop in a thread of its own while the ``with`` block runs."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run_loop, args=(loop,), name="dynserve-loop", daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.start(), loop).result()
            try:
                yield self
            finally:
                asyncio.run_coroutine_threadsafe(self.stop(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    async def run(
        self, grace: float = DEFAULT_GRACE, ready: Callable[[], object] | None = None
    ) -> None:
        """Start, serve until SIGINT or SIGTERM, then stop gracefully; a second signal is final.

        ``ready`` is called once, when calls are served and a signal is a request to stop.

        Raises:
            AddressError: as :meth:`start`.
        """
        signalled = asyncio.Event()
        again = asyncio.Event()

        def on_signal() -> None:
            (again if signalled.is_set() else signalled).set()

        with _on_signals(on_signal):
            await self.start()
            try:
                if ready is not None:
                    ready()
                await signalled.wait()
            except BaseException:  # gRPC's server has to be stopped while its loop runs
                await self.stop(None)
                raise
            stopping = asyncio.ensure_future(self.stop(grace))
            impatient = asyncio.ensure_future(again.wait())
            await asyncio.wait({stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
            if again.is_set():
                await self.stop(None)
            impatient.cancel()
            await stopping

    def _bind(self, units: Iterable[Unit]) -> Routes:
        routes = bind([*units, *self._builtin])
        if self._strict and routes.holes:
            raise UnhandledMethodsError(routes.holes)
        return routes

    def _report_health(self) -> None:
        if self._health is not None:
            services = self._router.routes.services.values()
            self._health.serve(service.name for service in services if service.handlers)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_end_all_tasks())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _end_all_tasks() -> None:
    """What asyncio.run() does at its end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _on_signals(function: Any) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in signals:
            loop.add_signal_handler(number, function)
    except NotImplementedError:  # Windows: only the Python-level handler is there
        for number in signals:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(function))
        yield
        return
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _add_port(engine: AioEngine, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """Listen on one address; returns it as clients reach it."""
    if address.startswith("unix:"):
        problem = _why_not_path(address.removeprefix("unix:").removeprefix("//"))
    elif address.startswith(("unix-abstract:", "vsock:")):
        problem = ""
    elif _HOST_PORT.fullmatch(address) and int(address.rpartition(":")[2]) <= 65535:
        problem = _why_not_host(address)
    else:
        raise AddressError(address, "expected HOST:PORT, [IPV6]:PORT or unix:PATH", exit_code=2)
    if problem:
        raise AddressError(address, problem)
    try:
        port = engine.add_port(address, credentials)
    except RuntimeError as error:
        raise AddressError(address, "gRPC refused it; see its own message above") from error
    return f"{address[:-1]}{port}" if address.endswith(":0") else address


# gRPC says no more than "failed", and prints the reason to stderr; asked before it, the system says
# why an address cannot be had.


def _why_not_path(path: str) -> str:
    """Why a unix socket cannot be made, empty where it can."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        return f"no folder {folder!r}"
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            # gRPC unlinks the path before it binds, also one that a running server listens on.
            probe.connect(path)
        except OSError:
            return ""
    return "another process listens on it"


def _why_not_host(address: str) -> str:
    """Why HOST:PORT cannot be had, empty where it can."""
    host, _, digits = address.rpartition(":")
    port = int(digits)
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"the host is not known: {error.strerror}"
    problem = ""
    for family, kind, protocol, _, place in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                problem = f"port {port} is taken" if taken else str(error.strerror)
            else:
                if not problem.startswith("port"):
                    return ""  # one address of a host is enough, as it is for gRPC
    return problem
