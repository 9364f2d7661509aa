"""What is sent: each load makes `count` calls or messages and says how many seconds they took.

Another load (more connections, a larger payload) is one more object in UNARY or STREAMS.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from measure import Sample
from process import BenchError, Child, Client

H2LOAD_SECONDS = 120
OPEN_STREAMS, MIXED_STREAMS = 1000, 8
MOST_UNARY, MOST_STREAMED = 200_000, 100_000


@dataclass(frozen=True, slots=True)
class Target:
    """A server that runs, and what a load needs to reach it."""

    server: Child
    port: int
    client: Client
    folder: Path

    def ask(self, do: str, count: int = 0) -> dict[str, float]:
        """Has the client do something with the server."""
        return self.client.ask(do, self.server, self.port, count)


class Load(Protocol):
    """A way to keep a server busy."""

    @property
    def name(self) -> str:
        """As it stands in the table."""

    @property
    def least(self) -> int:
        """The fewest calls or messages that make a measurement."""

    @property
    def most(self) -> int:
        """And the most."""

    @property
    def sync(self) -> bool | None:
        """Whether it is for sync handlers alone, for the others alone, or for all (None)."""

    @property
    def figures(self) -> tuple[str, ...]:
        """What run() says beside the seconds."""

    def run(self, target: Target, count: int) -> Sample:
        """Sends that many, waits for all the answers; `seconds` is how long it took."""


@dataclass(frozen=True, slots=True)
class Unary:
    """Unary calls from h2load, a C client that leaves the machine to the server."""

    connections: int
    streams: int
    size: int = 10  # bytes of the string that is sent and comes back
    title: str = ""
    method: str = "Say"
    latency: bool = False  # h2load writes down how long each call took
    sync: bool | None = None
    least: int = 500
    most: int = MOST_UNARY

    @property
    def name(self) -> str:
        """The connections and the calls under way on each."""
        return self.title or f"unary {self.connections}x{self.streams}"

    @property
    def figures(self) -> tuple[str, ...]:
        """The median and the 99th percentile of a call's microseconds."""
        return ("p50", "p99") if self.latency else ()

    def run(self, target: Target, count: int) -> Sample:
        """Fails unless each call came back; that they say OK was checked by a gRPC client."""
        body, log = target.folder / "body.bin", target.folder / "calls.tsv"
        body.write_bytes(_request(self.size))
        log.unlink(missing_ok=True)
        out = subprocess.run(
            [
                *("h2load", "-n", str(count), "-t", "1", "-d", str(body)),
                *("-c", str(self.connections), "-m", str(self.streams)),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                *((f"--log-file={log}",) if self.latency else ()),
                f"http://127.0.0.1:{target.port}/bench.Echo/{self.method}",
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
        return {"seconds": count / float(rate[1]), **(percentiles(log) if self.latency else {})}


def percentiles(log: Path) -> dict[str, float]:
    """Of the microseconds in the third column of h2load's log."""
    taken = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    if not taken:
        raise BenchError("h2load wrote no log")
    return {"p50": taken[len(taken) // 2], "p99": taken[len(taken) * 99 // 100]}


def _request(size: int) -> bytes:
    """A SayRequest with a name of that many bytes, in gRPC's frame; done by hand."""
    left, length = size, bytearray()
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    length.append(left)
    message = b"\n" + bytes(length) + b"x" * size
    return b"\0" + len(message).to_bytes(4, "big") + message


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of many small messages, from the client in C++."""

    action: str
    name: str
    least: int = 2000
    most: int = MOST_STREAMED
    sync: bool | None = None
    figures: tuple[str, ...] = ()

    def run(self, target: Target, count: int) -> Sample:
        """The client counts what comes back, and fails where that is wrong."""
        return target.ask(self.action, count)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Unary calls beside long streams, which have a message there and back every 10 ms."""

    unary: Unary
    name: str = f"unary 8x8 beside {MIXED_STREAMS} streams"
    least: int = 500
    most: int = MOST_UNARY
    sync: bool | None = None
    figures: tuple[str, ...] = ("p50", "p99", "stream p50", "stream p99")

    def run(self, target: Target, count: int) -> Sample:
        """The seconds are those of the unary calls."""
        target.ask("mix", MIXED_STREAMS)
        try:
            sample = self.unary.run(target, count)
        finally:
            echoes = target.ask("unmix")
        return {**sample, "stream p50": echoes["p50"], "stream p99": echoes["p99"]}


@dataclass(frozen=True, slots=True)
class Open:
    """A thousand streams that stay open, on ten connections: a message there and back on each."""

    name: str = f"{OPEN_STREAMS:,} open streams"
    least: int = 2 * OPEN_STREAMS
    most: int = 30 * OPEN_STREAMS
    sync: bool | None = None
    figures: tuple[str, ...] = ("open ms",)

    def run(self, target: Target, count: int) -> Sample:
        """Opening and closing them is not in the seconds, but is in the CPU."""
        opened = target.ask("open", OPEN_STREAMS)["seconds"]
        taken = target.ask("round", max(1, count // OPEN_STREAMS))["seconds"]
        target.ask("close")
        return {"seconds": taken, "open ms": opened * 1000}


UNARY: tuple[Load, ...] = (
    Unary(8, 8),
    Unary(50, 10),
    Unary(1, 1, latency=True),
    Unary(8, 8, 1_000, "unary 8x8, 1 KB"),
    Unary(8, 8, 100_000, "unary 8x8, 100 KB", least=200),
)
STREAMS: tuple[Load, ...] = (
    Stream("down", "stream down"),
    Stream("up", "stream up"),
    Stream("ping", "ping-pong", least=500),
    Stream("pipe", "pipelined"),
)
MIXED: tuple[Load, ...] = (Mixed(Unary(8, 8, latency=True)),)
WAITS: tuple[Load, ...] = (
    Unary(8, 8, 10, "blocks 5 ms, 8x8", "Wait", True, sync=True),
    Unary(50, 10, 10, "awaits 5 ms, 50x10", "Wait", True, sync=False, least=1000),
)
OPEN: tuple[Load, ...] = (Open(),)
