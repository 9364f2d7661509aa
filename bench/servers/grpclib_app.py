"""The async handlers on grpclib: grpclib_app.py PORT

The mapping is what its protoc plugin would generate around the same messages.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import echo_pb2  # type: ignore[import-not-found]  # generated for each run, never committed
from grpclib.const import Cardinality, Handler  # type: ignore[import-not-found]
from grpclib.server import Server  # type: ignore[import-not-found]

from handlers import AsyncEcho


class Echo:
    """`bench.Echo` as grpclib wants it: every method gets the stream."""

    def __init__(self) -> None:
        self._echo = AsyncEcho(echo_pb2.SayReply, echo_pb2.Item)

    async def say(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(await self._echo.Say(request, stream))

    async def wait(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(await self._echo.Wait(request, stream))

    async def down(self, stream: Any) -> None:
        request = await stream.recv_message()
        async for item in self._echo.Down(request, stream):
            await stream.send_message(item)

    async def up(self, stream: Any) -> None:
        await stream.send_message(await self._echo.Up(stream, stream))

    async def chat(self, stream: Any) -> None:
        async for item in self._echo.Chat(stream, stream):
            await stream.send_message(item)

    def __mapping__(self) -> dict[str, Any]:
        item, say = echo_pb2.Item, (echo_pb2.SayRequest, echo_pb2.SayReply)
        return {
            "/bench.Echo/Say": Handler(self.say, Cardinality.UNARY_UNARY, *say),
            "/bench.Echo/Wait": Handler(self.wait, Cardinality.UNARY_UNARY, *say),
            "/bench.Echo/Down": Handler(self.down, Cardinality.UNARY_STREAM, item, item),
            "/bench.Echo/Up": Handler(self.up, Cardinality.STREAM_UNARY, item, item),
            "/bench.Echo/Chat": Handler(self.chat, Cardinality.STREAM_STREAM, item, item),
        }


async def serve(port: int) -> None:
    """Serves until the process is ended."""
    server = Server([Echo()])
    await server.start("127.0.0.1", port)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
