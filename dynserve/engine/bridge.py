"""A stream of bytes between the event loop and a worker thread, bounded both ways.

One side of a :class:`Pipe` is used on the loop, the other on one thread. The lock is held for a few
instructions only, so the loop may take it. Whoever finds the pipe full or empty waits; a burst is
taken in one go, so it costs one switch between the threads, not one a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Iterator

__all__ = ["ClosedError", "Pipe"]

_MAX_MESSAGES = 64
_MAX_BYTES = 1 << 20


class ClosedError(Exception):
    """The other side is gone."""


class Pipe:
    """Messages in order, then an end or an error."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[bytes] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._wake = asyncio.Event()  # for the side on the loop
        self._ended = False
        self._error: BaseException | None = None
        self._failed = False
        self._closed = False

    # ---- either side

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more follows; what is in the pipe is still delivered, then the error raised."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._notify()

    def fail(self, error: BaseException) -> None:
        """Drop what is in the pipe; the loop's side gets the error, the thread's ClosedError."""
        with self._changed:
            self._items.clear()
            self._size = 0
            self._ended, self._error, self._failed = True, error, True
            self._notify()

    def close(self) -> None:
        """Drop what is in the pipe; whoever waits at the other side gets ClosedError."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there
            self._loop.call_soon_threadsafe(self._wake.set)

    def _is_full(self) -> bool:
        return len(self._items) >= _MAX_MESSAGES or self._size >= _MAX_BYTES

    def _add(self, item: bytes) -> None:
        self._items.append(item)
        self._size += len(item)

    def _next(self) -> bytes | None:
        """An item; None at the end. Only when there is either."""
        if self._closed:
            raise ClosedError
        if self._items:
            item = self._items.popleft()
            self._size -= len(item)
            return item
        if self._error is not None:
            raise self._error
        return None

    def _is_ready(self) -> bool:
        return bool(self._items) or self._ended or self._closed

    # ---- the thread's side

    def put(self, item: bytes) -> None:
        """Send from the thread; waits while the pipe is full.

        Raises:
            ClosedError: nobody takes it any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._failed or not self._is_full())
            if self._closed or self._failed:
                raise ClosedError
            self._add(item)
            if len(self._items) == 1:
                self._loop.call_soon_threadsafe(self._wake.set)

    def __iter__(self) -> Iterator[bytes]:
        """Receive on the thread, until the end.

        Raises:
            ClosedError: the pipe was closed.
        """
        while True:
            with self._changed:
                self._changed.wait_for(self._is_ready)
                was_full = self._is_full()
                item = self._next()
                if was_full and not self._is_full():
                    self._loop.call_soon_threadsafe(self._wake.set)
            if item is None:
                return
            yield item

    # ---- the loop's side

    async def send(self, item: bytes) -> None:
        """Send from the loop; waits while the pipe is full.

        Raises:
            ClosedError: nobody takes it any more.
        """
        while True:
            with self._changed:
                if self._closed:
                    raise ClosedError
                if not self._is_full():
                    self._add(item)
                    self._changed.notify()
                    return
                self._wake.clear()
            await self._wake.wait()

    async def receive(self) -> bytes | None:
        """Receive on the loop: a message, or None at the end; raises the error it ended with."""
        while True:
            with self._changed:
                if self._is_ready():
                    was_full = self._is_full()
                    item = self._next()
                    if was_full and not self._is_full():
                        self._changed.notify()
                    return item
                self._wake.clear()
            await self._wake.wait()
