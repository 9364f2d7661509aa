"""What ends a worker that has lost its supervisor.

A pipe: the supervisor holds the end to write to, of which nobody else has a copy, and writes
nothing. The kernel closes it with the process, however that ends, and every worker sees it. The
channel tells the same, but it is read on the worker's event loop, which a handler may hold.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Iterator

__all__ = ["end_without", "lifeline"]

_log = logging.getLogger("dynserve.workers")

_FAILED = 1
_LOG_SECONDS = 1.0


@contextlib.contextmanager
def lifeline() -> Iterator[int]:
    """A pipe of this process; gives the end for workers, which breaks when this process ends."""
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(writer)
        os.close(reader)


def end_without(file: int, seconds: float) -> None:
    """End this process when its supervisor is gone, and it has not ended itself by then.

    On a thread of its own, which sleeps until then: the event loop may be held. It goes on when the
    server has ended, since what then holds up the process is to be bounded as well. Only code that
    keeps Python's global lock keeps it from running.

    Args:
        file: the end of a :func:`lifeline`; to be kept open by the caller, who forgets it.
        seconds: for a graceful stop, beginning with the end of the supervisor.
    """
    thread = threading.Thread(
        target=_watch, args=(file, seconds), name="dynserve-lifeline", daemon=True
    )
    thread.start()


def _watch(file: int, seconds: float) -> None:
    poll = select.poll()
    poll.register(file, 0)  # POLLHUP is always reported
    poll.poll()
    time.sleep(seconds)
    # A logger's lock may be held by what holds the loop, or nobody reads what is logged.
    told = threading.Thread(target=_tell, args=(seconds,), daemon=True)
    told.start()
    told.join(_LOG_SECONDS)
    os._exit(_FAILED)


def _tell(seconds: float) -> None:
    _log.error("the supervisor is gone, and this worker has not stopped in %g s: it ends", seconds)
