"""`dynserve run` in a process of its own, and the tools that call it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from grpc_health.v1 import health_pb2

__all__ = ["HEALTH_METHODS", "ROOT", "output_of", "running"]

ROOT = Path(__file__).parents[1]
SECONDS = 30

# grpcio-health-checking has List since 1.85.
HEALTH_METHODS = tuple(health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name)


@contextmanager
def running(*targets: str) -> Iterator[str]:
    """``with running("examples/greeter") as address``: at the top of the repository."""
    command = [sys.executable, "-m", "dynserve", "run", *targets, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            yield _address_of(server)
        finally:
            server.terminate()
            try:
                server.communicate(timeout=SECONDS)
            finally:
                server.kill()


def _address_of(server: subprocess.Popen[str]) -> str:
    said = ""
    for line in server.stdout or ():
        said += line
        if line.startswith("Listening on "):
            return line.removeprefix("Listening on ").rstrip("\n")
    raise AssertionError(f"the server ended before it listened:\n{said}")


def output_of(command: Sequence[str]) -> str:
    """All that a command prints; errors come after the rest, as on a terminal."""
    done = subprocess.run(
        command, check=False, capture_output=True, encoding="utf-8", timeout=SECONDS, input=""
    )
    return done.stdout + done.stderr
