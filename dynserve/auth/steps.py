"""Steps: what waits in an authenticator, once for sync handlers and once for async ones.

An authenticator that may have to wait is written as one generator, which yields what it waits for,
is sent what came of it, or thrown what went wrong, and returns the identity. Only how one waits is
written twice.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Generator
from typing import Any, Protocol, TypeAlias, TypeVar

__all__ = ["Step", "Steps", "Wait", "run", "run_async"]

_T = TypeVar("_T")


class Step(Protocol):
    """Something to wait for, in either way."""

    def now(self) -> Any:
        """What comes of it; the thread waits."""

    async def later(self) -> Any:
        """What comes of it; the loop goes on."""


Steps: TypeAlias = Generator[Step, Any, _T]


class Wait:
    """Waits until something that runs on a thread is done, or a time is over.

    Args:
        future: the shared one; it goes on where somebody gives up waiting.
        seconds: the longest to wait.

    What comes of it is whether it is done.
    """

    def __init__(self, future: concurrent.futures.Future[None], seconds: float) -> None:
        self._future = future
        self._seconds = seconds

    def now(self) -> bool:
        """Whether it is done; the thread waits."""
        return bool(concurrent.futures.wait([self._future], self._seconds).done)

    async def later(self) -> bool:
        """Whether it is done; the loop goes on."""
        # Unlike wait_for, this does not cancel what the others wait for too.
        done, _ = await asyncio.wait([asyncio.wrap_future(self._future)], timeout=self._seconds)
        return bool(done)


def run(steps: Steps[_T]) -> _T:
    """Go through the steps in this thread, which waits."""
    try:
        step = next(steps)
        while True:
            try:
                outcome = step.now()
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as ended:
        value: _T = ended.value
        return value


async def run_async(steps: Steps[_T]) -> _T:
    """Go through the steps on the loop, which goes on."""
    try:
        step = next(steps)
        while True:
            try:
                outcome = await step.later()
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
    except StopIteration as ended:
        value: _T = ended.value
        return value
