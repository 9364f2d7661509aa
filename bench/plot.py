"""The plot: calls and messages a second, a panel of bars for each load, as SVG by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from measure import Section, median
from report import Run

KEYS = (
    "unary 8x8",
    "unary 50x10",
    "unary 1x1",
    "unary 8x8, 100 KB",
    "stream down",
    "stream up",
    "ping-pong",
    "pipelined",
)
COLUMNS = 2
PANEL, LABEL, VALUE = 490, 205, 64  # widths
BAR, GAP, HEAD = 15, 4, 34  # heights
COLOURS = {"dynserve": "#2563eb", "grpc.": "#9ca3af", "c++": "#111827"}
OTHER = "#d97706"


def svg(run: Run) -> str:
    """All panels that the run has figures for."""
    sections = [each for key in KEYS if (each := run.section(key)) is not None and each.names]
    parts: list[str] = []
    top, width = 52, COLUMNS * PANEL
    for first in range(0, len(sections), COLUMNS):
        row = sections[first : first + COLUMNS]
        for column, section in enumerate(row):
            parts += _panel(section, column * PANEL, top)
        top += max(_height(section) for section in row)
    title = "Calls or messages per second: longer is better; each panel has its own scale"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}"'
        f' height="{top}" font-family="system-ui, sans-serif" font-size="11">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="14" font-weight="600">{escape(title)}</text>',
        f'<text x="12" y="40" fill="#4b5563">{escape(_where(run.versions))}</text>',
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def _where(versions: Sequence[str]) -> str:
    told = ("dynserve ", "grpcio ", "CPython ")
    return ", ".join(v for v in versions if v.startswith(told) or " CPUs " in v)


def _height(section: Section) -> int:
    return HEAD + len(section.names) * (BAR + GAP) + 14


def _panel(section: Section, left: int, top: int) -> Iterator[str]:
    rates = {name: median(section, name, "rate") for name in section.names}
    longest, room = max(rates.values()), PANEL - LABEL - VALUE
    yield f'<text x="{left + 12}" y="{top + 22}" font-weight="600">{escape(section.title)}</text>'
    for number, (name, rate) in enumerate(rates.items()):
        y = top + HEAD + number * (BAR + GAP)
        middle, start = y + BAR - 4, left + LABEL
        wide = max(1.0, rate / longest * room)
        weight = ' font-weight="600"' if name.startswith("dynserve") else ""
        anchor = f'<text x="{start - 6}" y="{middle}" text-anchor="end"{weight}>'
        yield f"{anchor}{escape(name)}</text>"
        bar = f'<rect x="{start}" y="{y}" width="{wide:.1f}" height="{BAR}" rx="2"'
        yield f'{bar} fill="{_colour(name)}"/>'
        yield f'<text x="{start + wide + 5:.1f}" y="{middle}" fill="#374151">{rate:,.0f}</text>'


def _colour(name: str) -> str:
    return next((c for start, c in COLOURS.items() if name.startswith(start)), OTHER)
