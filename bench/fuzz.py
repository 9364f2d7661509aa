"""Fuzz for longer: request bytes, metadata, descriptor sets; 1 where something was found.

    python bench/fuzz.py --seconds 600
    python bench/fuzz.py --cases 10000 --only requests --engine aio --seed 7

Each batch of cases runs in a process of its own with the next seed, so that a crash is seen, and
can be had again: ``python -m tests.fuzz.child NAME ENGINE CASES SEED``.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("requests", "metadata", "descriptors")
BATCH = 500
BATCH_SECONDS = 300


class Tally:
    """What came of all the batches of one fuzzer on one engine."""

    def __init__(self, name: str, engine: str) -> None:
        self.name, self.engine = name, engine
        self.cases = 0
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.found: list[str] = []

    def run(self, cases: int, seed: int) -> None:
        """One batch."""
        arguments = [self.name, self.engine, str(cases), str(seed)]
        command = [sys.executable, "-m", "tests.fuzz.child", *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=BATCH_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.found.append(f"{' '.join(arguments)}: no end after {BATCH_SECONDS} s")
            return
        if done.returncode:
            how = f"signal {-done.returncode}" if done.returncode < 0 else "a failure"
            self.found.append(f"{' '.join(arguments)}: {how}\n{done.stderr[-3000:]}")
            return
        told = json.loads(done.stdout)
        self.cases += told["cases"]
        self.outcomes.update(told["outcomes"])

    def __str__(self) -> str:
        found = f"{self.cases:,} cases, {len(self.found)} found"
        seen = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common())
        return f"{self.name} on {self.engine}: {found} ({seen})"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", nargs="+", default=["queue", "aio"], choices=["queue", "aio"])
    parser.add_argument("--only", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--seconds", type=float, default=0, help="in all; batches are finished")
    parser.add_argument("--cases", type=int, default=BATCH, help="of each, without --seconds")
    parser.add_argument("--seed", type=int, default=1, help="of the first batch")
    arguments = parser.parse_args()
    tallies = [
        Tally(name, engine)
        for name in arguments.only
        for engine in arguments.engine
        if name != "descriptors" or engine == arguments.engine[0]  # they reach no engine
    ]
    start, seed, done = time.monotonic(), arguments.seed, 0
    while True:
        batch = BATCH if arguments.seconds else min(BATCH, arguments.cases - done)
        for tally in tallies:
            tally.run(batch, seed)
        done, seed = done + batch, seed + 1
        passed = time.monotonic() - start
        total = sum(tally.cases for tally in tallies)
        print(f"{passed:5.0f} s, {total:,} cases", file=sys.stderr)
        if passed >= arguments.seconds and (arguments.seconds or done >= arguments.cases):
            break
    for tally in tallies:
        print(tally)
        for problem in tally.found:
            print("FOUND", problem)
    total = sum(tally.cases for tally in tallies)
    print(f"{total:,} cases in {time.monotonic() - start:.0f} s")
    return 1 if any(tally.found for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
