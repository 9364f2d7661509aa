"""What is sent: each load makes `count` calls or messages and says how many seconds they took.

Another load (more connections, a larger payload, a client in C++) is one more object in UNARY or
STREAMS.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from process import BenchError, Child, Client

H2LOAD_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Target:
    """A server that runs, and what a load needs to reach it."""

    server: Child
    port: int
    client: Client
    folder: Path


class Load(Protocol):
    """A way to keep a server busy."""

    @property
    def name(self) -> str:
        """As it stands in the table."""

    @property
    def least(self) -> int:
        """The fewest calls or messages that make a measurement."""

    def run(self, target: Target, count: int) -> float:
        """Sends that many, waits for all the answers, and returns the seconds it took."""


@dataclass(frozen=True, slots=True)
class Unary:
    """Unary calls from h2load, a C client that leaves the machine to the server."""

    connections: int
    streams: int
    message: bytes = b"\n\x05world"
    least: int = 500

    @property
    def name(self) -> str:
        """The connections and the calls under way on each."""
        return f"unary {self.connections}x{self.streams}"

    def run(self, target: Target, count: int) -> float:
        """Fails unless each call came back; that they say OK was checked by a gRPC client."""
        body = target.folder / "body.bin"
        body.write_bytes(b"\0" + len(self.message).to_bytes(4, "big") + self.message)
        out = subprocess.run(
            [
                *("h2load", "-n", str(count), "-t", "1", "-d", str(body)),
                *("-c", str(self.connections), "-m", str(self.streams)),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                f"http://127.0.0.1:{target.port}/bench.Echo/Say",
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=H2LOAD_SECONDS,
        ).stdout
        good = re.search(r"(\d+) succeeded", out)
        rate = re.search(r"([\d.]+) req/s", out)
        if not good or not rate or int(good[1]) != count or not float(rate[1]):
            raise BenchError(f"{self.name}: not all of {count} calls succeeded:\n{out[-2000:]}")
        return count / float(rate[1])


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of many small messages, from client.py."""

    action: str
    name: str
    least: int = 3000

    def run(self, target: Target, count: int) -> float:
        """The client counts what comes back, and fails where that is wrong."""
        return target.client.ask(self.action, target.server, target.port, count)["seconds"]


UNARY = (Unary(8, 8), Unary(1, 1))
STREAMS = (
    Stream("down", "stream down"),
    Stream("up", "stream up"),
    Stream("ping", "ping-pong"),
)
