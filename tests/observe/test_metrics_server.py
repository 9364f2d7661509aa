"""MetricsServer: what Prometheus gets, whoever else is connected, from one process or several."""

from __future__ import annotations

import contextlib
import errno
import glob
import gzip
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

prometheus_client = pytest.importorskip("prometheus_client", reason="the extra 'prometheus'")

from prometheus_client.mmap_dict import MmapedDict  # noqa: E402

from dynserve import AddressError, DynserveError  # noqa: E402
from dynserve.observe import MetricsServer, metrics_server  # noqa: E402

WAIT = 20.0


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the test run names no folder."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


def registry_with(name: str, value: float = 1.0) -> Any:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Gauge(name, "A gauge.", registry=registry).set(value)
    return registry


def get(address: str, path: str = "/metrics", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def raw(address: str, request: bytes) -> bytes:
    """All that comes back for these bytes."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), WAIT) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_metrics_of_a_registry_and_of_the_default_one() -> None:
    """Port 0 becomes a port; what handlers count in the default registry is there too."""
    mine = prometheus_client.Counter("mine_total", "A counter of a handler's.")
    try:
        mine.inc(3)
        with MetricsServer("127.0.0.1:0", registry_with("given", 2.0)) as server:
            status, headers, body = get(server.address)
    finally:
        prometheus_client.REGISTRY.unregister(mine)
    assert status == 200
    assert headers == {
        "Content-Type": "text/plain; version=0.0.4; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = body.decode().splitlines()
    assert {"given 2.0", "mine_total 3.0"} < set(lines)


def test_the_default_registry_given_is_served_once() -> None:
    """Nothing is there twice where the default registry is what is given."""
    with MetricsServer("127.0.0.1:0", prometheus_client.REGISTRY) as server:
        _, _, body = get(server.address)
    assert body.decode().count("# TYPE python_info gauge") == 1


def test_what_prometheus_asks_for() -> None:
    """OpenMetrics and gzip are given where they are asked for."""
    with MetricsServer("127.0.0.1:0", registry_with("given")) as server:
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        status, headers, body = get(
            server.address, "/metrics?x=y", Accept=accept, **{"Accept-Encoding": "gzip"}
        )
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found", "metrics are at /metrics\n"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed", "use GET\n"),
        (b"GET /metrics HTTP/2\r\n\r\n", "400 Bad Request", "this is no HTTP/1.1 request\n"),
        (b"\x16\x03\x01\r\n\r\n", "400 Bad Request", "this is no HTTP/1.1 request\n"),
        (b"GET /" + b"x" * 40_000, "431 Request Header Fields Too Large", "too large\n"),
    ],
    ids=["path", "verb", "version", "bytes", "large"],
)
def test_other_requests(request_: bytes, status: str, body: str) -> None:
    """What is no request for metrics is told so, and the server goes on."""
    with MetricsServer("127.0.0.1:0", registry_with("given")) as server:
        answer = raw(server.address, request_)
        assert get(server.address)[0] == 200
    head, _, text = answer.decode().partition("\r\n\r\n")
    assert (head.splitlines()[0], text) == (f"HTTP/1.1 {status}", body)
    assert ("Allow: GET, HEAD" in head) == (status[:3] == "405")


def test_head() -> None:
    """HEAD gets what GET gets, without the metrics."""
    with MetricsServer("127.0.0.1:0", registry_with("given")) as server:
        answer = raw(server.address, b"HEAD /metrics HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"Connection: close\r\n\r\n")


def test_a_collector_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged and not sent."""

    class Failing:
        def describe(self) -> list[Any]:
            return []

        def collect(self) -> Any:
            raise ValueError("secret")

    registry = prometheus_client.CollectorRegistry()
    registry.register(Failing())
    with MetricsServer("127.0.0.1:0", registry) as server:
        status, _, body = get(server.address)
    assert (status, body) == (500, b"see the log of the server\n")
    assert [record.message for record in caplog.records] == ["metrics cannot be collected"]


def test_slow_clients_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that send nothing hold nobody up, more than the limit are refused, and all time out."""
    monkeypatch.setattr("dynserve.observe.metrics_server._MAX_CLIENTS", 4)
    monkeypatch.setattr("dynserve.observe.metrics_server._PATIENCE", 0.5)
    with (
        MetricsServer("127.0.0.1:0", registry_with("given")) as server,
        contextlib.ExitStack() as s,
    ):
        host, _, port = server.address.rpartition(":")
        slow = [
            s.enter_context(socket.create_connection((host, int(port)), WAIT)) for _ in range(3)
        ]
        for one in slow:
            one.sendall(b"GET /metrics HT")
        assert get(server.address)[0] == 200  # the fourth
        more = [
            s.enter_context(socket.create_connection((host, int(port)), WAIT)) for _ in range(20)
        ]
        for one in [*slow, *more]:  # closed, by time or by number
            with contextlib.suppress(ConnectionResetError):
                assert one.recv(1) == b""
        assert get(server.address)[0] == 200


def test_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not take is not kept for it: its connection ends."""
    monkeypatch.setattr("dynserve.observe.metrics_server._PATIENCE", 0.5)
    registry = prometheus_client.CollectorRegistry()
    gauge = prometheus_client.Gauge("large", "x", ["label"], registry=registry)
    for number in range(3000):
        gauge.labels(f"{number:>010000}").set(1)  # 30 MB: more than what sockets hold
    with MetricsServer("127.0.0.1:0", registry) as server:
        host, _, port = server.address.rpartition(":")
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(WAIT)
        with connection:
            connection.connect((host, int(port)))
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            connection.recv(1, socket.MSG_PEEK)  # it has begun
            while server._clients:
                threading.Event().wait(0.01)
            got = 0
            with contextlib.suppress(ConnectionResetError):
                while data := connection.recv(65536):
                    got += len(data)
    assert got < 20_000_000


def test_close_ends_connections_and_the_thread() -> None:
    """After close nothing is left: no thread, no connection, and the port is free."""
    before = threading.active_count()
    server = MetricsServer("127.0.0.1:0", registry_with("given"))
    address = server.start()
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), WAIT) as connection:
        connection.sendall(b"GET")
        assert get(address)[0] == 200
        server.close()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    server.close()
    assert threading.active_count() == before
    with MetricsServer(address, registry_with("given")) as second:
        assert get(second.address)[0] == 200
    with pytest.raises(RuntimeError) as caught:
        server.start()
    assert str(caught.value) == "a metrics server starts once; make another MetricsServer"


def test_close_without_start() -> None:
    """A server that never started is closed without a word."""
    MetricsServer("127.0.0.1:0", registry_with("given")).close()


@pytest.mark.parametrize(
    ("address", "problem", "exit_code"),
    [
        ("9100", "expected HOST:PORT or [IPV6]:PORT", 2),
        ("unix:/tmp/x", "expected HOST:PORT or [IPV6]:PORT", 2),
        ("127.0.0.1:99999", "a port is a number from 0 to 65535", 2),
    ],
)
def test_what_is_no_address(address: str, problem: str, exit_code: int) -> None:
    """It is refused when the server is made."""
    with pytest.raises(AddressError) as caught:
        MetricsServer(address)
    assert (str(caught.value), caught.value.exit_code) == (
        f"cannot listen on {address}: {problem}",
        exit_code,
    )


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("203.0.113.1:0", "Cannot assign requested address"),
        ("no.such.host.invalid:0", "the host is not known: …"),
        (f"{'x' * 70}.invalid:0", "the host is not known: …"),
    ],
)
def test_an_address_that_cannot_be_had(address: str, problem: str) -> None:
    """Why is told, as for an address of calls."""
    with pytest.raises(AddressError) as caught:
        MetricsServer(address, registry_with("given")).start()
    said = str(caught.value)
    known, _, _ = problem.partition("…")
    assert said.startswith(f"cannot listen on {address}: {known}")
    assert caught.value.exit_code == 1
    if "…" not in problem:
        assert said == f"cannot listen on {address}: {problem}"


def test_a_port_that_is_taken() -> None:
    """The port is named, and what to write instead."""
    with MetricsServer("127.0.0.1:0", registry_with("given")) as server:
        port = server.address.rpartition(":")[2]
        with pytest.raises(AddressError) as caught:
            MetricsServer(server.address).start()
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: port {port} is taken; port 0 lets the system choose"
    )


def test_ipv6() -> None:
    """An address of IPv6 is written in brackets."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    with MetricsServer("[::1]:0", registry_with("given")) as server:
        assert server.address.startswith("[::1]:")
        assert get(server.address)[0] == 200


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where prometheus-client is missing, what to install is said."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(DynserveError) as caught:
        MetricsServer("127.0.0.1:0")
    assert str(caught.value) == (
        "metrics need the package prometheus-client; write `pip install 'dynserve[prometheus]'`"
    )


# ---- several processes

WORKER = """
import sys
from dynserve.observe import Metrics
from tests.observe.records import record_of
metrics = Metrics()
calls = [record_of() for _ in range(3)]
tokens = [metrics.begin(call) for call in calls]
for call, token in zip(calls[:2], tokens):
    metrics.end(call, token)
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def worker(folder: Path) -> Iterator[int]:
    """A process that counts three calls, of which one is under way; its id."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    child = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env=environment,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child.pid
        finally:
            child.kill()


def counts(address: str) -> dict[str, float]:
    """Started, handled, under way, and the number of durations."""
    found = {}
    for line in get(address)[2].decode().splitlines():
        name, _, value = line.partition("{")
        if name.endswith(("started_total", "handled_total", "in_flight", "seconds_count")):
            found[name.removeprefix("grpc_server_")] = float(value.rpartition(" ")[2])
    return found


def test_workers_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One endpoint for all; those that ended keep their counts, in files that stay few."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    both = {"started_total": 6.0, "handled_total": 4.0, "handling_seconds_count": 4.0}
    with MetricsServer("127.0.0.1:0") as server:
        with worker(tmp_path) as first:
            with worker(tmp_path) as second:
                assert counts(server.address) == {**both, "calls_in_flight": 2.0}
            server.process_ended(second)
            assert counts(server.address) == {**both, "calls_in_flight": 1.0}
        server.process_ended(first)
        assert counts(server.address) == both
        with worker(tmp_path) as third:
            assert counts(server.address) == {
                "started_total": 9.0,
                "handled_total": 6.0,
                "handling_seconds_count": 6.0,
                "calls_in_flight": 1.0,
            }
        server.process_ended(third)
    left = sorted(os.path.basename(path) for path in glob.glob(f"{tmp_path}/*"))
    assert left == ["counter_0.db", "histogram_0.db"]


def test_a_folder_by_name(tmp_path: Path) -> None:
    """The folder can be given; its files that hold other gauges are left as they are."""
    other = tmp_path / "gauge_all_77.db"
    with MetricsServer("127.0.0.1:0", folder=tmp_path) as server:
        with worker(tmp_path) as pid:
            assert counts(server.address)["calls_in_flight"] == 1.0
        other.write_bytes(b"\x08" + b"\x00" * 7)
        server.process_ended(77)
        server.process_ended(pid)
    assert other.exists()


def values_file(path: Path, **values: float) -> None:
    """A file of a process, as prometheus_client writes it: these counters."""
    kind, files = path.name.partition("_")[0], cast("Any", MmapedDict)  # it has no types
    with contextlib.closing(files(str(path))) as file:
        for name, value in values.items():
            file.write_value(json.dumps([name, name, {}, kind]), value, 0.0)


def shown(address: str) -> dict[str, float]:
    """All values of a scrape."""
    status, _, body = get(address)
    assert status == 200
    lines = (line.split(" ") for line in body.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


TORN = {
    "empty": b"",
    "short": b"\x10",
    "cut off": struct.pack("<ii", 4096, 0) + struct.pack("<i", 40) + b"[",
    "too long": struct.pack("<iii", 32, 0, 1000) + b"x" * 20,
    "no text": struct.pack("<iii", 40, 0, 4) + b"\xff\xff\xff\xff" + b" " * 8 + bytes(16),
    "no key": struct.pack("<iii", 40, 0, 4) + b"[1] " + b" " * 8 + bytes(16),
}
LOST = "{} cannot be read, what it counts is lost: {}"


@pytest.mark.parametrize("kind", ["counter", "histogram", "summary"])
@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
def test_a_torn_file_of_a_process_that_ended_is_removed(
    kind: str, torn: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning; its other files count, and so do those of others."""
    path = tmp_path / f"{kind}_77.db"
    path.write_bytes(torn)
    values_file(tmp_path / "gauge_livesum_77.db", under_way=1)
    values_file(tmp_path / "counter_1.db", calls=2)
    with MetricsServer("127.0.0.1:0", folder=tmp_path) as server:
        server.process_ended(77)
        assert shown(server.address) == {"calls": 2.0}
    assert [one.name for one in tmp_path.iterdir()] == ["counter_1.db"]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("dynserve.metrics", "WARNING")
    assert record.getMessage().startswith(LOST.format(path, ""))


def test_a_torn_file_of_a_process_that_runs_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once, not each time that it is asked for; one just made is not torn."""
    torn = tmp_path / "counter_77.db"
    torn.write_bytes(b"\x10")
    (tmp_path / "counter_78.db").touch()
    (tmp_path / "gauge_all_79.db").write_bytes(b"\x10")
    values_file(tmp_path / "counter_1.db", calls=2)
    with MetricsServer("127.0.0.1:0", folder=tmp_path) as server:
        assert [shown(server.address) for _ in range(3)] == [{"calls": 2.0}] * 3
        server.process_ended(77)
        server.process_ended(77)
    assert not torn.exists()
    problem = (
        "error('unpack_from requires a buffer of at least 4 bytes for unpacking 4 bytes at offset 0"
        " (actual buffer size is 1)')"
    )
    files = [torn, tmp_path / "gauge_all_79.db"]
    assert sorted(caplog.messages) == [LOST.format(path, problem) for path in files]


def test_a_torn_sum_is_begun_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What ended before is lost; what ends now, and later, is not."""
    sums = tmp_path / "counter_0.db"
    with MetricsServer("127.0.0.1:0", folder=tmp_path) as server:
        for pid in (1, 2):
            sums.write_bytes(b"\x10")
            values_file(tmp_path / f"counter_{pid}.db", calls=pid)
            server.process_ended(pid)
            assert shown(server.address) == {"calls": pid}
        values_file(tmp_path / "counter_3.db", calls=5, errors=1)
        server.process_ended(3)
        assert shown(server.address) == {"calls": 7.0, "errors": 1.0}
    assert list(tmp_path.iterdir()) == [sums]
    start = LOST.format(sums, "")
    assert [message.startswith(start) for message in caplog.messages] == [True, True]


def test_a_disk_that_is_full_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Room is made before anything is written: a page without it would kill the process."""

    def full(_file: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with MetricsServer("127.0.0.1:0", folder=tmp_path) as server:
        for pid in (1, 2):
            values_file(tmp_path / f"counter_{pid}.db", calls=pid)
        server.process_ended(1)
        with monkeypatch.context() as patch:
            patch.setattr("dynserve.observe.metrics_server._allocate", full)
            server.process_ended(2)
        assert shown(server.address) == {"calls": 3.0}
        server.process_ended(2)
        assert shown(server.address) == {"calls": 3.0}
    assert [one.name for one in tmp_path.iterdir()] == ["counter_0.db"]
    path = tmp_path / "counter_2.db"
    assert caplog.messages == [f"{path} stays as it is: [Errno 28] No space left on device"]


def test_room_is_made_for_all_that_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As much as both files have, and the file does not grow each time."""
    asked: list[int] = []
    server = MetricsServer("127.0.0.1:0", folder=tmp_path)
    allocate = metrics_server._allocate

    def note(file: int, start: int, size: int) -> None:
        asked.append(size)
        allocate(file, start, size)

    monkeypatch.setattr("dynserve.observe.metrics_server._allocate", note)
    label = "x" * 1000
    for pid in range(1, 5):
        values = {f"{label}{'same' if pid > 2 else pid}{one}": 1.0 for one in range(50)}
        values_file(tmp_path / f"counter_{pid}.db", **values)
        server.process_ended(pid)
    (left,) = tmp_path.iterdir()
    one = 50 * 2072  # bytes of what one process counted
    sizes = [2 * one, 3 * one, 4 * one]
    assert [round(size / one) for size in asked] == [2, 3, 4]
    assert (left.stat().st_size, len(asked)) == (asked[-1], len(sizes))


def test_one_process_has_nothing_to_forget() -> None:
    """Without a folder the end of a process changes nothing."""
    with MetricsServer("127.0.0.1:0", registry_with("given")) as server:
        server.process_ended(1)
        assert get(server.address)[0] == 200


def test_who_serves_metrics_needs_no_grpc() -> None:
    """A supervisor of workers imports neither gRPC nor protobuf for it."""
    program = (
        "import sys\n"
        "from dynserve.observe import MetricsServer\n"
        "MetricsServer('127.0.0.1:0')\n"
        "print([name for name in sys.modules if name in ('grpc', 'google.protobuf')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
