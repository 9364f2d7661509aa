"""Opening a descriptor set of several thousand files: time and memory, in fresh processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import tree
from measure import Sample, alternate, median, ratio, say
from process import BenchError
from report import Table
from workspace import HERE, Workspace

FILES = 5000
PROBE_SECONDS = 120
FIGURES = ("open ms", "open MB", "first service ms", "first service MB")  # from the same start


def once(way: str, path: Path, workspace: Workspace) -> Sample:
    """Opens the set one time."""
    service = tree.last_service(FILES)
    command = [workspace.python, str(HERE / "schema_probe.py"), way, str(path), service]
    done = subprocess.run(
        command,
        env=workspace.environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=PROBE_SECONDS,
    )
    if done.returncode:
        raise BenchError(f"{command!r} failed:\n{done.stderr[-3000:]}")
    answer = json.loads(done.stdout)
    if not answer.pop("request").startswith("tree."):
        raise BenchError(f"{command!r} made another message: {done.stdout}")
    return {figure: float(value) for figure, value in answer.items()}


def compare(ways: Sequence[str], rounds: int, workspace: Workspace) -> Table:
    """All ways to open the same set."""
    say(f"schema: making and compiling {FILES} files")
    path = tree.build(FILES, workspace)
    for way in ways:
        once(way, path, workspace)
    results = alternate(ways, rounds, lambda way: once(way, path, workspace), "schema")
    size = path.stat().st_size / 1e6
    columns = ("way", *FIGURES, *(f"{figure} ÷ {ways[0]}" for figure in FIGURES[2:]))
    table = Table(f"a descriptor set of {FILES:,} files, {size:.1f} MB", columns)
    for way in ways:
        cells = [way, *(f"{median(results, way, figure):.1f}" for figure in FIGURES)]
        ratios = (str(ratio(results, way, ways[0], figure)) for figure in FIGURES[2:])
        table.rows.append([*cells, *ratios])
    return table
