"""The fuzzers, with the same cases in every run; ``bench/fuzz.py`` goes on for longer."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.running import ROOT

CASES = 300
SECONDS = 100


def outcomes(name: str, engine: str, *seed: str) -> dict[str, int]:
    """What came of the cases, by the child that ran them."""
    command = [sys.executable, "-m", "tests.fuzz.child", name, engine, str(CASES), *seed]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["cases"] >= CASES
    print(f"{name} on {engine}: {told['cases']} cases, {told['outcomes']}")
    return dict(told["outcomes"])


@pytest.mark.parametrize("engine", ["queue", "aio"])
def test_requests(engine: str) -> None:
    """Any request bytes end with OK, INVALID_ARGUMENT or INTERNAL as the parser and handler say."""
    seen = outcomes("requests", engine)
    assert set(seen) <= {"OK", "INVALID_ARGUMENT", "INTERNAL"}
    assert {"OK", "INVALID_ARGUMENT"} <= set(seen)


@pytest.mark.parametrize("engine", ["queue", "aio"])
def test_metadata(engine: str) -> None:
    """Any headers end with a status, a reset or a closed connection, and harm no other call."""
    seen = outcomes("metadata", engine)
    assert {"OK", "INTERNAL"} <= set(seen)


def test_descriptors() -> None:
    """Any descriptor set loads and is served, or is refused by an error of dynserve's own."""
    seen = outcomes("descriptors", "queue")
    assert {"load: done", "serve: done", "load: DescriptorError", "reflection: done"} <= set(seen)


def test_failure_is_seen() -> None:
    """A fuzzer that finds something says so: the child ends with an error."""
    command = [sys.executable, "-c", BROKEN, "requests", "queue", "20"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 1
    assert "AssertionError: found" in done.stderr


BROKEN = """
import sys
from tests.fuzz import child, fuzzers

def check(self, case):
    assert not case[2][0], "found"

fuzzers.Requests.check = check
sys.exit(child.main())
"""
