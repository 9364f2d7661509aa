"""Supervisor: gRPC's server ends by itself, and another takes its place."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dynserve import AddressError, Kind, TerminatedError, supervisor
from tests.echo import ECHO, PATHS, app_with

WAIT = 20.0
SOON = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.use_local_subchannel_pool", 1),
]
# The path is decoded in the loop that accepts calls since some version between these two; 1.81 logs
# it and goes on.
ENDS_ITSELF = tuple(map(int, grpc.__version__.split(".")[:2])) >= (1, 85)
ends_itself = pytest.mark.skipif(
    not ENDS_ITSELF, reason=f"grpcio {grpc.__version__} is not ended by a path that is not UTF-8"
)
CAUSE = "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"


@pytest.fixture(autouse=True)
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine that ends by itself."""
    monkeypatch.setenv("DYNSERVE_ENGINE", "aio")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """https://www.rfc-editor.org/rfc/rfc9113#section-4.1"""
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def literal(name: bytes, value: bytes) -> bytes:
    """https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2"""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def send_path(address: str, path: bytes) -> None:
    """Call a method by a path of any bytes, and wait for what the server has to say to it."""
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"x",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    block = b"".join(literal(name, value) for name, value in headers.items())
    settings, request = frame(4, 0, 0, b""), frame(1, 4 | 1, 1, block)
    with _connected(address) as peer:
        peer.settimeout(WAIT)
        peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + request)
        said = b""
        while b"grpc-status" not in said and (more := peer.recv(65536)):
            said += more


def _connected(address: str) -> socket.socket:
    if address.startswith("unix:"):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(address.removeprefix("unix:"))
        return peer
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=WAIT)


def call(address: str) -> bytes:
    """Call until answered: a call may still reach the server that is on its way out."""
    passing = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    end = time.monotonic() + WAIT
    while True:
        try:
            with grpc.insecure_channel(address, SOON) as channel:
                method: Any = channel.unary_unary(f"/{PATHS[Kind.UNARY_UNARY]}")
                result: bytes = method(b"\x08\x01", timeout=WAIT, wait_for_ready=True)
                return result
        except grpc.RpcError as error:
            if error.code() not in passing or time.monotonic() > end:
                raise


async def unary(request: Any) -> Any:
    return request


async def chat(requests: Any) -> Any:
    async for request in requests:
        yield request


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_path_that_is_not_utf8_ends_no_server(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever bytes a peer sends for a path, others are soon served on the same address."""
    listen = f"unix:{tmp_path}/s" if kind == "unix" else "127.0.0.1:0"
    with app_with(unary, Kind.UNARY_UNARY).server(listen).in_thread() as server:
        [address] = server.addresses
        for _ in range(3):
            send_path(address, b"/\xff")
            assert call(address) == b"\x08\x01"
        assert server.addresses == (address,)
    told = [r.getMessage() for r in caplog.records if r.name == "dynserve.server"]
    ended = f"gRPC's server ended by itself: {CAUSE}; another takes its place"
    assert told == ([ended] * 3 if ENDS_ITSELF else [])


@ends_itself
def test_calls_under_way_go_on() -> None:
    """A stream is not cut off by what another peer sent; new calls are served beside it."""
    app = app_with(chat, Kind.STREAM_STREAM)
    app.add(unary, PATHS[Kind.UNARY_UNARY])
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with app.server("127.0.0.1:0").in_thread() as server:
        [address] = server.addresses
        with grpc.insecure_channel(address, SOON) as channel:
            method: Any = channel.stream_stream(f"/{PATHS[Kind.STREAM_STREAM]}")
            answers: Iterator[bytes] = method(iter(requests.get, None), timeout=WAIT)
            requests.put(b"\x08\x01")
            assert next(answers) == b"\x08\x01"
            send_path(address, b"/\xff")
            assert call(address) == b"\x08\x01"
            requests.put(b"\x08\x02")
            requests.put(None)
            assert list(answers) == [b"\x08\x02"]


@ends_itself
def test_stopping_ends_the_calls_of_earlier_servers() -> None:
    """A stream that outlived its server is cancelled by the stop as any other."""
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    async def main() -> grpc.StatusCode:
        async with app_with(chat, Kind.STREAM_STREAM).server("127.0.0.1:0") as server:
            [address] = server.addresses
            with grpc.insecure_channel(address, SOON) as channel:
                method: Any = channel.stream_stream(f"/{PATHS[Kind.STREAM_STREAM]}")
                answers = method(iter(requests.get, None), timeout=WAIT)
                requests.put(b"")
                await asyncio.to_thread(next, answers)
                await asyncio.to_thread(send_path, address, b"/\xff")
                await server.stop(None)
                await server.wait_for_termination()
                code: grpc.StatusCode = await asyncio.to_thread(answers.code)
                requests.put(None)
                return code

    code = asyncio.run(asyncio.wait_for(main(), WAIT))
    assert code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


@ends_itself
def test_too_often_is_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Past the bound nothing is served any more, and who waits is told why."""
    monkeypatch.setattr(supervisor, "_MAX_RESTARTS", 1)

    async def main() -> TerminatedError:
        server = app_with(unary, Kind.UNARY_UNARY).server("127.0.0.1:0")

        async def attack() -> None:
            await asyncio.to_thread(send_path, server.addresses[0], b"/\xff")
            await asyncio.to_thread(call, server.addresses[0])
            await asyncio.to_thread(send_path, server.addresses[0], b"/\xff")

        attacks: list[Any] = []
        with pytest.raises(TerminatedError) as caught:
            await server.run(ready=lambda: attacks.append(asyncio.ensure_future(attack())))
        await attacks[0]
        await server.stop()
        return caught.value

    error = asyncio.run(asyncio.wait_for(main(), WAIT))
    assert str(error) == f"gRPC's server ended by itself: {CAUSE}"
    assert isinstance(error.__cause__, UnicodeDecodeError)
    told = [(r.levelno, r.getMessage()) for r in caplog.records if r.name == "dynserve.server"]
    assert told == [
        (logging.ERROR, f"{error}; another takes its place"),
        (logging.CRITICAL, f"{error}; it did so too often and is not started again"),
    ]


@ends_itself
def test_an_address_that_was_taken_meanwhile_is_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What keeps the next server from starting is raised to who waits."""
    monkeypatch.setattr(supervisor, "_LISTENER_CLOSES", (0.0,))

    def refuse(*args: Any) -> str:
        raise AddressError("the address", "it is taken")

    async def main() -> AddressError:
        async with app_with(unary, Kind.UNARY_UNARY).server("127.0.0.1:0") as server:
            monkeypatch.setattr(supervisor, "add_port", refuse)
            await asyncio.to_thread(send_path, server.addresses[0], b"/\xff")
            with pytest.raises(AddressError) as caught:
                await server.wait_for_termination()
            return caught.value

    error = asyncio.run(asyncio.wait_for(main(), WAIT))
    assert str(error) == "cannot listen on the address: it is taken"
    assert str(error) in [record.getMessage() for record in caplog.records]


PLUGIN = f"""
import dynserve.supervisor
from dynserve import App
dynserve.supervisor._MAX_RESTARTS = 1
app = App({ECHO!r})

@app.rpc
def unary(request):
    return request
"""


@ends_itself
def test_run_ends_with_an_error(tmp_path: Path) -> None:
    """A process that can serve no more does not stay; its last line says why, its code is 1."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    with subprocess.Popen(
        [sys.executable, "-m", "dynserve", "run", "plugin.py", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith("Listening on "):
                address = line.split()[-1]
                break
        send_path(address, b"/\xff")
        assert call(address) == b"\x08\x01"
        send_path(address, b"/\xff")
        assert process.wait(WAIT) == 1
        assert process.stderr.read().splitlines()[-1] == (
            f"Error: gRPC's server ended by itself: {CAUSE}"
        )
