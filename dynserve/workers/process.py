"""One worker process, as its supervisor sees it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time

from .channel import VARIABLE, Channel
from .loop import Timer
from .plan import Plan

__all__ = ["Worker", "ending_of"]


class Worker:
    """A process that was started, until it has ended.

    Args:
        slot: its place among the workers, from 1 on; a successor has the same.
        serial: a number that no other worker of this supervisor has.
    """

    def __init__(
        self, slot: int, serial: int, process: subprocess.Popen[bytes], channel: Channel
    ) -> None:
        self.slot = slot
        self.serial = serial
        self.channel = channel
        self.is_leaving = False  # it was told to stop
        self.is_late = False  # it was killed since it did not become ready
        self.is_deaf = False  # its channel is closed
        self.waits_for_room = False  # in its channel
        self.told: dict[str, bool] | None = None  # the health of the others
        self.timer: Timer | None = None  # for it to become ready, or to end
        self._process = process
        self._started = time.monotonic()
        self._ready: float | None = None

    @classmethod
    def start(
        cls,
        plan: Plan,
        listen: tuple[str, ...],
        lifeline: int,
        slot: int,
        serial: int,
    ) -> Worker:
        """Start one; the first of all, whose serial is 0, tells the user what is served.

        Raises:
            OSError: the system does not start it.
        """
        ours, its = socket.socketpair()
        with its:
            told = {
                "number": slot,
                "of": plan.workers,
                "file": its.fileno(),
                "listen": listen,
                "first": serial == 0,
                "lifeline": lifeline,
                "stop_seconds": plan.stop_seconds,
            }
            try:
                process = subprocess.Popen(
                    plan.command,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, VARIABLE: json.dumps(told)},
                    pass_fds=(its.fileno(), lifeline),
                    # Ctrl-C and a closed terminal signal a whole process group; a worker is told
                    # by the supervisor, once.
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        return cls(slot, serial, process, Channel(ours))

    @property
    def pid(self) -> int:
        """Of its process, as long as nobody has waited for it."""
        return self._process.pid

    def __str__(self) -> str:
        return f"worker {self.slot} (pid {self._process.pid})"

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it serves."""
        return self._ready is not None

    @property
    def code(self) -> int | None:
        """Its exit code, -N where signal N killed it; None while it runs."""
        return self._process.poll()

    def became_ready(self) -> float:
        """Take note that it serves; the seconds that it took."""
        self._ready = time.monotonic()
        return self._ready - self._started

    def was_ready_for(self) -> float:
        """The seconds since it serves, 0 where it never did."""
        return 0.0 if self._ready is None else time.monotonic() - self._ready

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs: nobody else has its pid before it is waited for."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def set_timer(self, timer: Timer | None) -> None:
        """Wait for this from now on, not for what was waited for."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer


def ending_of(code: int) -> str:
    """What to say of an exit code as :attr:`Worker.code` has it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-code}"
