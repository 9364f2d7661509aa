"""A progress bar for what takes more than a second, where a person looks on."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

__all__ = ["with_progress"]

_Item = TypeVar("_Item")

_A_WHILE = 1.0  # seconds


def with_progress(items: Collection[_Item], what: str) -> Iterator[_Item]:
    """The items; while they are worked through, a bar on standard error if it is a terminal."""
    start = time.monotonic()
    left = iter(items)
    for done, item in enumerate(left, 1):
        yield item
        if sys.stderr.isatty() and time.monotonic() - start > _A_WHILE:
            yield from _with_bar(left, what, done, len(items))


def _with_bar(left: Iterator[_Item], what: str, done: int, total: int) -> Iterator[_Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=done)
        for item in left:
            yield item
            progress.advance(task)
