"""BatchedHandler: a log that is written by a thread of its own, many lines at a time.

A slow disk, or a reader of a pipe that does not read, stops who writes to it. On the event loop
that would stop the server. Here who logs puts a record into a bounded queue, which takes a lock and
no system call; ten times a second a thread formats what has come and writes it at once.
"""

from __future__ import annotations

import collections
import logging
import sys
import threading
import time
from typing import TextIO

__all__ = ["BatchedHandler"]

_PATIENCE = 5.0  # seconds that the end waits for a stream that takes nothing


class BatchedHandler(logging.Handler):
    """Writes lines to a stream, without making who logs wait for it.

    Where lines come faster than they can be written, those that find the queue full are dropped,
    and a line says how many. What is logged in the last tenth of a second before the process is
    killed is lost; ``close()``, which logging calls when Python ends, writes what is left.

    Args:
        stream: where lines go; without, ``sys.stderr``. It is not closed.
        limit: the most lines that wait to be written.
        interval: seconds between two writes.
    """

    def __init__(
        self, stream: TextIO | None = None, limit: int = 10_000, interval: float = 0.1
    ) -> None:
        super().__init__()
        self._stream = stream
        self._limit = limit
        self._interval = interval
        self._records: collections.deque[logging.LogRecord] = collections.deque()
        self._dropped = 0
        self._counting = threading.Lock()
        self._filled = threading.Event()
        self._stopped = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record into the queue; the handler's own lock is held."""
        if len(self._records) >= self._limit:
            with self._counting:
                self._dropped += 1
            return
        self._records.append(record)
        if not self._filled.is_set():
            self._filled.set()
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name="dynserve-log", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write what has come so far, on this thread; waits 5 s at most while another writes."""
        if self._writing.acquire(timeout=_PATIENCE):
            try:
                self._write()
            finally:
                self._writing.release()

    def close(self) -> None:
        """Write what is left and end the thread; waits for a stream that is stuck 5 s at most."""
        self._stopped.set()
        self._filled.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)
            self._thread = None
        if not self._writing.locked():  # else the thread is stuck in a write
            self.flush()
        super().close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._filled.wait()
            self._stopped.wait(self._interval)
            self._filled.clear()
            self.flush()

    def _write(self) -> None:
        lines: list[str] = []
        while self._records and len(lines) < self._limit:
            record = self._records.popleft()
            try:
                lines.append(self.format(record))
            except Exception:
                self.handleError(record)
        with self._counting:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(self.format(_told(dropped)))
        if not lines:
            return
        stream = self._stream or sys.stderr
        try:
            stream.write("\n".join(lines) + "\n")
            stream.flush()
        except Exception:
            self.handleError(_told(len(lines)))


def _told(dropped: int) -> logging.LogRecord:
    """A record that says how many lines are missing."""
    lines = "line" if dropped == 1 else "lines"
    fields = {
        "name": "dynserve.log",
        "levelno": logging.WARNING,
        "levelname": "WARNING",
        "msg": f"{dropped} {lines} of the log dropped: they came faster than they can be written",
        "created": time.time(),
    }
    return logging.makeLogRecord(fields)
