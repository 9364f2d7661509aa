"""The results as Markdown, with the versions they were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass, field
from importlib import metadata

from workspace import ROOT

HEAD = """# Benchmark results

Made by `python bench/run.py --write`; figures of different runs do not compare. Each variant was
checked with a gRPC client, then measured in alternation with the others, in the opposite order
each round. Figures are medians of the rounds; a ratio is the median of the ratios within each
round, with its quartiles in brackets. CPU is the server process's own, from /proc. Higher is
better for 'per second' and 'rate', lower for everything else.
"""
PACKAGES = ("dynserve", "grpcio", "grpcio-tools", "protobuf", "uvloop")


@dataclass(slots=True)
class Table:
    """A heading, the names of the columns, and rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]] = field(default_factory=list)

    def markdown(self) -> str:
        """The table, with figures to the right."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in (list(self.columns), rule, *self.rows)]
        return "\n".join([f"## {self.title}", "", *lines, ""])


def versions() -> list[str]:
    """What was measured, and where."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    commit = _output(r"(\S+)", "git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    h2load = _output(r"nghttp2/(\S+)", "h2load", "--version")
    found.append(f"commit {commit}")
    found.append(f"protobuf implementation {_protobuf_implementation()}")
    found.append(f"{platform.python_implementation()} {platform.python_version()}")
    found.append(f"h2load {h2load}")
    found.append(f"{platform.system()} {platform.release()} {platform.machine()}")
    found.append(f"{os.cpu_count()} CPUs ({_cpu_model()})")
    found.append(f"load average at the start {os.getloadavg()[0]:.2f}")
    return found


def _protobuf_implementation() -> str:
    from google.protobuf.internal import api_implementation

    return str(api_implementation.Type())


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as file:
        found = re.search(r"model name\s*: (.*)", file.read())
    return found[1] if found else "unknown model"


def _output(pattern: str, *command: str) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except OSError:
        return "not installed"
    found = re.search(pattern, done.stdout)
    return found[1] if found else "unknown"
