"""dynserve_app.py without one of the queue engine's clevernesses: plain_app.py PORT KIND WITHOUT

WITHOUT is `quick` (no sync handler runs on the polling thread), `lead` (the loop never polls),
`joined` (each message of a stream is written by itself), or `own-loop` (as `lead`, on uvloop).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import dynserve_app
from dynserve.engine.queue import core
from dynserve.engine.queue.loop import QueueLoop
from dynserve.engine.queue.plan import Plan


def _no_own_loop() -> None:
    QueueLoop.is_possible = staticmethod(lambda: False)  # type: ignore[method-assign]


def _no_lead() -> None:
    _no_own_loop()
    sys.modules["uvloop"] = None  # type: ignore[assignment]


def _set(owner: Any, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)


WITHOUT: dict[str, Callable[[], None]] = {
    "quick": _set(Plan, "_TRIAL", 1 << 62),
    "lead": _no_lead,
    "joined": _set(core, "BUFFER_HINT", 0),
    "own-loop": _no_own_loop,
}

if __name__ == "__main__":
    WITHOUT[sys.argv[3]]()
    dynserve_app.serve(sys.argv[1], sys.argv[2], "queue")
