"""dynserve beside itself: among many methods, and without each of the engine's clevernesses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import loads
import throughput
import variants
from loads import Load
from measure import Section
from variants import Variant
from workspace import Workspace

ONE_CALL = (loads.UNARY[0], loads.UNARY[2])
WORLDS = ("sync", "async")


@dataclass(frozen=True, slots=True)
class Part:
    """Variants that are set against some of themselves."""

    variants: tuple[Variant, ...]
    bases: tuple[str, ...]  # their names
    loads: tuple[Load, ...]
    title: str  # behind that of the load


PARTS = {
    "plain": Part(
        variants.PLAIN,
        tuple(f"dynserve queue {world}" for world in WORLDS),
        (*ONE_CALL, *loads.STREAMS),
        "without each cleverness",
    ),
    "growth": Part(
        variants.GROWTH,
        tuple(f"dynserve queue {world}, 5 methods" for world in WORLDS),
        ONE_CALL,
        "5 methods, and 1,000 services with 5 each",
    ),
}


def compare(
    name: str,
    chosen: Sequence[Variant],
    rounds: int,
    seconds: float,
    workspace: Workspace,
    client: Sequence[str] | None,
) -> Iterator[Section]:
    """A part, on those of its variants that were chosen; `client` as for throughput.serving."""
    part = PARTS[name]
    with throughput.serving(chosen, workspace, client, []) as targets:
        ratios = [("rate", base) for base in part.bases]
        for load in part.loads:
            section = throughput.compare(load, targets, rounds, seconds, ratios)
            section.key, section.title = f"{name} {load.name}", f"{load.name}: {part.title}"
            yield section
