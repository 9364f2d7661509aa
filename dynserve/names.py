"""Methods by name, for handlers that name their method in part, or not at all.

A handler's own name finds a method whatever the case and the underscores: ``list_features`` serves
``ListFeatures``, and ``get_http_status`` serves ``GetHTTPStatus``.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable
from typing import NamedTuple

from dynserve.errors import nearest

__all__ = ["Alike", "Name", "Names", "one_of", "plain", "quoted"]

_MAX_NEAR = 3  # names that an error offers as what was meant
_MAX_LISTED = 8  # names that it lists where it cannot tell which one was meant
_MAX_QUOTED = 200  # characters of a peer's name that it is told again

# What one search costs, whatever a peer sends and however many names there are.
_MAX_LETTERS = 80  # of the name that is asked for
_MAX_SHARED = 300  # of what has three letters in a row in common with it
_MAX_COMPARED = 10  # names that are compared with it
_LIKE = 0.5  # from 0 to 1: how many pairs of letters two names share for one to be meant


class Name(NamedTuple):
    """A method: ``pkg.Service/Method``."""

    service: str
    method: str

    def __str__(self) -> str:
        return f"{self.service}/{self.method}"


class Names:
    """Methods by name, as exactly as it is known."""

    def __init__(self, names: Iterable[Name]) -> None:
        self._by_plain: dict[str, list[Name]] = {}
        for name in names:
            self._by_plain.setdefault(plain(name.method), []).append(name)

    def alike(self, method: str) -> list[Name]:
        """Those of that name but for case and underscores."""
        return self._by_plain.get(plain(method), [])

    def exactly(self, method: str) -> list[Name]:
        """Those of exactly that name."""
        return [name for name in self.alike(method) if name.method == method]

    def near(self, method: str, in_full: bool) -> str:
        """The end of an error: what may have been meant, or else what there is."""
        every: dict[str, list[str]] = {}
        for name in itertools.chain.from_iterable(self._by_plain.values()):
            every.setdefault(name.method, []).append(str(name) if in_full else name.method)
        close = nearest(method, every) or nearest(_camel(method), every)
        if close:
            listed = [full for name in close for full in every[name]][:_MAX_NEAR]
            return f"; did you mean {' or '.join(map(repr, listed))}?"
        return one_of(itertools.chain.from_iterable(every.values()))


class Alike:
    """The names most like one that a peer asks for; made once, to be asked often and cheaply.

    They are those whose last component is the same but for case. Where there is none, the pairs of
    letters in last components are compared, and only of names that share three letters in a row,
    the rarest such three first.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._same: dict[str, list[str]] = {}  # by last component, in lower case
        self._having: dict[str, list[str]] = {}  # last components by three letters in a row
        for name in names:
            self._same.setdefault(_last_component(name).lower(), []).append(name)
        for last in self._same:
            for letters in _in_a_row(3, last):
                self._having.setdefault(letters, []).append(last)

    def near(self, name: str) -> list[str]:
        """A few names, best first."""
        last = _last_component(name[-_MAX_LETTERS:]).lower()
        same = self._same.get(last)
        if same is None:
            same = [name for other in self._close(last) for name in self._same[other][:_MAX_NEAR]]
        return same[:_MAX_NEAR]

    def _close(self, last: str) -> list[str]:
        having = sorted((self._having.get(letters, []) for letters in _in_a_row(3, last)), key=len)
        shared = itertools.islice(itertools.chain.from_iterable(having), _MAX_SHARED)
        pairs = _in_a_row(2, last)
        scored = []
        for other, _ in collections.Counter(shared).most_common(_MAX_COMPARED):
            theirs = _in_a_row(2, other)
            score = 2 * len(pairs & theirs) / (len(pairs) + len(theirs))
            scored.append((-score, other))
        return [other for score, other in sorted(scored) if score <= -_LIKE]


def _in_a_row(count: int, name: str) -> set[str]:
    """All that many letters in a row, the beginning and the end taken for letters."""
    text = f"^{name[:_MAX_LETTERS]}$"
    return {text[start : start + count] for start in range(len(text) - count + 1)}


def _last_component(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2]


def quoted(name: str) -> str:
    """A name that a peer sent, as it is told again: in quotes, and not longer than is of use."""
    text = repr(name[:_MAX_QUOTED])
    return text if len(name) <= _MAX_QUOTED >= len(text) - 2 else f"{text[:_MAX_QUOTED]}..."


def one_of(names: Iterable[object]) -> str:
    """``"; name one of 'a', 'b' and 7 more"``, or nothing where there is none."""
    every = [repr(str(name)) for name in names]
    more = len(every) - _MAX_LISTED
    listed = ", ".join(every[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
    return f"; name one of {listed}" if listed else ""


def plain(name: str) -> str:
    """The name without case and underscores."""
    return name.replace("_", "").lower()


def _camel(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))
