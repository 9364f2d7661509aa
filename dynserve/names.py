"""Methods by name, for handlers that name their method in part, or not at all.

A handler's own name finds a method whatever the case and the underscores: ``list_features`` serves
``ListFeatures``, and ``get_http_status`` serves ``GetHTTPStatus``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from dynserve.errors import nearest

__all__ = ["Name", "Names", "one_of", "plain"]

_MAX_NEAR = 3  # names that an error offers as what was meant
_MAX_LISTED = 8  # names that it lists where it cannot tell which one was meant


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
