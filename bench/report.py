"""A run's results: kept as JSON, shown as Markdown, with the versions they were measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import variants
from measure import Section, median, ratio
from workspace import ROOT

HEAD = """# Benchmark results

Made by `python bench/run.py --write`; figures of different runs do not compare. Each variant was
checked with a gRPC client, then measured in alternation with the others, in the opposite order
each round. Figures are medians of the rounds; a ratio is the median of the ratios within each
round, with its quartiles in brackets. CPU and memory are those of the server's processes, from
/proc; CPU is µs for each call or message, memory the most that was resident under this load.
Higher is better for 'per second' and its ratios, lower for everything else.
[docs/performance.md](../docs/performance.md) says what the variants and loads are.
"""
PACKAGES = ("dynserve", "grpcio", "grpcio-tools", "protobuf", "uvloop")
FIGURES = {  # the head of a column, and how many digits stand behind the point
    "rate": ("per second", 0),
    "cpu": ("CPU µs", 1),
    "p50": ("p50 µs", 0),
    "p99": ("p99 µs", 0),
    "stream p50": ("stream p50 µs", 0),
    "stream p99": ("stream p99 µs", 0),
    "cpu ms": ("CPU ms", 0),
    "ms": ("ms", 0),
    "us": ("µs", 0),
    "cpu us": ("CPU µs", 0),
    "load ms": ("load ms", 1),
    "with a service ms": ("with a service ms", 1),
    "load MB": ("load MB", 1),
}


@dataclass(slots=True)
class Run:
    """All that a run brought."""

    versions: list[str]
    settings: str
    skipped: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def section(self, key: str) -> Section | None:
        """The section of that key, where the run had it."""
        return next((each for each in self.sections if each.key == key), None)

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Run:
        """What write() wrote."""
        data = json.loads(path.read_text())
        sections = [Section(**each) for each in data.pop("sections")]
        for section in sections:  # JSON has lists for tuples
            section.figures = tuple(section.figures)
            section.ratios = tuple((figure, base) for figure, base in section.ratios)
        return cls(**data, sections=sections)

    def stated(self) -> str:
        """What was measured, where, and what was not."""
        lines = [", ".join(self.versions) + ".", self.settings]
        return "\n".join([*lines, *(f"\n- {line}" for line in self.skipped), ""])

    def markdown(self) -> str:
        """The whole page."""
        return "\n".join([HEAD, self.stated(), *(markdown(each) for each in self.sections)])


def markdown(section: Section) -> str:
    """A heading and a table, with figures to the right, and notes."""
    names = section.names
    ratios = [(figure, base) for figure, base in section.ratios if base in names]
    heads = [FIGURES.get(figure, (figure, 0))[0] for figure in section.figures]
    heads += [f"{FIGURES.get(figure, (figure, 0))[0]} ÷ {base}" for figure, base in ratios]
    rows = [["variant", *heads], ["---", *["---:"] * len(heads)]]
    for name in names:
        cells = [name, *(_figure(section, name, figure) for figure in section.figures)]
        cells += [str(ratio(section, name, base, figure)) for figure, base in ratios]
        rows.append(cells)
    lines = [f"| {' | '.join(row)} |" for row in rows] if names else []
    notes = [*section.notes, *(f"Failed: {line}" for line in section.failures)]
    return "\n".join([f"## {section.title}", "", *lines, *(f"\n{note}" for note in notes), ""])


def _figure(section: Section, name: str, figure: str) -> str:
    if any(figure not in each[name] for each in section.rounds):
        return "-"
    return f"{median(section, name, figure):,.{FIGURES.get(figure, (figure, 0))[1]}f}"


def versions() -> list[str]:
    """What is measured, and where."""
    h2load = _output(r"nghttp2/(\S+)", "h2load", "--version")
    commit = _output(r"(\S+)", "git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    return [
        *_packages(),
        f"commit {commit}",
        f"protobuf implementation {_protobuf_implementation()}",
        f"{platform.python_implementation()} {platform.python_version()}",
        *(each.replace("==", " ") for each in (*variants.GRPCLIB, *variants.CONNECT)),
        *(" ".join(each.rsplit("@", 1)) for each in variants.NODE),
        f"Node {_output(r'v(.*)', 'node', '--version')}",
        f"gRPC C++ {_output(r'(.*)', 'pkg-config', '--modversion', 'grpc++')}",
        f"g++ {_output(r'([0-9.]+)', 'g++', '-dumpfullversion')}",
        f"buf {_output(r'(.*)', 'buf', '--version')}",
        f"h2load {h2load}",
        f"{platform.system()} {platform.release()} {platform.machine()}",
        f"{os.cpu_count()} CPUs ({_cpu_model()})",
        f"load average at the start {os.getloadavg()[0]:.2f}",
    ]


def _packages() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue


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
