"""Writes what a run brought into the repository: two files here, and a part of a page of docs/."""

from __future__ import annotations

import sys

import aims
import calling
import plot
from measure import median
from report import Run, markdown
from workspace import HERE, ROOT

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- begin: python bench/run.py --write -->", "<!-- end -->"
LOADS = {
    "unary 8x8": "unary",
    "unary 1x1": "one at a time",
    "stream down": "down",
    "stream up": "up",
    "ping-pong": "ping-pong",
    "pipelined": "pipelined",
}


def write(run: Run) -> None:
    """results.md, results.svg, and the figures in docs/performance.md."""
    (HERE / "results.md").write_text(run.markdown())
    (HERE / "results.svg").write_text(plot.svg(run))
    PAGE.write_text(replaced(PAGE.read_text(), figures(run)))
    for path in (HERE / "results.md", HERE / "results.svg", PAGE):
        print(f"written: {path}", file=sys.stderr)


def replaced(page: str, text: str) -> str:
    """The page with the text between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} must have the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def figures(run: Run) -> str:
    """What docs/performance.md shows of a run."""
    parts = [f"{', '.join(run.versions)}. {run.settings}"]
    parts += ["### Aims", aims.table(run)]
    parts += ["### Calls and messages a second · CPU µs for each", overview(run)]
    ahead = list(better(run))
    if ahead:
        parts += ["### Where peers are ahead of the queue engine", "\n".join(ahead)]
    for key in calling.KEYS:
        section = run.section(key)
        if section is not None:
            parts.append(f"#{markdown(section)}".rstrip())
    parts += [f"- {line}" for line in run.skipped]
    return "\n\n".join(parts)


def overview(run: Run) -> str:
    """A row for each variant, a column for each of the main loads."""
    found = {key: section for key in LOADS if (section := run.section(key)) is not None}
    names = list(dict.fromkeys(name for section in found.values() for name in section.names))
    rows = [["", *(LOADS[key] for key in found)], ["---", *["---:"] * len(found)]]
    for name in names:
        cells = [name]
        for section in found.values():
            if name in section.names:
                rate, cpu = (median(section, name, figure) for figure in ("rate", "cpu"))
                cells.append(f"{rate:,.0f} · {cpu:.0f}")
            else:
                cells.append("-")
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def better(run: Run) -> list[str]:
    """For each load with a rate: the peers that did more than both of dynserve's fast variants."""
    lines = []
    for section in run.sections:
        own = [n for n in ("dynserve queue sync", "dynserve queue async") if n in section.names]
        if not own or "rate" not in section.figures:
            continue
        best = max(median(section, name, "rate") for name in own)
        peers = {
            name: median(section, name, "rate") / best
            for name in section.names
            if not name.startswith("dynserve")
        }
        ahead = [f"{name} {times:.2f}x" for name, times in peers.items() if times >= 1.005]
        if ahead:
            lines.append(f"- {section.title}: {', '.join(ahead)}")
    return lines
