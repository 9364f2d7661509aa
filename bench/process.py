"""The child processes of a run: the object that starts one also asks and ends it."""

from __future__ import annotations

import json
import os
import random
import select
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 3.0
ANSWER_SECONDS = 120.0


class BenchError(Exception):
    """Something that makes the figures worthless; the run ends with it."""


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
        """SIGTERM, and SIGKILL where that is not enough."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def require_alive(self) -> None:
        """Raises BenchError with the end of the log where the process has ended by itself."""
        if (code := self.process.poll()) is not None:
            tail = self.log.read_text(errors="replace")[-3000:]
            raise BenchError(f"{self.process.args!r} ended with {code}:\n{tail}")

    def cpu_seconds(self) -> float:
        """User and system time so far, of the process and of its children that have ended."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS


class Client(Child):
    """A running client.py."""

    def __init__(self, python: str, env: Mapping[str, str], log: Path) -> None:
        script = str(Path(__file__).with_name("client.py"))
        pipe = subprocess.PIPE
        super().__init__([python, script], env, log, stdin=pipe, stdout=pipe)

    def send(self, do: str, port: int, count: int = 0) -> None:
        """Asks for something; receive() has the answer."""
        pipe = self.process.stdin
        if pipe is None:
            raise BenchError("the client has no stdin")
        pipe.write(json.dumps({"do": do, "port": port, "count": count}).encode() + b"\n")
        pipe.flush()

    def receive(self, server: Child) -> dict[str, float]:
        """The answer to the last send(), as long as both processes live."""
        pipe = self.process.stdout
        if pipe is None:
            raise BenchError("the client has no stdout")
        deadline = time.monotonic() + ANSWER_SECONDS
        # One answer is due at a time, so nothing can hide in the pipe's buffer.
        while not select.select([pipe], [], [], 0.2)[0]:
            server.require_alive()
            self.require_alive()
            if time.monotonic() > deadline:
                raise BenchError(
                    f"no answer in {ANSWER_SECONDS:.0f} s from {server.process.args!r}"
                )
        line = pipe.readline()
        if not line:
            self.process.wait(STOP_SECONDS)
            self.require_alive()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{server.process.args!r}: {answer['error']}")
        return answer

    def ask(self, do: str, server: Child, port: int, count: int = 0) -> dict[str, float]:
        """send() and receive()."""
        self.send(do, port, count)
        return self.receive(server)
