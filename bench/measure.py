"""Rounds of measurements, and what is made of them: medians, and ratios within each round.

A ratio compares two figures taken seconds apart, so what else the machine does cancels out; the
median of these ratios is steadier than the ratio of the medians.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

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


def alternate(
    names: Sequence[str], rounds: int, measure: Callable[[str], Sample], title: str
) -> list[Round]:
    """Measures every variant in every round, in the opposite order each time."""
    results: list[Round] = []
    for number in range(rounds):
        order = names if number % 2 == 0 else names[::-1]
        say(f"{title}: round {number + 1} of {rounds}")
        results.append({name: measure(name) for name in order})
    return results


def median(rounds: Sequence[Round], variant: str, figure: str) -> float:
    """The median of a figure over all rounds."""
    return statistics.median(r[variant][figure] for r in rounds)


def ratio(rounds: Sequence[Round], variant: str, base: str, figure: str) -> Spread:
    """The median over the rounds of a figure, divided by the same figure of another variant."""
    return _spread(r[variant][figure] / r[base][figure] for r in rounds if r[base][figure])


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
