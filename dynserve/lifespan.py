"""Lifespan: what an app starts before it serves, and ends when its last call is over."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from typing import Any

from dynserve.callables import function_of, place_of
from dynserve.context import Shared

__all__ = ["Lifespan", "checked_lifespan"]

_EXPECTED = (
    "expected a generator function with one yield and no argument:"
    " def lifespan(): ...; yield state; ..."
)


def checked_lifespan(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, if it can be a lifespan.

    Raises:
        TypeError: it is no generator function, or wants arguments.
    """
    behind = function_of(function)
    if not (inspect.isasyncgenfunction(behind) or inspect.isgeneratorfunction(behind)):
        raise TypeError(f"got {function!r} as a lifespan, {_EXPECTED}")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise TypeError(f"lifespan {place_of(function)} wants arguments, {_EXPECTED}") from error
    return function


class Lifespan:
    """One run of a lifespan function: of one app in one server. Used on one loop.

    ``shared`` has what it yielded, for contexts to give. ``owner`` is the app.
    """

    def __init__(self, function: Callable[[], Any], owner: object) -> None:
        self.shared = Shared()
        self.owner = owner
        self._function = function
        self._generator: Any = None

    async def start(self) -> None:
        """Run up to the ``yield``; whatever that raises is raised. Of no effect once it runs.

        Raises:
            RuntimeError: it ended without a yield.
        """
        if self._generator is not None:
            return
        generator = self._function()
        try:
            if isinstance(generator, AsyncGenerator):
                self.shared.value = await anext(generator)
            else:
                self.shared.value = next(generator)
        except (StopIteration, StopAsyncIteration):
            where = place_of(self._function)
            raise RuntimeError(f"lifespan {where} ended without a yield") from None
        self._generator = generator

    async def end(self) -> None:
        """Run what comes after the ``yield``; whatever that raises is raised.

        Raises:
            RuntimeError: it has more than one yield.
        """
        generator, self._generator = self._generator, None
        if generator is None:
            return
        try:
            if isinstance(generator, AsyncGenerator):
                await anext(generator)
            else:
                next(generator)
        except (StopIteration, StopAsyncIteration):
            return
        if isinstance(generator, AsyncGenerator):
            await generator.aclose()
        else:
            generator.close()
        raise RuntimeError(f"lifespan {place_of(self._function)} has more than one yield")
