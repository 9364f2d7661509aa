"""The queue engine beside itself without each of its clevernesses: what are they worth?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import loads
import throughput
from measure import Section
from variants import Variant
from workspace import Workspace

LOADS = (loads.UNARY[0], loads.UNARY[2], *loads.STREAMS)


def compare(
    variants: Sequence[Variant],
    rounds: int,
    seconds: float,
    workspace: Workspace,
    client: Sequence[str] | None,
) -> Iterator[Section]:
    """Each is set against the whole engine with handlers of its world."""
    with throughput.serving(variants, workspace, client, []) as targets:
        ratios = [("rate", v.name) for v in variants if "," not in v.name]
        for load in LOADS:
            section = throughput.compare(load, targets, rounds, seconds, ratios)
            section.key = f"plain {load.name}"
            section.title = f"{load.name}: without each cleverness"
            yield section
