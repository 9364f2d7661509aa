"""The child processes of a run: the object that starts one also asks and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 3.0
ANSWER_SECONDS = 120.0
SAMPLE_SECONDS = 0.01  # between two looks at the memory of a command


class BenchError(Exception):
    """Something that makes a figure worthless."""


def free_port() -> int:
    """A port nobody listens on, outside the range from which the kernel takes client ports.

    In that range a client that tries again and again can get connected to itself.
    """
    for port in random.sample(range(20000, 32000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise BenchError("no free port between 20000 and 32000")


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has run, with what it printed and used."""

    output: str
    seconds: float
    cpu_seconds: float
    peak_megabytes: float


class Child:
    """One process, whose stderr goes to a log file; close() ends it."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], log: Path, **pipes: Any
    ) -> None:
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                argv,
                env=dict(env),
                stderr=stderr,
                # Ctrl-C is for the harness, which then ends its children one by one.
                start_new_session=True,
                **{"stdin": subprocess.DEVNULL, "stdout": stderr, **pipes},
            )

    def close(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough: for it, and for what it left behind."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the session that it leads
        self.process.wait()

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def require_alive(self) -> None:
        """Raises BenchError with the end of the log where the process has ended by itself."""
        if (code := self.process.poll()) is not None:
            tail = self.log.read_text(errors="replace")[-3000:]
            raise BenchError(f"{self.process.args!r} ended with {code}:\n{tail}")

    def cpu_seconds(self) -> float:
        """User and system time so far, of the process and all its children, ended or not."""
        total = 0
        for pid in _tree(self.process.pid):
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text()
                total += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
        return total / TICKS

    def reset_peak(self) -> None:
        """Forgets how large it was, for peak_megabytes()."""
        for pid in _tree(self.process.pid):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_megabytes(self) -> float:
        """The most resident memory since reset_peak(), its children's too."""
        return sum(_peak_kilobytes(pid) for pid in _tree(self.process.pid)) / 1000


def _tree(pid: int) -> Iterator[int]:
    """The process and all that descend from it."""
    yield pid
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in path.read_text().split():
                yield from _tree(int(child))


def _peak_kilobytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def run_to_end(argv: Sequence[str], env: Mapping[str, str], log: Path, seconds: float) -> Ended:
    """Runs a command; raises BenchError where it fails or takes longer than that."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, start = 0.0, time.monotonic()
    child = Child(argv, env, log, stdout=subprocess.PIPE)
    pidfd = os.pidfd_open(child.process.pid)
    try:
        while not select.select([pidfd], [], [], SAMPLE_SECONDS)[0]:
            peak = max(peak, child.peak_megabytes())
            if time.monotonic() > start + seconds:
                raise BenchError(f"{argv[0]!r}: no end after {seconds:.0f} s")
        took = time.monotonic() - start
    finally:
        os.close(pidfd)
        if not child.alive():
            code = child.process.returncode
        else:
            child.close()
            code = None
    if code:
        tail = log.read_text(errors="replace").strip()[-1000:] or "no output"
        raise BenchError(f"{argv[:3]!r} ended with {code}: {tail}")
    pipe = child.process.stdout
    with pipe if pipe is not None else contextlib.nullcontext():
        output = pipe.read().decode() if pipe is not None else ""
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(output, took, cpu, peak)


class Client(Child):
    """A running client that answers lines of JSON: client.py, or the one in C++."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        pipe = subprocess.PIPE
        super().__init__(argv, env, log, stdin=pipe, stdout=pipe)
        self._due = 0  # answers that have not been read

    def send(self, do: str, port: int, count: int = 0) -> None:
        """Asks for something; receive() has the answer."""
        while self._due:  # of something that was given up when its server ended
            self._line(None)
        pipe = self.process.stdin
        if pipe is None:
            raise BenchError("the client has no stdin")
        pipe.write(json.dumps({"do": do, "port": port, "count": count}).encode() + b"\n")
        pipe.flush()
        self._due += 1

    def receive(self, server: Child) -> dict[str, float]:
        """The answer to the last send(), as long as both processes live."""
        answer: dict[str, Any] = json.loads(self._line(server))
        if "error" in answer:
            raise BenchError(f"{server.process.args!r}: {answer['error']}")
        return answer

    def ask(self, do: str, server: Child, port: int, count: int = 0) -> dict[str, float]:
        """send() and receive()."""
        self.send(do, port, count)
        return self.receive(server)

    def _line(self, server: Child | None) -> bytes:
        pipe = self.process.stdout
        if pipe is None:
            raise BenchError("the client has no stdout")
        deadline = time.monotonic() + ANSWER_SECONDS
        # One answer is due at a time, so nothing can hide in the pipe's buffer.
        while not select.select([pipe], [], [], 0.2)[0]:
            self.require_alive()
            if server is not None:
                server.require_alive()
            if time.monotonic() > deadline:
                raise BenchError(f"no answer in {ANSWER_SECONDS:.0f} s")
        line = bytes(pipe.readline())
        if not line:
            self.process.wait(STOP_SECONDS)
            self.require_alive()
        self._due -= 1
        return line
