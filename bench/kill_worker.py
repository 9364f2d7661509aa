"""What calls see when a worker is killed, and when all are replaced, under load; as a table.

    python bench/kill_worker.py --workers 4 --clients 16 --seconds 3

Each client has a connection of its own and calls one by one, with no retry; the answers are the
pids of the workers. At the end clients connect anew for every call, for a worker that closes its
listening socket may lose whom it has not accepted yet.

1 where a promise is broken: calls fail of another connection than those of the worker that was
killed, or the workers do not stop by themselves at the end.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from dynserve.workers.entry import become_command
from dynserve.workers.plan import Plan

HERE = Path(__file__).absolute().parent
APP = HERE / "servers" / "worker_app.py"
METHOD = "/workers.Who/Ask"
SECONDS = 30.0  # for whatever is waited for
_REPLACED = re.compile("all workers were replaced")
_READY = re.compile(r"worker (\d+) \(pid (\d+)\) is ready on \S+:(\d+),")


# ---- the clients, in processes of their own


class Caller(threading.Thread):
    """One client: calls until it is told to stop."""

    def __init__(self, address: str, is_new: bool, pause: float, stopped: threading.Event) -> None:
        super().__init__(daemon=True)
        self.ok: collections.Counter[int] = collections.Counter()  # by pid
        self.failed: list[dict[str, Any]] = []
        self.longest = 0.0  # seconds between two answers
        self._address, self._is_new, self._stopped = address, is_new, stopped
        self._pause = pause

    def run(self) -> None:
        last, answered = 0, time.monotonic()
        channel = self._connect()
        while not self._stopped.wait(self._pause):
            if self._is_new:
                channel.close()
                channel = self._connect()
            ask: Any = channel.unary_unary(METHOD)
            try:
                last = _pid(ask(b"", timeout=5))
            except grpc.RpcError as error:
                failure = {"at": time.monotonic(), "pid": last, "said": _said(error)}
                self.failed.append(failure)
            else:
                now = time.monotonic()
                self.longest, answered = max(self.longest, now - answered), now
                self.ok[last] += 1
        channel.close()

    def _connect(self) -> grpc.Channel:
        # Else channels of one process share a connection.
        return grpc.insecure_channel(self._address, options=[("grpc.use_local_subchannel_pool", 1)])

    def told(self) -> dict[str, Any]:
        return {
            "ok": sum(self.ok.values()),
            "pids": list(self.ok),
            "failed": self.failed,
            "longest": self.longest,
        }


def _pid(answer: bytes) -> int:
    """Field 1, a varint."""
    value = 0
    for shift, byte in enumerate(answer[1:]):
        value |= (byte & 0x7F) << (7 * shift)
    return value


def _said(error: Any) -> str:
    return f"{error.code().name}: {error.details()}"


def call(address: str, count: int, is_new: bool, pause: float) -> None:
    """Be some clients until standard input ends; then print what they saw."""
    stopped = threading.Event()
    callers = [Caller(address, is_new, pause, stopped) for _ in range(count)]
    for caller in callers:
        caller.start()
    sys.stdin.read()
    stopped.set()
    for caller in callers:
        caller.join(SECONDS)
    print(json.dumps([caller.told() for caller in callers]))


@contextlib.contextmanager
def clients(
    address: str, options: argparse.Namespace, is_new: bool = False
) -> Iterator[list[dict[str, Any]]]:
    """Clients that call while the block runs; what they saw is in the list after it."""
    seen: list[dict[str, Any]] = []
    words = ["--call", address, "--pause", str(options.pause), *(["--new"] if is_new else [])]
    count, processes = options.clients, options.processes
    shares = [count // processes + (n < count % processes) for n in range(processes)]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *words, "--clients", str(share)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for share in shares
    ]
    try:
        yield seen
        for process in started:  # all at once: the others would go on
            if process.stdin is not None:
                process.stdin.close()
                process.stdin = None
        for process in started:
            seen += json.loads(process.communicate(timeout=2 * SECONDS)[0])
    finally:
        for process in started:
            process.kill()
            process.wait()


# ---- the server


class Server:
    """The supervisor and its workers, and what it logs."""

    def __init__(self, workers: int) -> None:
        plan = Plan((sys.executable, str(APP)), workers, ("127.0.0.1:0",))
        self.process = subprocess.Popen(
            become_command(plan), stderr=subprocess.PIPE, env=_environment()
        )
        self.pids: dict[int, int] = {}  # by worker
        self.port = 0
        self._unread = b""
        self.said: list[str] = []
        for _ in range(workers):
            self.next_ready()

    def lines(self) -> Iterator[str]:
        """What it logs from here on, as it comes, until it and its workers have ended.

        Raises:
            TimeoutError: it says nothing for long.
        """
        pipe = self.process.stderr
        while pipe is not None:
            line, end, rest = self._unread.partition(b"\n")
            if end:
                self._unread = rest
                self.said.append(line.decode())
                yield self.said[-1]
            elif not select.select([pipe], [], [], SECONDS)[0]:
                raise TimeoutError("\n".join(["the supervisor says no more:", *self.said]))
            elif piece := os.read(pipe.fileno(), 65536):
                self._unread += piece
            else:
                return

    def next_ready(self) -> int:
        """Wait until a worker is ready; its pid."""
        number, pid, self.port = map(int, self.wait_for(_READY).groups())
        self.pids[number] = pid
        return pid

    def wait_for(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait until a line like this is logged."""
        for line in self.lines():
            if match := pattern.search(line):
                return match
        raise RuntimeError("\n".join(["the supervisor has ended:", *self.said]))

    def close(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        try:
            for _ in self.lines():
                pass
            return self.process.wait(SECONDS)
        finally:
            self.process.kill()  # its workers see it, and stop
            self.process.wait()
            if self.process.stderr is not None:
                self.process.stderr.close()


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}


# ---- the figures


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All scenes, each as a row of figures."""
    server = Server(options.workers)
    try:
        address = f"127.0.0.1:{server.port}"
        rows = []
        for kill in range(options.kills):
            with clients(address, options) as seen:
                time.sleep(options.seconds)
                victim = server.pids[1 + kill % options.workers]
                killed = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                successor = server.next_ready()
                back = time.monotonic() - killed
                time.sleep(options.seconds)
            rows.append(_kill_row(seen, victim, successor, back))
        for is_new in (False, True):
            with clients(address, options, is_new) as seen:
                time.sleep(options.seconds)
                started = time.monotonic()
                server.process.send_signal(signal.SIGHUP)
                server.wait_for(_REPLACED)
                took = time.monotonic() - started
                time.sleep(options.seconds)
            rows.append(_roll_row(seen, is_new, took))
    finally:
        code = server.close()
        if code:
            print(*server.said, sep="\n", file=sys.stderr)
    return [*rows, {"scene": "stop", "code": code}]


def _kill_row(seen: Sequence[Any], victim: int, successor: int, back: float) -> dict[str, Any]:
    failures = [(client, failure) for client in seen for failure in client["failed"]]
    others = [client for client in seen if victim not in client["pids"]]
    return {
        "scene": "kill -9",
        "calls": sum(client["ok"] for client in seen),
        "connected": sum(victim in client["pids"] for client in seen),
        "clients": len(seen),
        "failed": len(failures),
        "failed_clients": sum(bool(client["failed"]) for client in seen),
        "failed_elsewhere": sum(failure["pid"] != victim for _, failure in failures),
        "said": sorted({failure["said"] for _, failure in failures}),
        "longest_elsewhere": max((client["longest"] for client in others), default=0.0),
        "back": back,
        "successor": successor,
    }


def _roll_row(seen: Sequence[Any], is_new: bool, took: float) -> dict[str, Any]:
    failures = [failure for client in seen for failure in client["failed"]]
    return {
        "scene": "SIGHUP, a connection for each call" if is_new else "SIGHUP",
        "calls": sum(client["ok"] for client in seen),
        "clients": len(seen),
        "failed": len(failures),
        "failed_clients": sum(bool(client["failed"]) for client in seen),
        "said": sorted({failure["said"] for failure in failures}),
        "longest": max(client["longest"] for client in seen),
        "took": took,
    }


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rows for people."""
    yield "| What | Calls | Failed | of clients | on other connections | Longest pause | Took |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for row in rows[:-1]:
        of = row.get("connected", row["clients"])
        took = row.get("back", row.get("took", 0.0))
        pause = row.get("longest_elsewhere", row.get("longest", 0.0))
        yield (
            f"| {row['scene']} | {row['calls']:,} | {row['failed']} | {row['failed_clients']} of"
            f" {of} | {row.get('failed_elsewhere', '-')} | {1000 * pause:.0f} ms | {took:.2f} s |"
        )
    for said in sorted({said for row in rows[:-1] for said in row["said"]}):
        yield f"- {said}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2, help="of the clients")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load before and after")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.005, help="seconds between two calls")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--call", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--new", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        call(options.call, options.clients, options.new, options.pause)
        return 0
    rows = measure(options)
    print(json.dumps(rows) if options.json else "\n".join(table(rows)))
    return int(any(row.get("failed_elsewhere") for row in rows) or rows[-1]["code"] != 0)


if __name__ == "__main__":
    sys.exit(main())
