"""grpc.health.v1 over real channels."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from dynserve import App, Schema
from dynserve.builtin.health import Health
from dynserve.server import Server

pytestmark = pytest.mark.usefixtures("engine")

Status = health_pb2.HealthCheckResponse
SERVING, NOT_SERVING = Status.SERVING, Status.NOT_SERVING
BUILTIN = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)


def _app(*services: str) -> App:
    """Services with one method each, that have a handler."""
    declared = "".join(f"service {name} {{ rpc Do(Empty) returns (Empty); }}" for name in services)
    app = App(f'syntax = "proto3"; package test; message Empty {{}} {declared}')
    for name in services:
        app.add(lambda request: request, f"test.{name}/Do")
    return app


class _Client:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        def method(kind: Any, name: str, response: Any) -> Any:
            return kind(
                f"/grpc.health.v1.Health/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=response.FromString,
            )

        self._check = method(channel.unary_unary, "Check", health_pb2.HealthCheckResponse)
        self._watch = method(channel.unary_stream, "Watch", health_pb2.HealthCheckResponse)

    async def check(self, service: str) -> int:
        response = await self._check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        return int(response.status)

    def watch(self, service: str) -> Any:
        return self._watch(health_pb2.HealthCheckRequest(service=service), timeout=30)


@asynccontextmanager
async def _serving(app: App, **options: Any) -> AsyncIterator[tuple[Server, _Client]]:
    async with (
        app.server("127.0.0.1:0", **options) as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        yield server, _Client(channel)


def _run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(main(), 30)

    asyncio.run(limited())


async def _rest(call: Any) -> list[int]:
    """What a watcher is told until the server lets it go."""
    statuses = []
    try:
        while True:
            statuses.append((await call.read()).status)
    except grpc.aio.AioRpcError:
        return statuses


def test_check() -> None:
    """The server and every service that it serves are SERVING from the start."""

    async def main() -> None:
        async with _serving(_app("One", "Two")) as (_, client):
            for name in ("", "test.One", "test.Two", *BUILTIN):
                assert await client.check(name) == SERVING

    _run(main)


def test_check_of_an_unknown_service() -> None:
    """Check of what is not served is NOT_FOUND."""

    async def main() -> None:
        async with _serving(_app("One")) as (_, client):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.check("test.Nope")
            status = caught.value.code(), caught.value.details()
            assert status == (grpc.StatusCode.NOT_FOUND, "unknown service 'test.Nope'")

    _run(main)


def test_a_long_name_is_told_again_in_short() -> None:
    """A status has little room: a client refuses one of more than some kilobytes."""

    async def main() -> None:
        async with _serving(_app("One")) as (_, client):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.check("x" * 1_000_000)
            status = caught.value.code(), caught.value.details()
            assert status == (grpc.StatusCode.NOT_FOUND, f"unknown service '{'x' * 199}...")
            watching = client.watch("x" * 1_000_000)
            assert (await watching.read()).status == Status.SERVICE_UNKNOWN

    _run(main)


def test_a_service_without_handlers_is_unknown() -> None:
    """A service of which nothing is served is not healthy."""

    async def main() -> None:
        app = App(
            'syntax = "proto3"; package test; service Hole { rpc Do(E) returns (E); } message E {}'
        )
        async with _serving(app) as (_, client):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.check("test.Hole")
            status = caught.value.code(), caught.value.details()
            assert status == (grpc.StatusCode.NOT_FOUND, "unknown service 'test.Hole'")

    _run(main)


@pytest.mark.skipif(
    not hasattr(health_pb2, "HealthListResponse"), reason="grpcio-health-checking before 1.85"
)
def test_list() -> None:
    """List tells of all services at once."""

    async def main() -> None:
        async with _serving(_app("One", "Two")) as (server, _):
            await server.set_health("test.Two", False)
            async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
                method: Any = channel.unary_unary("/grpc.health.v1.Health/List")
                response = health_pb2.HealthListResponse.FromString(await method(b"", timeout=10))  # type: ignore[attr-defined]  # the stub is older
            assert {name: item.status for name, item in response.statuses.items()} == {
                **dict.fromkeys(("", "test.One", *BUILTIN), SERVING),
                "test.Two": NOT_SERVING,
            }

    _run(main)


def test_watch_gets_changes() -> None:
    """A watcher is told the status at once and then each change of it, and of no other service."""

    async def main() -> None:
        async with _serving(_app("One", "Two")) as (server, client):
            watching = client.watch("test.One")
            assert (await watching.read()).status == SERVING
            await server.set_health("test.Two", False)
            await server.set_health("test.One", False)
            assert (await watching.read()).status == NOT_SERVING
            assert await client.check("test.One") == NOT_SERVING
            await server.set_health("test.One", True)
            assert (await watching.read()).status == SERVING

    _run(main)


def test_watch_of_an_unknown_service() -> None:
    """Watching what is not served is allowed: SERVICE_UNKNOWN until it is."""

    async def main() -> None:
        async with _serving(_app("One")) as (server, client):
            watching = client.watch("test.Two")
            assert (await watching.read()).status == Status.SERVICE_UNKNOWN
            await server.replace(_app("One", "Two"))
            assert (await watching.read()).status == SERVING

    _run(main)


def test_set_health_of_the_whole_server() -> None:
    """The empty name is the server as a whole, and independent of its services."""

    async def main() -> None:
        async with _serving(_app("One")) as (server, client):
            await server.set_health("", False)
            assert [await client.check(name) for name in ("", "test.One")] == [NOT_SERVING, SERVING]

    _run(main)


def test_replace() -> None:
    """Replacing: what is gone is unknown, what is new is SERVING, what stays is as it was set."""

    async def main() -> None:
        async with _serving(_app("Gone", "Sick", "Well")) as (server, client):
            watching = client.watch("test.Gone")
            assert (await watching.read()).status == SERVING
            await server.set_health("test.Sick", False)
            await server.replace(_app("Sick", "Well", "New"))
            assert (await watching.read()).status == Status.SERVICE_UNKNOWN
            for name in ("", "test.Well", "test.New", *BUILTIN):
                assert await client.check(name) == SERVING
            assert await client.check("test.Sick") == NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.check("test.Gone")
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    _run(main)


def test_a_service_that_comes_back_is_serving() -> None:
    """What was said of a service is forgotten with it."""

    async def main() -> None:
        async with _serving(_app("One")) as (server, client):
            await server.set_health("test.One", False)
            await server.replace(_app("Two"))
            await server.replace(_app("One"))
            assert await client.check("test.One") == SERVING

    _run(main)


def test_health_set_before_the_start() -> None:
    """A server may start as NOT_SERVING, and names of no service may be reported."""

    async def main() -> None:
        server = _app("One").server("127.0.0.1:0")
        await server.set_health("test.One", False)
        await server.set_health("database", True)
        async with server, grpc.aio.insecure_channel(server.addresses[0]) as channel:
            client = _Client(channel)
            assert await client.check("test.One") == NOT_SERVING
            assert await client.check("database") == SERVING

    _run(main)


def test_stop_tells_watchers_and_lets_them_go() -> None:
    """Watchers are told NOT_SERVING, then end, and so do not use up the grace of stop()."""

    async def main() -> None:
        async with _serving(_app("One")) as (server, client):
            watching = [client.watch(name) for name in ("", "test.One", "test.Nope")]
            for call in watching:
                await call.read()
            await asyncio.wait_for(server.stop(grace=600), 10)
            assert [await _rest(call) for call in watching] == [[NOT_SERVING], [NOT_SERVING], []]
            for call in watching:
                status = await call.code(), await call.details()
                assert status == (grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    _run(main)


def test_while_the_server_drains() -> None:
    """While calls under way finish, an open connection learns that nothing is served, for good."""

    async def main() -> None:
        started, finish = asyncio.Event(), asyncio.Event()
        app = App(
            'syntax = "proto3"; package test; service S { rpc Do(E) returns (E); } message E {}'
        )

        @app.rpc("test.S/Do")
        async def do(request: Any) -> Any:
            started.set()
            await finish.wait()
            return request

        async with (
            _serving(app) as (server, client),
            grpc.aio.insecure_channel(server.addresses[0]) as channel,
        ):
            watching = client.watch("test.S")
            await watching.read()
            method: Any = channel.unary_unary("/test.S/Do")
            call = method(b"")
            await started.wait()
            stopping = asyncio.ensure_future(server.stop(grace=600))
            assert (await watching.read()).status == NOT_SERVING
            await server.set_health("test.S", True)
            await server.replace(_app("Late"))
            assert server._health is not None
            assert set(server._health.statuses.values()) == {False}
            finish.set()
            assert await call == b""
            await asyncio.wait_for(stopping, 10)

    _run(main)


def _servicer(health: Health) -> Any:
    """What serves the methods."""
    return health.servicer(Schema.load(health_pb2))


def test_a_watcher_that_starts_while_the_server_drains() -> None:
    """It is told NOT_SERVING and let go like the others."""

    async def main() -> None:
        health = Health()
        health.serve(["test.S"])
        health.drain()
        health.serve(["test.S", "test.New"])
        health.let_go()
        written: list[tuple[str, int]] = []
        for name in ("test.S", "test.New", "test.Nope"):

            class Context:
                async def write(self, message: Any, name: str = name) -> None:
                    written.append((name, message.status))

            request = health_pb2.HealthCheckRequest(service=name)
            with pytest.raises(grpc.RpcError) as caught:
                await _servicer(health).Watch(request, Context())
            assert str(caught.value) == "UNAVAILABLE: the server is shutting down"
        assert written == [
            ("test.S", NOT_SERVING),
            ("test.New", NOT_SERVING),
            ("test.Nope", Status.SERVICE_UNKNOWN),
        ]

    _run(main)


def test_a_change_during_a_write_is_not_missed() -> None:
    """A watcher that is slow to take a status gets the one that it has come to meanwhile."""

    async def main() -> None:
        health = Health()
        health.serve(["test.S"])
        writing, go_on = asyncio.Event(), asyncio.Event()
        written: list[int] = []

        class Context:
            async def write(self, message: Any) -> None:
                written.append(message.status)
                writing.set()
                await go_on.wait()

        request = health_pb2.HealthCheckRequest(service="test.S")
        watching = asyncio.ensure_future(_servicer(health).Watch(request, Context()))
        await writing.wait()
        health.set("test.S", False)
        health.drain()
        health.let_go()
        go_on.set()
        with pytest.raises(grpc.RpcError):
            await watching
        assert written == [SERVING, NOT_SERVING]

    _run(main)


def test_a_watcher_that_does_not_read() -> None:
    """A client that takes no data holds up neither a change of health nor the end of the server."""

    async def main() -> None:
        async with _serving(_app("One")) as (server, client):
            stalled = await asyncio.to_thread(_watch_without_reading, server.addresses[0])
            with stalled:
                await asyncio.wait_for(server.set_health("", False), 10)
                assert await client.check("") == NOT_SERVING
                await asyncio.wait_for(server.stop(grace=0.1), 10)

    _run(main)


def _watch_without_reading(address: str) -> socket.socket:
    """A call of Watch, under way, on a connection that gives the server a window of no bytes.

    https://www.rfc-editor.org/rfc/rfc9113 (frames), https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2
    """

    DATA, HEADERS, SETTINGS = 0, 1, 4

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        head = struct.pack(">I", len(payload))[1:] + bytes((kind, flags))
        return head + struct.pack(">I", stream) + payload

    def header(name: str, value: str) -> bytes:
        return bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode()

    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Watch",
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))  # SETTINGS_INITIAL_WINDOW_SIZE = 0
        + frame(HEADERS, 4, 1, b"".join(header(*pair) for pair in headers.items()))
        + frame(DATA, 1, 1, b"\0\0\0\0\0")  # an empty message, END_STREAM
    )
    # The headers of the response are not subject to the window: they say that the handler writes.
    with connection.makefile("rb") as received:
        while (head := received.read(9))[3] != HEADERS:
            received.read(int.from_bytes(head[:3], "big"))
    return connection


def test_health_off() -> None:
    """Without health there is no such service, and setting it has no effect."""

    async def main() -> None:
        async with _serving(_app("One"), health=False) as (server, client):
            await server.set_health("", False)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.check("")
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED

    _run(main)
