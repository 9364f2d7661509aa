"""The async handlers as a connectrpc application, which pyvoy serves: pyvoy connect_app

The endpoints are what its protoc plugin generates with `protobuf=google`, so that the messages are
the same as everywhere here.
"""

from __future__ import annotations

from typing import Any

import echo_pb2  # type: ignore[import-not-found]  # generated for each run, never committed
from connectrpc.compat import google_protobuf_codecs  # type: ignore[import-not-found]
from connectrpc.method import (  # type: ignore[import-not-found]
    IdempotencyLevel,
    MethodInfo,
    StreamType,
)
from connectrpc.server import ConnectASGIApplication, Endpoint  # type: ignore[import-not-found]

from handlers import AsyncEcho


def _method(name: str, kind: StreamType, request: Any, response: Any) -> Any:
    return MethodInfo(
        name=name,
        service_name="bench.Echo",
        input=request,
        output=response,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=kind,
    )


def _endpoints(echo: AsyncEcho) -> dict[str, Any]:
    item, say = echo_pb2.Item, (echo_pb2.SayRequest, echo_pb2.SayReply)
    unary, down, up, chat = (
        StreamType.UNARY,
        StreamType.SERVER_STREAM,
        StreamType.CLIENT_STREAM,
        StreamType.BIDI_STREAM,
    )
    return {
        "/bench.Echo/Say": Endpoint.unary(_method("Say", unary, *say), echo.Say),
        "/bench.Echo/Wait": Endpoint.unary(_method("Wait", unary, *say), echo.Wait),
        "/bench.Echo/Down": Endpoint.server_stream(_method("Down", down, item, item), echo.Down),
        "/bench.Echo/Up": Endpoint.client_stream(_method("Up", up, item, item), echo.Up),
        "/bench.Echo/Chat": Endpoint.bidi_stream(_method("Chat", chat, item, item), echo.Chat),
    }


class Echo(ConnectASGIApplication):  # type: ignore[misc]  # Any, where it is not installed
    """`bench.Echo`."""

    path = "/bench.Echo"


app = Echo(
    service=AsyncEcho(echo_pb2.SayReply, echo_pb2.Item),
    endpoints=_endpoints,
    codecs=google_protobuf_codecs(),
)
