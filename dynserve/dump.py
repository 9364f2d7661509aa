"""What runs right now, as text: calls, threads, and tasks of the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynserve.engine.running import RunningCall

__all__ = ["dump"]

_MAX_CALLS, _MAX_TASKS = 1000, 1000
_MAX_FRAMES = 30


def dump(calls: Iterable[RunningCall]) -> str:
    """What runs right now. On the event loop.

    It has what peers call and from where, and the lines of code that run; neither requests nor
    metadata.
    """
    return "\n".join([*_calls(list(calls)), *_threads(), *_tasks()]) + "\n"


def _calls(calls: list[RunningCall]) -> Iterator[str]:
    yield f"process {os.getpid()}: {len(calls)} calls"
    for call in calls[:_MAX_CALLS]:
        left = "no deadline" if call.remaining is None else f"{call.remaining:.3f} s left"
        path = call.path.encode("unicode_escape").decode()  # a peer's text
        yield f"  {path} from {call.peer or 'nobody any more'}: {call.seconds:.3f} s, {left}"
        yield from _stack_of(call.coroutine)
    yield from _and_more(calls, _MAX_CALLS)


def _threads() -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # documented, in spite of its name
    yield f"{len(frames)} threads"
    for ident, frame in frames.items():
        yield f"  {names.get(ident, 'not of Python')}"
        yield from _stack(traceback.extract_stack(frame, _MAX_FRAMES))


def _tasks() -> Iterator[str]:
    tasks = list(asyncio.all_tasks())
    yield f"{len(tasks)} tasks"
    for task in tasks[:_MAX_TASKS]:
        yield f"  {task.get_name()}"
        yield from _stack_of(task.get_coro())
    yield from _and_more(tasks, _MAX_TASKS)


def _stack_of(coroutine: object) -> Iterator[str]:
    for frame in _awaited(coroutine):
        yield from _stack(traceback.extract_stack(frame, 1))


def _awaited(coroutine: object) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits; asyncio tells the first one only."""
    for _ in range(_MAX_FRAMES):
        if coroutine is None:
            return
        frame = _first(coroutine, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None:  # those of Cython have none
            yield frame
        coroutine = _first(coroutine, "cr_await", "gi_yieldfrom", "ag_await")


def _first(thing: object, *attributes: str) -> Any:
    found = (getattr(thing, attribute, None) for attribute in attributes)
    return next((one for one in found if one is not None), None)


def _stack(entries: Iterable[traceback.FrameSummary]) -> Iterator[str]:
    for entry in entries:
        yield f"    {entry.filename}:{entry.lineno} {entry.name}"


def _and_more(things: list[RunningCall] | list[asyncio.Task[object]], shown: int) -> Iterator[str]:
    if len(things) > shown:
        yield f"  ... and {len(things) - shown} more"
