"""Messages from the loop to a thread, and from a thread to the loop; bounded.

The lock is held for a few instructions only, so the loop may take it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["END", "ClosedError", "ToLoop", "ToThread"]

_MOST = 16  # messages
END = object()  # what is received after the last message


class ClosedError(Exception):
    """Nobody takes the messages any more."""


class _Pipe:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()  # for the side on the thread
        self._wake = asyncio.Event()  # for the side on the loop
        self._is_ended = self._is_closed = False
        self._error: BaseException | None = None

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more follows, but the error; what is in the pipe is still delivered."""
        with self._changed:
            if not self._is_ended:
                self._is_ended, self._error = True, error
            self._changed.notify_all()
        self._wake_loop()

    def _wake_loop(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits there
            self._loop.call_soon_threadsafe(self._wake.set)

    def _next(self) -> Any:
        """A message or END. Only where there is either."""
        if self._items:
            return self._items.popleft()
        if self._error is not None:
            raise self._error
        return END


class ToThread(_Pipe):
    """The loop sends, a thread receives."""

    async def send(self, item: Any) -> None:
        """Send; waits while the pipe is full."""
        while True:
            with self._changed:
                if len(self._items) < _MOST:
                    self._items.append(item)
                    self._changed.notify()
                    return
                self._wake.clear()
            await self._wake.wait()

    def receive(self) -> Any:
        """A message, or END."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_ended)
            was_full = len(self._items) == _MOST
            item = self._next()
        if was_full:
            self._wake_loop()
        return item


class ToLoop(_Pipe):
    """A thread puts, the loop receives.

    Args:
        loop: that receives.
        variables: what the thread runs with.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, variables: contextvars.Context) -> None:
        super().__init__(loop)
        self.variables = variables

    def put(self, item: Any) -> None:
        """Send; waits while the pipe is full.

        Raises:
            ClosedError: nobody takes it any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._items) < _MOST)
            if self._is_closed:
                raise ClosedError
            self._items.append(item)
            is_first = len(self._items) == 1
        if is_first:
            self._wake_loop()

    async def receive(self) -> Any:
        """A message, or END; raises the error that the pipe ended with."""
        while True:
            with self._changed:
                if self._items or self._is_ended:
                    self._changed.notify()
                    return self._next()
                self._wake.clear()
            await self._wake.wait()

    def fail(self, error: BaseException) -> None:
        """Drop what is in the pipe: the loop gets the error, the thread ClosedError."""
        with self._changed:
            self._items.clear()
            self._is_ended, self._error = True, error
        self.stop()
        self._wake_loop()

    def stop(self) -> None:
        """Nobody takes the messages any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def drain(self, items: Callable[[], Any]) -> None:
        """Put all items, and the error that they end with; on the thread. Does not raise."""
        error = None
        try:
            iterable = items()
            try:
                for item in iterable:
                    self.put(item)
            finally:
                close = getattr(iterable, "close", None)
                if close is not None:  # here and now, on the thread that ran it
                    close()
        except ClosedError:
            pass
        except BaseException as raised:
            error = raised
        self.end(error)
