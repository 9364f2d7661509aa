"""Servers as programs in processes of their own: all that they print, and calls of them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from tests.echo import Item
from tests.running import ROOT

__all__ = ["SECONDS", "Program", "channel_to", "is_there", "number_from"]

SECONDS = 30.0


class Program:
    """A running program; all that it and its children print, line by line, in order."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._read = 0
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    @classmethod
    @contextlib.contextmanager
    def of(
        cls, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
    ) -> Iterator[Program]:
        """``with Program.of([sys.executable, "program.py"], folder) as program``."""
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        program = cls(process)
        try:
            yield program
        finally:
            for _ in range(3):  # the third one kills, workers too
                if process.poll() is None:
                    process.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(1)
            process.kill()
            process.wait()
            program._reader.join(SECONDS)
            if process.stdout is not None and not program._reader.is_alive():
                process.stdout.close()

    def _collect(self) -> None:
        for line in self.process.stdout or ():
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.lines.append("(end)")
            self._changed.notify_all()

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for a line that has this in it, after the one that was found last."""
        until = time.monotonic() + SECONDS
        with self._changed:
            while True:
                for at in range(self._read, len(self.lines)):
                    match = re.search(pattern, self.lines[at])
                    if match is not None:
                        self._read = at + 1
                        return match
                left = until - time.monotonic()
                if self.lines[-1:] == ["(end)"] or left <= 0:
                    raise AssertionError(f"no line {pattern!r} in:\n" + "\n".join(self.lines))
                self._changed.wait(left)

    def count(self, pattern: str) -> int:
        """How many lines so far have this in them."""
        with self._changed:
            return sum(re.search(pattern, line) is not None for line in self.lines)

    def address(self) -> str:
        """Where it says that it listens."""
        return self.expect(r"^Listening on (\S+)$")[1]

    def signal(self, number: int) -> None:
        """Send it a signal; its children get none."""
        self.process.send_signal(number)

    def code(self) -> int:
        """Wait until it and all who print with it have ended; its exit code."""
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert not self._reader.is_alive(), "a child is left"
        return code


def channel_to(address: str, *options: tuple[str, Any]) -> grpc.Channel:
    """A channel with a connection of its own."""
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1), *options])


def number_from(channel: grpc.Channel, method: str = "Unary", **options: Any) -> int:
    """The number in the response to an empty request."""
    call: Any = channel.unary_unary(f"/echo.Echo/{method}", response_deserializer=Item.FromString)
    options.setdefault("timeout", SECONDS)
    number: int = call(b"", **options).number
    return number


def is_there(pid: int) -> bool:
    """Whether a process runs, or nobody has waited for it yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
