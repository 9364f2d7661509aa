"""A progress bar for what takes more than a second, where a person looks on."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Collection, Iterator
from time import monotonic as _now
from typing import TypeVar

__all__ = ["waiting", "with_progress"]

_Item = TypeVar("_Item")

_A_WHILE = 1.0  # seconds


def with_progress(items: Collection[_Item], what: str) -> Iterator[_Item]:
    """The items; while they are worked through, a bar on standard error if it is a terminal."""
    start = _now()
    left = iter(items)
    for done, item in enumerate(left, 1):
        yield item
        if done < len(items) and sys.stderr.isatty() and _now() - start > _A_WHILE:
            yield from _with_bar(left, what, done, len(items))


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """While the block runs, a bar that says no more than that it does; shown as the other is."""
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_show_until, args=(over, what), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _show_until(over: threading.Event, what: str) -> None:
    if over.wait(_A_WHILE):
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(what, total=None)
        over.wait()


def _with_bar(left: Iterator[_Item], what: str, done: int, total: int) -> Iterator[_Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=done)
        for item in left:
            yield item
            progress.advance(task)
