"""The order of statements in a body: as in the source, and such that descriptors come out equal.

One statement may be several elements of a descriptor (a map field is a field and a nested type, a
oneof has many fields), and the order within each of the descriptor's lists must be kept.
"""

from __future__ import annotations

import enum
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from .source import Position

__all__ = ["Rank", "Statement", "arranged"]


class Rank(enum.IntEnum):
    """The order of statements of which no source is there to tell it."""

    OPTION = enum.auto()
    SERVICE = enum.auto()
    FIELD = enum.auto()
    TYPE = enum.auto()
    ENUM = enum.auto()
    RANGE = enum.auto()
    EXTENSION = enum.auto()
    RESERVED = enum.auto()


class Statement(NamedTuple):
    """A statement of a body.

    ``position`` is where it stood in the source and ``rank`` the order of statements that stood
    nowhere. ``elements`` are those that it declares: which list of the descriptor, and which item.
    """

    position: Position
    rank: Rank
    elements: Sequence[tuple[str, int]]
    write: Callable[[], None]


def arranged(statements: Iterable[Statement]) -> list[Statement]:
    """The statements in order of their lists, and where these allow it of position and rank.

    Lists that contradict each other were not made by a compiler of .proto files; what can be kept
    of their order is.
    """
    items = list(statements)
    followers: list[list[int]] = [[] for _ in items]
    waits = [0] * len(items)
    for one, other in _neighbours(items):
        followers[one].append(other)
        waits[other] += 1
    order = sorted(range(len(items)), key=lambda n: (items[n].position, items[n].rank, n))
    place = {n: index for index, n in enumerate(order)}
    ready = [place[n] for n in order if not waits[n]]
    left = dict.fromkeys(order)
    result = []
    while left:
        number = order[heapq.heappop(ready)] if ready else next(iter(left))
        if number not in left:
            continue
        del left[number]
        result.append(items[number])
        for other in followers[number]:
            waits[other] -= 1
            if not waits[other]:
                heapq.heappush(ready, place[other])
    return result


def _neighbours(items: Sequence[Statement]) -> Iterator[tuple[int, int]]:
    """Pairs of statements that have elements of one list next to each other."""
    elements = sorted((*element, n) for n, item in enumerate(items) for element in item.elements)
    for (list_, _, one), (same, _, other) in itertools.pairwise(elements):
        if list_ == same and one != other:
            yield one, other
