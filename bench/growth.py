"""One service beside a thousand with five methods each: does a call cost more?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import loads
import throughput
from measure import Section
from variants import Variant
from workspace import Workspace

LOADS = (loads.UNARY[0], loads.UNARY[2])


def compare(
    variants: Sequence[Variant], rounds: int, seconds: float, workspace: Workspace
) -> Iterator[Section]:
    """The variants come in pairs, the small one first; each pair has a ratio of its own."""
    with throughput.serving(variants, workspace, None, []) as targets:
        small = [v.name for v in variants if v.name.endswith(", 5 methods")]
        ratios = [("rate", name) for name in small]
        for load in LOADS:
            section = throughput.compare(load, targets, rounds, seconds, ratios)
            section.key = f"growth {load.name}"
            section.title = f"{load.name}: 5 methods, and 1,000 services with 5 each"
            yield section
