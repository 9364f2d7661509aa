"""What a supervisor and a worker say to each other: lines of JSON over a pair of sockets.

Each line is an object with one entry, the kind of message and its value. Both ends are of one
installation, so there is no version. From a worker::

    {"ready": ["127.0.0.1:50051"]}    it serves, there
    {"health": {"pkg.Shop": false}}   what its program has set; all of it, every time

From the supervisor::

    {"health": {"pkg.Shop": false}}   what the other workers say; the first message there is
    {"stop": "replaced"}              a successor serves: stop, but report no failing health
    {"stop": "stopping"}              the whole server stops
    {"stop": "interrupted"}           … at once, for someone who waits at a terminal (Ctrl-C)
    {"cancel": true}                  … and does not wait for calls under way any more

A message says how things are, not what has changed, so of several that wait to be sent the newest
of a kind is enough. That bounds what is kept for an end that does not read.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

__all__ = ["STOPS", "VARIABLE", "Channel", "Message", "Received"]

VARIABLE = "DYNSERVE_WORKER"  # of a worker's environment: where its end is, and who it is; JSON
STOPS = ("stopping", "replaced", "interrupted")  # why a worker is to stop

_LONGEST = 1 << 20  # bytes of a line, and of what is read at once
_PIECE = 1 << 16
_SHOWN = 80  # bytes of what is no message


class Message(NamedTuple):
    """One line."""

    kind: str
    value: Any


class Received(NamedTuple):
    """What has come in.

    ``is_open`` is False where no more can come: the other end is closed, or what came in is no
    message, and ``problem`` says so.
    """

    messages: list[Message]
    is_open: bool
    problem: str = ""


class Channel:
    """One end, which never blocks. Used on one thread."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._waiting: dict[str, Any] = {}
        self._unsent = b""
        self._unread = b""

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._end.fileno()

    def send(self, kind: str, value: Any) -> bool:
        """Send a message in place of an older one of its kind that still waits; see :meth:`flush`.

        Messages of different kinds may change places.
        """
        self._waiting[kind] = value
        return self.flush()

    def flush(self) -> bool:
        """Send what waits. False: call again when the socket can be written to."""
        while self._unsent or self._waiting:
            if not self._unsent:
                kind = next(iter(self._waiting))
                self._unsent = json.dumps({kind: self._waiting.pop(kind)}).encode() + b"\n"
            try:
                sent = self._end.send(self._unsent)
            except BlockingIOError:
                return False
            except OSError:  # nobody is there; reading tells the same
                self._unsent = b""
                self._waiting.clear()
                return True
            self._unsent = self._unsent[sent:]
        return True

    def receive(self) -> Received:
        """What has come in since it was last asked."""
        is_open, count = True, 0
        while is_open and count < _LONGEST:
            try:
                piece = self._end.recv(_PIECE)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            self._unread += piece
            count += len(piece)
            is_open = bool(piece)
        *lines, self._unread = self._unread.split(b"\n")
        messages: list[Message] = []
        for line in lines:
            message = _message(line)
            if message is None:
                return Received(messages, False, f"no message: {line[:_SHOWN]!r}")
            messages.append(message)
        if len(self._unread) > _LONGEST:
            return Received(messages, False, f"a line of more than {_LONGEST} bytes")
        return Received(messages, is_open)

    def close(self) -> None:
        """Close this end, which the other one sees."""
        self._end.close()


def _message(line: bytes) -> Message | None:
    try:
        value = json.loads(line)
    except ValueError:  # also where it is not UTF-8
        return None
    if not isinstance(value, dict) or len(value) != 1:
        return None
    message = Message(*next(iter(value.items())))
    fits = _FITS.get(message.kind)
    return message if fits is not None and fits(message.value) else None


def _are(kind: type, values: Iterable[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)


# Whether a value fits its kind of message.
_FITS: dict[str, Callable[[Any], bool]] = {
    "ready": lambda value: isinstance(value, list) and _are(str, value),
    "health": lambda value: isinstance(value, dict) and _are(bool, value.values()),
    "stop": lambda value: value in STOPS,
    "cancel": lambda value: value is True,
}
