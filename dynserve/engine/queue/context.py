"""What a handler is told of its call, and what it says about its end: the part that needs no queue.

The names are those of ``grpc.ServicerContext`` and ``grpc.aio.ServicerContext``.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import grpc

from dynserve.engine.running import RunningCall

from . import core

__all__ = ["Aborted", "Context", "Metadata"]

Metadata = tuple[tuple[str, "str | bytes"], ...]

_FOREVER = 1e9  # seconds; a deadline further away than this is none
_ENCODINGS = {
    grpc.Compression.NoCompression: "identity",
    grpc.Compression.Deflate: "deflate",
    grpc.Compression.Gzip: "gzip",
}
_CODES: dict[Any, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_OVER = core.NoCall()


class Aborted(Exception):
    """What ``abort`` leaves a handler with; the call has its status already."""


class Context(abc.ABC):
    """A call of the core, as far as both worlds see it.

    Args:
        event: with which the core handed the call over.
    """

    # ---- the handler's
    _code: grpc.StatusCode | None = None
    _details = b""
    _trailing: Metadata = ()
    _flags = 0  # of the next message
    _encoding: str | None = None
    _is_aborted = False
    _is_finished = False  # its status went to the core
    _granted: float | None = None  # by time.monotonic(): when the server ends it
    # ---- the leader's
    _is_cancelled = False  # never reset
    _is_closed = False  # the core has told its end

    def __init__(self, event: Any) -> None:
        self._call = event.call
        self._asked = event  # for the path, the metadata and the deadline
        self._began = time.monotonic()

    @abc.abstractmethod
    def watch(self) -> None:
        """Have the core tell the end of the call as it comes; any thread."""

    def _let_go(self) -> None:  # leader
        """The call is over: the core may free it."""
        self._is_closed = True
        self._call = _OVER

    def _path(self) -> str:
        return str(self._asked.call_details.method.decode(errors="replace"))

    def described(self) -> RunningCall:
        """For whoever asks what runs; any thread."""
        seconds = time.monotonic() - self._began
        left = self.time_remaining()
        return RunningCall(self._path(), self.peer(), seconds, left, self._coroutine())

    def _coroutine(self) -> object:
        return None

    def _abort(self, code: grpc.StatusCode, details: str, trailing: Iterable[Any]) -> NoReturn:
        if code is grpc.StatusCode.OK:
            raise ValueError("a call cannot be aborted with OK")
        self.set_code(code)
        self.set_details(details)
        self._is_aborted = True
        trailing = tuple(trailing or ())
        if trailing:
            self._trailing = trailing
        raise Aborted(code, details)

    def is_active(self) -> bool:
        """Whether the call goes on, as far as is known."""
        self.watch()
        return not (self._is_cancelled or self._is_finished or self._is_closed)

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one, 0.0 once the call is over."""
        if self._is_closed:
            return 0.0
        left: float = self._asked.call_details.deadline - time.time()
        if self._granted is not None:
            left = min(left, self._granted - time.monotonic())
        return None if left > _FOREVER else max(left, 0.0)

    def invocation_metadata(self) -> Metadata:
        """What the client sent."""
        metadata: Metadata = self._asked.invocation_metadata
        return metadata

    def peer(self) -> str:
        """Who calls; empty once the call is over."""
        return str(self._call.peer().decode())

    def peer_identities(self) -> Iterable[bytes] | None:
        """What the client's certificate proves."""
        call = self._call
        return None if call is _OVER else core.peer_identities(call)

    def peer_identity_key(self) -> str | None:
        """Which property of the certificate the identities are."""
        call = self._call
        return None if call is _OVER else core.peer_identity_key(call)

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """The properties of the connection's security."""
        call = self._call
        return {} if call is _OVER else core.auth_context(call)

    def set_code(self, code: grpc.StatusCode) -> None:
        """The code of the status; a number is taken too, as grpc.aio does."""
        self._code = (
            code if type(code) is grpc.StatusCode else _CODES.get(code, grpc.StatusCode.UNKNOWN)
        )

    def code(self) -> grpc.StatusCode | None:
        """The code that was set."""
        return self._code

    def set_details(self, details: str | bytes) -> None:
        """The text of the status."""
        self._details = details if isinstance(details, bytes) else details.encode(errors="replace")

    def details(self) -> str:
        """The text that was set."""
        return self._details.decode(errors="replace")

    def set_trailing_metadata(self, trailing_metadata: Iterable[Any]) -> None:
        """What is sent with the status."""
        self._trailing = tuple(trailing_metadata or ())

    def trailing_metadata(self) -> Metadata:
        """What was set to be sent with the status."""
        return self._trailing

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress the responses of this call."""
        self._encoding = _ENCODINGS[compression]

    def disable_next_message_compression(self) -> None:
        """Send the next response as it is."""
        self._flags = core.NO_COMPRESS
