"""MetricsServer: the metrics of a process, or of its workers, over HTTP for Prometheus.

One thread with an event loop of its own serves it, apart from the loop that serves calls. Each
request has a time limit as a whole and there is a bound on how many are served at a time, so that
clients that are slow, or are many, cost nothing but that. It knows nothing of gRPC.

Workers write what they count into files of a folder, if ``PROMETHEUS_MULTIPROC_DIR`` names it
before they import ``prometheus_client``; whoever serves the folder adds them up
(https://prometheus.github.io/client_python/multiprocess/).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import glob
import gzip
import logging
import os
import re
import socket
import threading
from typing import TYPE_CHECKING, Any

from dynserve.errors import AddressError, DynserveError

if TYPE_CHECKING:
    from types import TracebackType

    from prometheus_client import CollectorRegistry

__all__ = ["NEEDED", "MetricsServer"]

NEEDED = "metrics need the package prometheus-client; write `pip install 'dynserve[prometheus]'`"

_log = logging.getLogger("dynserve.metrics")

_HOST_PORT = re.compile(r"(\[[^]]*\]|[^:]+):([0-9]{1,5})")
_MAX_PORT = 65535
_MAX_HEAD = 16 * 1024  # bytes of a request
_MAX_CLIENTS = 32  # more are refused: a handful of Prometheus servers ask every few seconds
_PATIENCE = 10.0  # seconds for a request and its response; Prometheus gives up after as many
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_TOTALS = "0"  # in place of a process's id: what processes counted that have ended


class MetricsServer:
    """Serves ``GET /metrics``, from :meth:`start` to :meth:`close`, or as a context manager.

    What is served is what ``registry`` and prometheus_client's own default registry have: the
    metrics that handlers make are mostly there. Or, where there is a folder of several processes,
    the sum of what they wrote there. It neither encrypts nor asks who calls: keep it off networks
    that you do not trust.

    Args:
        address: ``HOST:PORT`` or ``[IPV6]:PORT``; port 0 lets the system choose.
        registry: such as :attr:`dynserve.observe.Metrics.registry`.
        folder: where processes write their metrics; without, what ``PROMETHEUS_MULTIPROC_DIR``
            says, if it is set.

    Raises:
        AddressError: ``address`` is none.
        DynserveError: ``prometheus-client`` is not installed.
    """

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self._host, self._port = _host_and_port(address)
        self.address = address
        """Where it listens; once it was started, with the port that the system chose."""
        self._folder = os.environ.get(_FOLDER) if folder is None else os.fspath(folder)
        self._registry = _registry_of(registry, self._folder)
        self._collecting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._clients: set[asyncio.Task[None]] = set()

    def start(self) -> str:
        """Listen, and serve on a thread; returns the address with its port.

        Raises:
            AddressError: the address cannot be had.
            RuntimeError: it was started before.
        """
        if self._loop is not None:
            raise RuntimeError("a metrics server starts once; make another MetricsServer")
        listener = _listener(self.address, self._host, self._port)
        self.address = f"{self._host}:{listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop, listener), name="dynserve-metrics", daemon=True
        )
        self._thread.start()
        return self.address

    def close(self) -> None:
        """Stop serving, and close every connection; a second time it does nothing."""
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None

    def __enter__(self) -> MetricsServer:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def process_ended(self, pid: int) -> None:
        """Keep what a process of the folder had counted, and forget what it had under way.

        Its files are added to one for all that ended: workers that are replaced again and again
        leave no more files than there are workers. To be called when the process is gone.
        """
        if self._folder is not None:
            with self._collecting:
                _merge(self._folder, pid)

    # ---- on the thread

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        try:
            loop.run_until_complete(self._serve(listener))
        finally:
            loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._greet, sock=listener, limit=_MAX_HEAD)
        await self._stopping.wait()
        server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= _MAX_CLIENTS:
            writer.transport.abort()
            return
        client = asyncio.ensure_future(self._attend(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # so that drain() waits for the last byte
        try:
            await asyncio.wait_for(self._answer(reader, writer), _PATIENCE)
            writer.close()
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            pass  # a client that is gone, or too slow
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            writer.write(_response("431 Request Header Fields Too Large", b"too large\n"))
        else:
            writer.write(self._response_to(head.decode("latin-1")))
        await writer.drain()

    def _response_to(self, head: str) -> bytes:
        line, *others = head.split("\r\n")
        match line.split(" "):
            case ["GET" | "HEAD" as verb, target, "HTTP/1.1" | "HTTP/1.0"]:
                pass
            case [_, _, "HTTP/1.1" | "HTTP/1.0"]:
                return _response("405 Method Not Allowed", b"use GET\n", Allow="GET, HEAD")
            case _:
                return _response("400 Bad Request", b"this is no HTTP/1.1 request\n")
        if target.partition("?")[0] != "/metrics":
            return _response("404 Not Found", b"metrics are at /metrics\n")
        headers = {}
        for other in others:
            name, _, value = other.partition(":")
            headers[name.strip().lower()] = value.strip()
        response = self._metrics(headers)
        return response if verb == "GET" else response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def _metrics(self, headers: dict[str, str]) -> bytes:
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(headers.get("accept", ""))
        try:
            with self._collecting:
                body = encode(self._registry)
        except Exception:  # by a collector of the user's
            _log.exception("metrics cannot be collected")
            return _response("500 Internal Server Error", b"see the log of the server\n")
        more = {"Content-Type": content_type}
        if "gzip" in headers.get("accept-encoding", ""):
            body = gzip.compress(body, compresslevel=1)
            more["Content-Encoding"] = "gzip"
        return _response("200 OK", body, **more)


def _response(status: str, body: bytes, **headers: str) -> bytes:
    told = {"Content-Type": "text/plain; charset=utf-8", **headers}
    told |= {"Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in told.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def _registry_of(registry: CollectorRegistry | None, folder: str | None) -> CollectorRegistry:
    """One registry with all that is to be served."""
    try:
        import prometheus_client
        from prometheus_client.multiprocess import MultiProcessCollector
    except ImportError as error:
        raise DynserveError(NEEDED) from error
    served = prometheus_client.CollectorRegistry()
    if folder is not None:
        collector: Any = MultiProcessCollector  # it has no types
        collector(served, path=folder)
        return served
    for one in dict.fromkeys((registry, prometheus_client.REGISTRY)):
        if one is not None:
            served.register(one)
    return served


def _merge(folder: str, pid: int) -> None:
    """Add the files of a process to those of all that ended; what it had under way is gone."""
    from prometheus_client import mmap_dict

    files: Any = mmap_dict.MmapedDict  # it has no types

    for path in glob.glob(os.path.join(glob.escape(folder), f"*_{pid}.db")):
        name = os.path.basename(path)
        if name.startswith("gauge_live"):
            os.remove(path)
        elif name.startswith(("counter_", "histogram_", "summary_")):
            values = list(files.read_all_values_from_file(path))
            total = path.removesuffix(f"_{pid}.db") + f"_{_TOTALS}.db"
            with contextlib.closing(files(total)) as sums:
                for key, value, _, _ in values:
                    sums.write_value(key, sums.read_value(key)[0] + value, 0.0)
            os.remove(path)


def _host_and_port(address: str) -> tuple[str, int]:
    match = _HOST_PORT.fullmatch(address)
    if match is None:
        raise AddressError(address, "expected HOST:PORT or [IPV6]:PORT", exit_code=2)
    if int(match[2]) > _MAX_PORT:
        raise AddressError(address, f"a port is a number from 0 to {_MAX_PORT}", exit_code=2)
    return match[1], int(match[2])


def _listener(address: str, host: str, port: int) -> socket.socket:
    """A socket that listens there; the first address of a host that can be had."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise AddressError(address, f"the host is not known: {error.strerror}") from error
    except ValueError as error:  # UnicodeError: the codec for host names refuses it
        raise AddressError(address, f"the host is not known: {error}") from error
    first: OSError | None = None
    for family, _, _, _, place in found:
        try:
            return socket.create_server(place[:2], family=family)
        except OSError as error:
            first = first or error
    number = 0 if first is None else first.errno or 0
    problem = os.strerror(number)  # the error's own text goes on with the address
    if number == errno.EADDRINUSE:
        problem = f"port {port} is taken; port 0 lets the system choose"
    raise AddressError(address, problem) from first
