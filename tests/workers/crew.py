"""A supervisor in a process of its own, with workers that are a few lines of Python."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from dynserve.workers.entry import become_command
from dynserve.workers.plan import Plan

__all__ = ["OBEDIENT", "Crew", "program"]

SECONDS = 30
ROOT = Path(__file__).parents[2]

_HEAD = """
import json, os, signal, socket, sys, time

told = json.loads(os.environ.pop("DYNSERVE_WORKER"))
number = told["number"]
end = socket.socket(fileno=told["file"])

def tell(*words):
    os.write(1, (" ".join(map(str, ("fake", number, *words))) + "\\n").encode())

def say(kind, value):
    end.sendall(json.dumps({kind: value}).encode() + b"\\n")

def messages():
    for line in end.makefile():
        yield json.loads(line)

def on_term(*_):
    tell("SIGTERM")
    sys.exit(0)

def on_stop(why):
    tell("stops:", why)
    sys.exit(0)

signal.signal(signal.SIGTERM, on_term)
heard = messages()

def be_ready():
    first = next(heard)
    tell("ready", os.getpid())
    say("ready", told["listen"])

def tell_all():
    for message in heard:
        for kind, value in message.items():
            if kind == "stop":
                on_stop(value)
            else:
                tell("hears", json.dumps(message))
    tell("alone")
"""
OBEDIENT = "be_ready()\ntell_all()"


def program(body: str) -> tuple[str, ...]:
    """The command of a worker that does this."""
    return (sys.executable, "-S", "-c", _HEAD + body)  # without site: quick to start


class Crew:
    """A running supervisor; all that it and its workers print, line by line, in order."""

    def __init__(self, body: str = OBEDIENT, workers: int = 2, **plan: Any) -> None:
        plan = {"command": program(body), "listen": ("127.0.0.1:0",), **plan}
        self.lines: list[str] = []
        self._read = 0
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            become_command(Plan(workers=workers, **plan)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for _ in range(3):  # the third one kills
            if self.process.poll() is None:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(1)
        self.process.kill()
        self.process.wait()
        self._reader.join(SECONDS)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()

    def _collect(self) -> None:
        for line in self.process.stdout or ():
            with self._changed:
                # The time and the level of a log line say nothing to a test.
                self.lines.append(re.sub(r"^\d+-[-\d]+ [\d:,]+ (?=[A-Z]+ )", "", line.rstrip("\n")))
                self._changed.notify_all()
        with self._changed:
            self.lines.append("(end)")
            self._changed.notify_all()

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for a line like this, after the one that was found last."""
        until = time.monotonic() + SECONDS
        with self._changed:
            while True:
                for at in range(self._read, len(self.lines)):
                    match = re.fullmatch(pattern, self.lines[at])
                    if match is not None:
                        self._read = at + 1
                        return match
                left = until - time.monotonic()
                if self.lines[-1:] == ["(end)"] or left <= 0:
                    raise AssertionError(f"no line {pattern!r} in:\n" + "\n".join(self.lines))
                self._changed.wait(left)

    def ready(self, number: int) -> int:
        """Wait until a worker of that number is ready; its pid."""
        pid = int(self.expect(rf"fake {number} ready (\d+)")[1])
        self.expect(rf"INFO dynserve.workers: worker {number} \(pid {pid}\) is ready .*")
        return pid

    def told(self, *, without: Sequence[str] = ()) -> list[str]:
        """All lines so far, pids, ports and times left out."""
        with self._changed:
            lines = [re.sub(r"\(pid \d+\)|(?<=ready )\d+", "(pid)", line) for line in self.lines]
        lines = [re.sub(r"127.0.0.1:\d+, after [\d.]+ s", "PORT", line) for line in lines]
        return [line for line in lines if not any(re.search(one, line) for one in without)]

    def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def code(self) -> int:
        """Wait until the supervisor and its workers have ended; its exit code."""
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert not self._reader.is_alive(), "a worker is left"
        return code

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.code()


@contextlib.contextmanager
def killed_at_end(pid: int) -> Iterator[int]:
    """Whatever happens, this process does not stay."""
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
