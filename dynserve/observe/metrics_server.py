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
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dynserve.errors import AddressError, DynserveError

if TYPE_CHECKING:
    from types import TracebackType

    from prometheus_client import CollectorRegistry, Metric

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
_allocate: Callable[[int, int, int], object] = getattr(  # macOS has none
    os, "posix_fallocate", lambda file, _start, size: os.ftruncate(file, size)
)


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
        path = os.environ.get(_FOLDER) if folder is None else os.fspath(folder)
        self._registry, self._folder = _sources(registry, path)
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
        leave no more files than there are workers. To be called when the process is gone. A file
        that cannot be read is removed, with a warning in the log.
        """
        if self._folder is not None:
            with self._collecting:
                self._folder.forget(pid)

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


def _sources(
    registry: CollectorRegistry | None, path: str | None
) -> tuple[CollectorRegistry, _Folder | None]:
    """One registry with all that is to be served, and the folder that is, if there is one."""
    try:
        import prometheus_client
    except ImportError as error:
        raise DynserveError(NEEDED) from error
    served = prometheus_client.CollectorRegistry()
    if path is not None:
        folder = _Folder(path)
        served.register(folder)
        return served, folder
    for one in dict.fromkeys((registry, prometheus_client.REGISTRY)):
        if one is not None:
            served.register(one)
    return served, None


class _Folder:
    """What processes wrote into the files of a folder: a collector of prometheus_client.

    A file may be torn, since its process was killed or the disk is full. Then it is left out and
    the log says so once: what the others counted is still right.

    Raises:
        ValueError: there is no such folder.
    """

    def __init__(self, path: str) -> None:
        from prometheus_client.mmap_dict import MmapedDict
        from prometheus_client.multiprocess import MultiProcessCollector

        collector: Any = MultiProcessCollector  # neither has types
        self._files: Any = MmapedDict
        self._merged = collector(None, path=path).merge
        self._path = path
        self._told: set[str] = set()  # the files of which the log has said that they are torn

    def collect(self) -> Iterable[Metric]:
        """All files added up."""
        paths = self._paths("*")
        try:
            found: Iterable[Metric] = self._merged(paths)
        except Exception:  # whatever reading what is torn raises
            found = self._merged([path for path in paths if self._is_whole(path, may_be_new=True)])
        return found

    def forget(self, pid: int) -> None:
        """Add the files of a process to those of all that ended; what it had under way is gone."""
        for path in self._paths(f"*_{pid}.db"):
            try:
                self._forget(path, pid)
            except Exception as error:  # the disk is full, say; the file still counts
                _log.warning("%s stays as it is: %s", path, error)

    def _paths(self, pattern: str) -> list[str]:
        return glob.glob(os.path.join(glob.escape(self._path), pattern))

    def _forget(self, path: str, pid: int) -> None:
        name = os.path.basename(path)
        if name.startswith("gauge_live"):
            os.remove(path)
        elif name.startswith(("counter_", "histogram_", "summary_")):
            total = path.removesuffix(f"_{pid}.db") + f"_{_TOTALS}.db"
            if not self._is_whole(path):
                os.remove(path)
            elif not os.path.exists(total) or not self._is_whole(total):
                os.replace(path, total)
                self._told.discard(total)
            else:
                self._add(path, total)
                os.remove(path)
            self._told.discard(path)

    def _is_whole(self, path: str, may_be_new: bool = False) -> bool:
        """Whether a file can be read; one that is new may be empty for a moment."""
        try:
            if may_be_new and not os.path.getsize(path):
                return False
            self._merged([path])
        except Exception as error:  # there are many ways to be torn
            if path not in self._told:
                self._told.add(path)
                _log.warning("%s cannot be read, what it counts is lost: %r", path, error)
            return False
        return True

    def _add(self, path: str, total: str) -> None:
        values = list(self._files.read_all_values_from_file(path))
        used = sum(map(_end_of, (values, list(self._files.read_all_values_from_file(total)))))
        with open(total, "ab") as file:
            # A page of a mapped file for which the disk has no room kills who writes to it. So
            # there has to be room before, and an error if not.
            _allocate(file.fileno(), 0, max(used, os.path.getsize(total)))
        with contextlib.closing(self._files(total)) as sums:
            for key, value, _, _ in values:
                sums.write_value(key, sums.read_value(key)[0] + value, 0.0)


def _end_of(values: list[tuple[str, float, float, int]]) -> int:
    """The bytes of a file that are used: up to the two numbers of its last value."""
    return values[-1][3] + 16 if values else 8


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
