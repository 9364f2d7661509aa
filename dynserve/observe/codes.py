"""Which status codes are a fault of the server, for logs and traces alike.

They are those for which OpenTelemetry's conventions for gRPC have a server's span fail
(https://opentelemetry.io/docs/specs/semconv/rpc/grpc/). Any other is the caller's doing, or a
normal answer.
"""

from __future__ import annotations

import grpc

__all__ = ["SERVER_FAULTS"]

SERVER_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
