"""The dump of what runs: from code, by the admin service, by a signal."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
from typing import Any

import grpc
import pytest

import dynserve
from dynserve import App, DynserveError, Kind
from tests.conftest import Serve
from tests.echo import ECHO, PATHS, Item, schema

pytestmark = pytest.mark.usefixtures("engine")

WAIT = 20.0


def test_tells_calls_threads_and_tasks(serve: Serve) -> None:
    """Each call with its peer, age and deadline; the lines that run, of handlers in both worlds."""
    release, entered = threading.Event(), threading.Barrier(3)

    def waits_on_a_thread(request: Any) -> Any:
        entered.wait(WAIT)
        release.wait(WAIT)
        return request

    async def waits_on_the_loop(requests: Any) -> Any:
        await asyncio.to_thread(entered.wait, WAIT)
        await asyncio.to_thread(release.wait, WAIT)
        return Item()

    app = App(schema=schema)
    app.add(waits_on_a_thread, PATHS[Kind.UNARY_UNARY])
    app.add(waits_on_the_loop, PATHS[Kind.STREAM_UNARY])
    with serve(app, admin=True) as client:
        calls = [
            client.method(PATHS[Kind.UNARY_UNARY]).future(Item(), timeout=WAIT),
            client.method(PATHS[Kind.STREAM_UNARY]).future(iter([])),
        ]
        entered.wait(WAIT)
        with dynserve.connect(client.address) as admin:
            text = admin.service("dynserve.admin.v1.Admin").Dump().text
        release.set()
        for call in calls:
            call.result(WAIT)
    lines = text.splitlines()
    told = [re.sub(r"127\.0\.0\.1:\d+|\d+\.\d{3}", "N", line) for line in lines]
    assert re.fullmatch(r"process \d+: 3 calls", lines[0])
    assert sorted(line for line in told if " from ipv4:" in line) == [
        "  /dynserve.admin.v1.Admin/Dump from ipv4:N: N s, no deadline",
        "  /echo.Echo/Unary from ipv4:N: N s, N s left",
        "  /echo.Echo/Up from ipv4:N: N s, no deadline",
    ]
    here = {line.rpartition(" ")[2] for line in lines if __file__ in line}
    assert {"waits_on_a_thread", "waits_on_the_loop"} <= here


def test_admin_serves_channelz(serve: Serve) -> None:
    """It counts the calls of the server."""
    app = App(schema=schema)
    app.add(lambda request: request, PATHS[Kind.UNARY_UNARY])
    with serve(app, admin=True) as client, dynserve.connect(client.address) as admin:
        client.call(PATHS[Kind.UNARY_UNARY], Item())
        servers = admin.service("grpc.channelz.v1.Channelz").GetServers().server
        assert any(server.data.calls_started > 0 for server in servers)


def test_admin_is_off_by_default(serve: Serve) -> None:
    """Nobody sees what runs unless the server is told to show it."""
    app = App(schema=schema)
    with serve(app) as client:
        call: Any = client.channel.unary_unary("/dynserve.admin.v1.Admin/Dump")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=WAIT)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_admin_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "grpc_channelz.v1", None)
    with pytest.raises(DynserveError) as caught:
        App(schema=schema).server(admin=True)
    assert str(caught.value) == "admin needs grpcio-channelz; run: pip install 'dynserve[admin]'"


PROGRAM = f"""
from dynserve import App
app = App({ECHO!r})
app.run("127.0.0.1:0")
"""


def test_a_signal_writes_it_to_standard_error() -> None:
    """SIGUSR1, as often as it comes; the server goes on."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("Listening on 127.0.0.1:")
            for _ in range(2):
                process.send_signal(signal.SIGUSR1)
                while process.stderr.readline() != f"process {process.pid}: 0 calls\n":
                    pass
            process.terminate()
            process.communicate(timeout=WAIT)
            assert process.returncode == 0
        finally:
            process.kill()
