"""Rounds of measurements, and what is made of them: medians, and ratios within each round.

A ratio compares two figures taken seconds apart, so what else the machine does cancels out; the
median of these ratios is steadier than the ratio of the medians.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from process import BenchError

Sample = Mapping[str, float]  # one measurement of one variant: figures by name
Round = Mapping[str, Sample]  # by variant


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:  # a variant beside itself, or a single round
            return f"{self.median:.2f}"
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(slots=True)
class Section:
    """What one load, or one other comparison, brought: all that a table is made of.

    `key` is what the aims and the plot know it by. `figures` and `ratios`, which are pairs of a
    figure and the variant it is divided by, are the columns. `notes` stand under the table.
    """

    key: str
    title: str
    figures: tuple[str, ...]
    ratios: tuple[tuple[str, str], ...] = ()
    rounds: list[Round] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The variants that were measured in every round."""
        return list(self.rounds[0]) if self.rounds else []


def alternate(
    section: Section, names: Sequence[str], rounds: int, measure: Callable[[str], Sample]
) -> Section:
    """Measures every variant in every round, in the opposite order each time.

    A variant that fails is measured no more, and what it had brought is dropped.
    """
    good, results = list(names), []
    for number in range(rounds):
        say(f"{section.key}: round {number + 1} of {rounds}")
        found: dict[str, Sample] = {}
        for name in good if number % 2 == 0 else good[::-1]:
            try:
                found[name] = measure(name)
            except BenchError as error:
                failed(section, name, error)
        good = [name for name in good if name in found]
        results.append(found)
    section.rounds = [{name: found[name] for name in good} for found in results]
    return section


def failed(section: Section, name: str, error: Exception) -> None:
    """Notes that a variant is not in the table, and why."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    section.failures.append(f"{name}: {lines[0][-200:]}")
    say(f"FAILED {section.key}: {name}: {error}")


def median(section: Section, variant: str, figure: str) -> float:
    """The median of a figure over all rounds."""
    return statistics.median(r[variant][figure] for r in section.rounds)


def ratio(section: Section, variant: str, base: str, figure: str) -> Spread:
    """The median over the rounds of a figure, divided by the same figure of another variant."""
    pairs = ((r[variant][figure], r[base][figure]) for r in section.rounds)
    return _spread(one / other for one, other in pairs if other)


def _spread(values: Iterable[float]) -> Spread:
    values = sorted(values)
    if len(values) < 2:
        only = values[0] if values else float("nan")
        return Spread(only, only, only)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def say(text: str) -> None:
    """Progress, for the person who waits."""
    print(text, file=sys.stderr, flush=True)
