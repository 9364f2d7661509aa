"""What hostile peers cost a server: memory, the next honest call, and what the attacker saw.

    python bench/hostile.py --engine queue aio --times 3 --write docs/hardening.md

Each server is a process of its own with nothing but its defaults (or --settings). Each attack runs
some times in a row. Memory is the resident set before, the most, after the first and after the last
of them, so that what only warms up is told from what grows. The honest call is the slowest of those
on a connection that was open and on a new one, made while the attack is under way. Ends with 1
where an honest call failed, or where descriptors or memory were kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import google.protobuf
import grpc

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.wire.attacks import ATTACKS, Attack  # noqa: E402 - the tests' own attacks
from tests.wire.honest import Honest  # noqa: E402

KEPT_MEGABYTES = 30.0  # more than that from the first attack to the last is a leak
SETTLES = 5.0  # seconds for connections to be gone
BEGIN, END = "<!-- hostile: begin -->", "<!-- hostile: end -->"


class Row(NamedTuple):
    """The figures of one attack."""

    attack: str
    engine: str
    name: str
    before: float
    peak: float
    first: float  # after the first
    after: float  # after the last
    honest: float | None
    files: int
    seen: str

    @property
    def is_fine(self) -> bool:
        """Whether others were served, and nothing was kept."""
        kept = self.after - self.first
        return self.honest is not None and kept < KEPT_MEGABYTES and self.files <= 0

    def line(self) -> str:
        """A line of the table."""
        honest = "FAILED" if self.honest is None else f"{self.honest * 1000:.0f} ms"
        figures = (self.before, self.peak, self.first, self.after)
        memory = " | ".join(f"{megabytes:.0f}" for megabytes in figures)
        return f"| {self.name} | {self.engine} | {memory} | {honest} | {self.seen} |"


class Target:
    """The server in a process of its own."""

    def __init__(self, engine: str, settings: str) -> None:
        command = [sys.executable, "-m", "tests.wire.served", engine, settings]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        if not self.address:
            raise SystemExit(f"FAILED: {' '.join(command)} did not start")
        self._folder = Path(f"/proc/{self._process.pid}")

    def megabytes(self, field: str = "VmRSS") -> float:
        """Resident memory, now or (VmHWM) at most."""
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1000

    def forget_peak(self) -> None:
        """Begin to measure the most anew."""
        (self._folder / "clear_refs").write_text("5")

    def files(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(self._folder / "fd"))

    def stop(self) -> None:
        """SIGTERM; it has to end by it."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise SystemExit("FAILED: the server did not stop") from None


@contextmanager
def serving(engine: str, settings: str) -> Iterator[Target]:
    """A server for a while."""
    target = Target(engine, settings)
    try:
        yield target
    finally:
        target.stop()


def measure(target: Target, attack: Attack, count: int, times: int, engine: str) -> Row:
    """Run one attack some times."""
    before, files, seen = target.megabytes(), target.files(), ""
    slowest, failed, after = 0.0, "", []
    target.forget_peak()
    for _ in range(times):
        with Honest(target.address) as honest, attack.run(target.address, count) as tells:
            try:
                slowest = max(slowest, honest.answered())
            except grpc.RpcError as error:
                failed = f"honest call: {error.code().name}; "
            seen = tells()
        deadline = time.monotonic() + SETTLES
        while target.files() > files and time.monotonic() < deadline:
            time.sleep(0.02)
        after.append(target.megabytes())
    memory = before, target.megabytes("VmHWM"), after[0], after[-1]
    name = f"{attack.name}, {count:,}"
    took = None if failed else slowest
    return Row(attack.name, engine, name, *memory, took, target.files() - files, failed + seen)


def table(rows: list[Row]) -> str:
    """The figures, as Markdown."""
    versions = f"grpcio {grpc.__version__}, protobuf {google.protobuf.__version__}, Python "
    versions += ".".join(map(str, sys.version_info[:3]))
    head = [
        f"{versions}, {os.cpu_count()} cores. Memory in MB.",
        "",
        "| attack | engine | before | peak | after one | after all | honest call | attacker saw |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    return "\n".join([*head, *(row.line() for row in rows)])


def write(path: Path, text: str) -> None:
    """Put the table between its marks."""
    before, _, rest = path.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", nargs="+", default=["queue", "aio"], choices=["queue", "aio"])
    parser.add_argument("--times", type=int, default=3, help="in a row")
    parser.add_argument("--scale", type=float, default=1.0, help="of every attack's size")
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    parser.add_argument("--settings", default="{}", help="of app.server, as JSON")
    parser.add_argument("--write", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    json.loads(arguments.settings)
    rows: list[Row] = []
    for engine in arguments.engine:
        with serving(engine, arguments.settings) as target:
            for attack in ATTACKS:
                if arguments.only not in attack.name:
                    continue
                count = max(1, int(attack.size * arguments.scale))
                rows.append(measure(target, attack, count, arguments.times, engine))
                print(rows[-1].line(), file=sys.stderr, flush=True)
    names = [attack.name for attack in ATTACKS]
    rows.sort(key=lambda row: names.index(row.attack))
    print(table(rows))
    if arguments.write:
        write(arguments.write, table(rows))
    bad = [row for row in rows if not row.is_fine]
    for row in bad:
        print(f"FAILED: {row}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
