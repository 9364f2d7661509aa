"""Servers behind Envoy are restarted under load; bench/rolling.py does it at length."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.real.proxy import envoy_binary
from tests.running import ROOT

pytestmark = pytest.mark.real

SECONDS = 110


@pytest.mark.timeout(SECONDS + 20)
def test_no_call_is_lost_when_servers_are_restarted() -> None:
    """Two servers are stopped by SIGTERM alone and started again, and every call is answered."""
    envoy_binary()
    command = [sys.executable, "bench/rolling.py", "--calls", "1000", "--rounds", "1"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    restarts = re.findall(r"^\| 1 \| (server \d) \|.* (\d+) \|$", done.stdout, re.MULTILINE)
    assert restarts == [("server 1", "0"), ("server 2", "0")], said
    kinds = re.findall(r"^\| (\w+ ?\w*) \| (\d+) \|.* (\d+) \|$", done.stdout, re.MULTILINE)
    assert [kind for kind, _, _ in kinds] == [
        "unary",
        "server stream",
        "client stream",
        "both streams",
        "all",
    ]
    assert all(int(calls) > 0 and failed == "0" for _, calls, failed in kinds), said
    assert int(kinds[-1][1]) >= 1000
