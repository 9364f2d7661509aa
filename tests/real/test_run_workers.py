"""Workers as users start them: by a flag, a variable, or an argument, with all that serves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.echo import ECHO
from tests.real.programs import SECONDS, Program, channel_to, is_there, number_from
from tests.running import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")

PLUGIN = f"""
import os
from dynserve import App

app = App({ECHO!r}SETTINGS)

@app.rpc("echo.Echo/Unary")
def unary(request):
    return {{"number": os.getpid()}}
"""
PROGRAM = f"""{PLUGIN}
if __name__ == "__main__":
    app.run("127.0.0.1:0"ARGUMENTS)
"""
# As app.run() does it; a handler has no other way to its server.
OWN_SERVER = f"""{PLUGIN}
from dynserve.workers.link import Link
from dynserve.workers.start import supervise

@app.rpc("echo.Echo/Down")
async def down(request):
    await server.set_health(request.text, bool(request.number))
    yield {{"number": os.getpid()}}

if __name__ == "__main__":
    link = Link.of_environment()
    supervise(app.settings_with({{"workers": 2}}), ["127.0.0.1:0"], link)
    server = app.server(link=link)
    server.run_forever(lambda: print("Listening on", server.addresses[0], flush=True))
"""
RUN = (sys.executable, "-m", "dynserve", "run", "plugin.py")
NAMES = ("flag", "variable", "plugin's own", "app.run")


@pytest.fixture(params=["queue", "aio"], autouse=True)
def engine_of_workers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test runs on both engines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNSERVE_ENGINE", request.param)
        yield


@contextlib.contextmanager
def started(folder: Path, how: str = "flag", *words: str) -> Iterator[Program]:
    """Two workers, in one of the ways that there are."""
    own = ", workers=2" if how == "plugin's own" else ""
    (folder / "plugin.py").write_text(PLUGIN.replace("SETTINGS", own))
    text = PROGRAM.replace("SETTINGS", "").replace("ARGUMENTS", ", workers=2")
    (folder / "program.py").write_text(text)
    command: tuple[str, ...] = (*RUN, "--listen", "127.0.0.1:0", *words)
    if how == "flag":
        command = (*command, "--workers", "2")
    elif how == "app.run":
        command = (sys.executable, "program.py")
    env = {"DYNSERVE_WORKERS": "2"} if how == "variable" else {}
    with Program.of(command, folder, env) as program:
        yield program


def pids_of(address: str, enough: Callable[[set[int]], bool] = lambda pids: len(pids) == 2) -> Any:
    """The processes that answer, each connection being one's; until there are enough."""
    pids: set[int] = set()
    until = time.monotonic() + SECONDS
    while not enough(pids):
        assert time.monotonic() < until, f"only {pids} answered"
        with channel_to(address) as channel:
            pids.add(number_from(channel))
    return pids


@pytest.mark.parametrize("how", NAMES)
def test_two_processes_answer_and_stop(tmp_path: Path, how: str) -> None:
    """What is served is said once; SIGTERM ends all of them with 0."""
    with started(tmp_path, how) as program:
        address = program.address()
        pids = pids_of(address)
        supervisor = program.process.pid
        assert supervisor not in pids
        program.signal(signal.SIGTERM)
        assert program.code() == 0
        said = [program.count(r"^Listening on "), program.count(r"Traceback")]
        assert said == [1, 0], program.lines
    assert not any(map(is_there, (*pids, supervisor)))
    with channel_to(address) as channel, pytest.raises(grpc.RpcError) as caught:
        number_from(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    """The other goes on, and another process answers in its place."""
    with started(tmp_path) as program:
        address = program.address()
        before = pids_of(address)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        program.expect(rf"WARNING dynserve\.workers: worker \d \(pid {killed}\) .*SIGKILL")
        new = int(program.expect(r"INFO dynserve\.workers: worker \d \(pid (\d+)\) is ready")[1])
        # That of the other worker may have been written just now, too.
        while new in before:
            new = int(program.expect(r"dynserve\.workers: worker \d \(pid (\d+)\) is ready")[1])
        now = pids_of(address)
        assert now == before - {killed} | {new}
        program.signal(signal.SIGTERM)
        assert program.code() == 0
    assert not any(map(is_there, before | now))


RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}


def test_a_client_that_retries_does_not_notice_a_roll(tmp_path: Path) -> None:
    """SIGHUP replaces all processes; every call of it is answered, by old ones and by new ones."""
    over, seen, failed = threading.Event(), set(), []

    def work(address: str) -> None:
        options = ("grpc.service_config", json.dumps(RETRIES))
        with channel_to(address, options) as channel:
            while not over.is_set():
                try:
                    seen.add(number_from(channel))
                except grpc.RpcError as error:
                    failed.append(error)

    with started(tmp_path) as program:
        address = program.address()
        before = pids_of(address)
        clients = [threading.Thread(target=work, args=(address,)) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            program.signal(signal.SIGHUP)
            program.expect(r"INFO dynserve\.workers: all workers were replaced")
            now = pids_of(address)
        finally:
            over.set()
            for client in clients:
                client.join(SECONDS)
        assert failed == []
        assert not now & before
        assert seen <= now | before
        assert seen & now
        assert not any(map(is_there, before))
        program.signal(signal.SIGTERM)
        assert program.code() == 0


def test_health_of_one_is_told_by_all(tmp_path: Path) -> None:
    """What a handler reports in one process, both say; so they do when it takes it back."""
    (tmp_path / "program.py").write_text(OWN_SERVER.replace("SETTINGS", ""))
    Status = health_pb2.HealthCheckResponse
    with Program.of([sys.executable, "program.py"], tmp_path) as program:
        address = program.address()
        pids_of(address)
        with contextlib.ExitStack() as stack:
            channels: dict[int, grpc.Channel] = {}
            while len(channels) < 2:
                channel = stack.enter_context(channel_to(address))
                channels.setdefault(number_from(channel), channel)
            watches = []
            for channel in channels.values():
                stub: Any = health_pb2_grpc.HealthStub(channel)
                request = health_pb2.HealthCheckRequest(service="echo.Echo")
                watches.append(stub.Watch(request, timeout=SECONDS))
            told = [[next(watch).status for watch in watches]]
            setter: Any = next(iter(channels.values())).unary_stream("/echo.Echo/Down")
            for health in (b"\x12\x09echo.Echo", b"\x08\x01\x12\x09echo.Echo"):
                list(setter(health, timeout=SECONDS))
                told.append([next(watch).status for watch in watches])
            for watch in watches:
                watch.cancel()
        assert told == [[Status.SERVING] * 2, [Status.NOT_SERVING] * 2, [Status.SERVING] * 2]
        program.signal(signal.SIGTERM)
        assert program.code() == 0


def counted(metrics: str) -> float:
    """How many calls of the method ended with OK, by all workers; 0 before the first."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=SECONDS) as response:
        lines = response.read().decode().splitlines()
    name = 'grpc_server_handled_total{grpc_code="OK",grpc_method="Unary",'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def wait_for_count(metrics: str, number: float) -> None:
    """A call is counted when its response has been sent."""
    until = time.monotonic() + SECONDS
    while (found := counted(metrics)) != number:
        assert found < number, f"{found} calls were counted, of {number}"
        assert time.monotonic() < until, f"{found} calls were counted, not {number}"


def test_metrics_of_all_are_at_one_address(tmp_path: Path) -> None:
    """They are added up, and what a killed worker had counted stays."""
    with started(tmp_path, "flag", "--metrics", "127.0.0.1:0") as program:
        metrics = program.expect(r"metrics of all workers on http://(\S+)/metrics")[1]
        address = program.address()
        calls: dict[int, int] = {}
        until = time.monotonic() + SECONDS
        while len(calls) < 2 or sum(calls.values()) < 40:  # the second may not be ready yet
            assert time.monotonic() < until, f"only {calls} answered"
            with channel_to(address) as channel:
                pid = number_from(channel)
            calls[pid] = calls.get(pid, 0) + 1
        wait_for_count(metrics, sum(calls.values()))
        killed = min(calls)
        os.kill(killed, signal.SIGKILL)
        program.expect(rf"worker \d \(pid {killed}\) .*SIGKILL")
        wait_for_count(metrics, sum(calls.values()))
        with channel_to(address) as channel:
            number_from(channel)
        wait_for_count(metrics, sum(calls.values()) + 1)
        program.signal(signal.SIGTERM)
        assert program.code() == 0
    with pytest.raises(OSError, match="refused"):
        counted(metrics)


# ---- what goes wrong


def failed(folder: Path, *command: str, **env: str) -> tuple[int, str, str]:
    """Exit code, standard output, and standard error of a server that cannot be."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return done.returncode, done.stdout, done.stderr


UNIX = (
    "Error: cannot listen on unix:s: workers cannot share a unix socket, of which there is one for"
    " each path; give a HOST:PORT, or run without workers\n"
)


def test_a_unix_socket_is_refused(tmp_path: Path) -> None:
    """By the flag, the variable and the argument; the text says what to write, the code is 2."""
    (tmp_path / "plugin.py").write_text(PLUGIN.replace("SETTINGS", ""))
    program = PROGRAM.replace("SETTINGS", "").replace('"127.0.0.1:0"ARGUMENTS', '"unix:s"')
    (tmp_path / "program.py").write_text(program)
    found = [
        failed(tmp_path, *RUN, "--workers", "2", "--listen", "unix:s"),
        failed(tmp_path, *RUN, "--listen", "unix:s", DYNSERVE_WORKERS="2"),
        failed(tmp_path, sys.executable, "program.py", DYNSERVE_WORKERS="2"),
    ]
    assert found == [(2, "", UNIX)] * 3
    assert not (tmp_path / "s").exists()


def test_a_number_of_workers_that_is_none(tmp_path: Path) -> None:
    """The variable is named, as it is for any other setting."""
    (tmp_path / "plugin.py").write_text(PLUGIN.replace("SETTINGS", ""))
    assert failed(tmp_path, *RUN, DYNSERVE_WORKERS="0") == (
        2,
        "",
        "Error: got DYNSERVE_WORKERS='0', expected a whole number, at least 1\n",
    )


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        (
            '\napp.add(unary, "echo.Echo/Unari")\n',
            "no method 'Unari' in service 'echo.Echo'; did you mean 'Unary'?",
        ),
        ("\nraise ValueError('a mistake')\n", "ValueError: a mistake"),
    ],
)
def test_a_mistake_is_told_once(tmp_path: Path, mistake: str, error: str) -> None:
    """As by one process, with its exit code; no second worker is started."""
    (tmp_path / "plugin.py").write_text(PLUGIN.replace("SETTINGS", "") + mistake)
    listen = ("--listen", "127.0.0.1:0")
    code, out, alone = failed(tmp_path, *RUN, *listen)
    assert error in alone
    of_workers = failed(tmp_path, *RUN, *listen, "--workers", "2")
    told = [line for line in of_workers[2].splitlines(True) if " dynserve.workers: " not in line]
    logged = [
        line.partition(" dynserve.workers: ")[2]
        for line in of_workers[2].splitlines()
        if " ERROR dynserve.workers: " in line
    ]
    assert (of_workers[:2], "".join(told)) == ((code, out), alone)
    (line,) = logged
    assert line.endswith(f" ended with exit code {code} before it was ready; no other is started")


# ---- the end


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT,) * 2],
    ids=["SIGTERM twice", "SIGTERM and SIGINT", "SIGINT twice"],
)
def test_who_has_no_patience_does_not_wait_for_load_balancers(
    tmp_path: Path, numbers: tuple[signal.Signals, ...]
) -> None:
    """A second signal ends workers at once, as it does one process."""
    with started(tmp_path, "flag", "--drain-wait", "600", "--grace", "600") as program:
        pids = pids_of(program.address())
        for number in numbers:
            program.signal(number)
            program.expect(rf"INFO dynserve\.workers: {number.name}")
        assert program.code() == 0
    assert not any(map(is_there, pids))


def test_workers_wait_for_load_balancers(tmp_path: Path) -> None:
    """SIGTERM: all say NOT_SERVING, and serve on for the time that is set."""
    status = health_pb2.HealthCheckResponse
    with (
        started(tmp_path, "flag", "--drain-wait", "2") as program,
        contextlib.ExitStack() as stack,
    ):
        address = program.address()
        pids_of(address)
        channels: dict[int, grpc.Channel] = {}
        while len(channels) < 2:
            channel = stack.enter_context(channel_to(address))
            channels.setdefault(number_from(channel), channel)
        watches: list[Any] = []
        for channel in channels.values():
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watches.append(stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS))
        told = [[next(watch).status for watch in watches]]
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        told.append([next(watch).status for watch in watches])
        served = {number_from(channel) for channel in channels.values()}
        assert program.code() == 0
        waited = time.monotonic() - began
    assert told == [[status.SERVING] * 2, [status.NOT_SERVING] * 2]
    assert served == set(channels)
    assert waited > 1.9
