"""All that the queue engine uses of grpcio's private layer; nothing else imports it.

``grpc._cython.cygrpc`` is what grpcio's own ``grpc/_server.py`` is written on: thin classes over
the core's C interface, https://github.com/grpc/grpc/blob/master/include/grpc/grpc.h. It is not
public. What is used here is used by ``grpc/_server.py`` in the same way in every version from 1.81,
the lowest that is supported, to 1.85. ``probe`` finds out whether that still holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # compiled, without stubs

__all__ = [
    "ENCODING_KEY",
    "NO_COMPRESS",
    "NoCall",
    "Queue",
    "ReceiveClose",
    "ReceiveMessage",
    "SendHeaders",
    "SendMessage",
    "SendStatus",
    "auth_context",
    "make_server",
    "peer_identities",
    "peer_identity_key",
]

Queue = cygrpc.CompletionQueue  # poll(deadline) → event: tag, success, batch_operations or call
ReceiveMessage = cygrpc.ReceiveMessageOperation  # (flags); message() → bytes, None at the end
ReceiveClose = cygrpc.ReceiveCloseOnServerOperation  # (flags); cancelled() → bool
SendHeaders = cygrpc.SendInitialMetadataOperation  # (metadata, flags)
SendMessage = cygrpc.SendMessageOperation  # (bytes, flags)
SendStatus = cygrpc.SendStatusFromServerOperation  # (trailing metadata, code, details, flags)
BUFFER_HINT: int = cygrpc.WriteFlag.buffer_hint
NO_COMPRESS: int = cygrpc.WriteFlag.no_compress
ENCODING_KEY: str = cygrpc.GRPC_COMPRESSION_REQUEST_ALGORITHM_MD_KEY


def make_server(
    options: Iterable[tuple[str, Any]], compression: grpc.Compression | None, xds: bool
) -> Any:
    """A server of the core: ports, ``start``, ``request_call``, ``shutdown``, ``destroy``.

    With ``xds`` a control plane manages it, and adding a port tells -1.
    """
    arguments = tuple(options)
    if compression is not None:
        default = cygrpc.GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM
        arguments = ((default, int(compression)), *arguments)
    return cygrpc.Server(arguments, xds)


def peer_identities(call: Any) -> Sequence[bytes] | None:
    """What the peer's certificate proves."""
    identities: Sequence[bytes] | None = cygrpc.peer_identities(call)
    return identities


def peer_identity_key(call: Any) -> str | None:
    """Which property of the certificate the identities are."""
    key: bytes | None = cygrpc.peer_identity_key(call)
    return None if key is None else key.decode()


def auth_context(call: Any) -> Mapping[str, Iterable[bytes]]:
    """The properties of the connection's security."""
    return {key.decode(): value for key, value in (cygrpc.auth_context(call) or {}).items()}


class NoCall:
    """Stands in for a call of the core that is over, so that the core can free it."""

    def start_server_batch(self, operations: object, tag: object) -> int:
        """Nothing is sent or received any more."""
        return 0

    def cancel(self, *_status: object) -> None:
        """It is over."""

    def peer(self) -> bytes:
        """Nobody."""
        return b""
