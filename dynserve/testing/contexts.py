"""Contexts without a call, to call handlers by: they are plain functions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from dynserve.context import NO_STATE, AsyncContext, Context, Shared
from dynserve.identity import Identity
from dynserve.method import MethodInfo
from dynserve.status import Metadata, checked_metadata

__all__ = ["FakeAsyncContext", "FakeContext"]

_log = logging.getLogger("dynserve.testing")

_PEER = "ipv4:127.0.0.1:50000"


class FakeContext(Context[Any]):
    """The context of a call that is not there, for a sync handler.

    ::

        context = FakeContext(metadata={"user": "ada"})
        assert get_feature(Point(latitude=1), context).name == "…"
        assert context.code() is None

    What the handler says can be asked: ``code()``, ``details()``, ``trailing_metadata()``, and
    ``initial_metadata``, which is None until it is sent. ``cancel()`` ends the call.

    Args:
        method: what is called, such as ``app.schema.method("pkg.Service/Method")``; for handlers
            that ask ``context.method``.
        metadata: what the client sent, a mapping or pairs.
        time_remaining: seconds until the deadline; None without one. 0.0 is a call that is over.
        peer: who calls.
        auth: the properties of the connection's security.
        identity: who calls, as authentication found it.
        state: what the app's lifespan gave.
    """

    def __init__(
        self,
        method: MethodInfo | None = None,
        *,
        metadata: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] = (),
        time_remaining: float | None = None,
        peer: str = _PEER,
        auth: Mapping[str, Iterable[bytes]] | None = None,
        identity: Identity | None = None,
        state: Any = NO_STATE,
    ) -> None:
        self._fake = _Call(metadata, time_remaining, peer, auth)
        self.identity = identity
        super().__init__(self._fake, method, Shared(state))  # type: ignore[arg-type]  # None: who asks sees it

    @property
    def initial_metadata(self) -> Metadata | None:
        """What the handler sent first; None where it sent nothing."""
        return self._fake.initial


class FakeAsyncContext(AsyncContext[Any]):
    """The context of a call that is not there, for an async handler.

    Beside what :class:`FakeContext` has: ``read()`` gives the ``requests`` one by one, and
    ``written`` is the list of what was written. Both raise ``asyncio.CancelledError`` once the call
    is over.
    """

    def __init__(
        self,
        method: MethodInfo | None = None,
        *,
        requests: Iterable[Any] = (),
        metadata: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] = (),
        time_remaining: float | None = None,
        peer: str = _PEER,
        auth: Mapping[str, Iterable[bytes]] | None = None,
        identity: Identity | None = None,
        state: Any = NO_STATE,
    ) -> None:
        self.identity = identity
        self._fake = _AsyncCall(metadata, time_remaining, peer, auth)
        self._fake.requests = iter(requests)
        super().__init__(self._fake, method, _same, _same, Shared(state))  # type: ignore[arg-type]  # as above

    @property
    def initial_metadata(self) -> Metadata | None:
        """What the handler sent first; None where it sent nothing."""
        return self._fake.initial

    @property
    def written(self) -> list[Any]:
        """What the handler wrote, as it was given."""
        return self._fake.written

    def cancel(self) -> bool:
        """End the call as a client that cancels it; whether there was one to end."""
        return self._fake.cancel()


def _same(value: Any) -> Any:
    return value


class _Call:
    """What the contexts stand on: an engine's context, of no call."""

    def __init__(
        self,
        metadata: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]],
        time_remaining: float | None,
        peer: str,
        auth: Mapping[str, Iterable[bytes]] | None,
    ) -> None:
        pairs = metadata.items() if isinstance(metadata, Mapping) else metadata
        self._metadata = checked_metadata(pairs)
        self._time_remaining = time_remaining
        self._peer = peer
        self._auth = dict(auth or {})
        self._callbacks: list[Callable[[], None]] = []
        self._is_over = False
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Metadata = ()
        self.initial: Metadata | None = None

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def peer(self) -> str:
        return self._peer

    def peer_identities(self) -> Iterable[bytes] | None:
        key = self.peer_identity_key()
        return None if key is None else self._auth[key]

    def peer_identity_key(self) -> str | None:
        keys = ("x509_subject_alternative_name", "x509_common_name")  # as gRPC's core prefers them
        return next((key for key in keys if key in self._auth), None)

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._auth

    def time_remaining(self) -> float | None:
        return self._time_remaining

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._trailing = metadata

    def trailing_metadata(self) -> Metadata:
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def set_details(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing is sent."""

    def disable_next_message_compression(self) -> None:
        """Nothing is sent."""

    def send_initial_metadata(self, metadata: Metadata) -> Any:
        if self.initial is not None:
            raise ValueError("Initial metadata no longer allowed!")  # grpcio's own words
        self.initial = metadata

    def is_active(self) -> bool:
        is_late = self._time_remaining is not None and self._time_remaining <= 0
        return not (self._is_over or is_late)

    def cancel(self) -> bool:
        if not self.is_active():
            return False
        self._is_over = True
        self._code = grpc.StatusCode.CANCELLED
        for callback in self._callbacks:
            _run(callback)
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self.is_active():
            self._callbacks.append(callback)
        return self.is_active()


def _run(callback: Callable[[], None]) -> None:
    """Run a callback as an engine does: what it raises is logged, and the others are run."""
    try:
        callback()
    except Exception:
        _log.exception("a callback at the end of a call failed")


class _AsyncCall(_Call):
    requests: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.written: list[Any] = []

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        self._check()
        super().send_initial_metadata(metadata)

    async def read(self) -> Any:
        self._check()
        return next(self.requests, grpc.aio.EOF)

    async def write(self, message: Any) -> None:
        self._check()
        self.written.append(message)

    def _check(self) -> None:
        if not self.is_active():
            raise asyncio.CancelledError

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        def run() -> None:
            callback(self)

        if not self.add_callback(run):
            _run(run)

    def cancelled(self) -> bool:
        return not self.is_active()

    def done(self) -> bool:
        return not self.is_active()
