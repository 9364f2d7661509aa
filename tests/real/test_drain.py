"""The end of a server: what load balancers, calls under way and new ones see, signal by signal."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dynserve import Kind
from tests.echo import ECHO, PATHS, Item
from tests.real.programs import SECONDS, Program, channel_to, number_from
from tests.wire.lab import Peer

Code = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WORLDS = ["sync", "async"]
ECHOED = ECHO.replace("rpc Unary", "rpc Quick(Item) returns (Item); rpc Unary")

HEAD = f"""
import asyncio, os, sys, threading, time
from dynserve import App

app = App({ECHOED!r}, OPTIONS)

def entered():
    os.write(1, b"entered\\n")

@app.rpc("echo.Echo/Quick")
def quick(request):
    return {{"number": 7}}
"""
HANDLERS = {
    "sync": """
def hold():
    entered()
    while not os.path.exists("release"):
        time.sleep(0.01)
    return {"number": 7}

@app.rpc("echo.Echo/Unary")
def unary(request):
    return hold()

@app.rpc("echo.Echo/Down")
def down(request):
    yield {"number": 1}
    yield hold()

@app.rpc("echo.Echo/Up")
def up(requests):
    next(requests)
    return hold()

@app.rpc("echo.Echo/Chat")
def chat(requests):
    next(requests)
    yield {"number": 1}
    yield hold()
""",
    "async": """
async def hold():
    entered()
    while not os.path.exists("release"):
        await asyncio.sleep(0.01)
    return {"number": 7}

@app.rpc("echo.Echo/Unary")
async def unary(request):
    return await hold()

@app.rpc("echo.Echo/Down")
async def down(request):
    yield {"number": 1}
    yield await hold()

@app.rpc("echo.Echo/Up")
async def up(requests):
    await anext(requests)
    return await hold()

@app.rpc("echo.Echo/Chat")
async def chat(requests):
    await anext(requests)
    yield {"number": 1}
    yield await hold()
""",
}
LIFESPAN = """
@app.lifespan
def lifespan():
    yield
    os.write(1, b"the lifespan ends\\n")
    time.sleep(60)
"""
TAIL = '\nif __name__ == "__main__":\n    app.run("127.0.0.1:0")\n'


@pytest.fixture(params=["queue", "aio"], autouse=True)
def engine_of_server(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test runs on both engines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNSERVE_ENGINE", request.param)
        yield


@contextlib.contextmanager
def started(folder: Path, options: str, world: str = "sync", more: str = "") -> Iterator[Program]:
    """A server with these settings; whoever holds out for calls can let them go."""
    text = HEAD.replace("OPTIONS", options) + HANDLERS[world] + more + TAIL
    (folder / "program.py").write_text(text)
    with Program.of([sys.executable, "program.py"], folder) as program:
        yield program


class Held:
    """A call of each kind, under way; what it gives, or its status, once it is over."""

    def __init__(self, channel: grpc.Channel, program: Program) -> None:
        self._over = threading.Event()
        self.results: dict[Kind, Any] = {}
        self._threads = []
        for kind in Kind:
            thread = threading.Thread(target=self._call, args=(channel, kind), daemon=True)
            thread.start()
            self._threads.append(thread)
            program.expect("^entered$")

    def _requests(self) -> Iterator[Any]:
        yield b""
        self._over.wait(SECONDS)  # open as long as the call is

    def _call(self, channel: grpc.Channel, kind: Kind) -> None:
        make: Any = getattr(channel, kind.name.lower())
        method = make(f"/{PATHS[kind]}", response_deserializer=Item.FromString)
        try:
            given = self._requests() if kind.request_streaming else b""
            response = method(given, timeout=SECONDS)
            items = list(response) if kind.response_streaming else [response]
            self.results[kind] = [item.number for item in items]
        except grpc.RpcError as error:
            status: Any = error
            self.results[kind] = status.code()

    def wait(self) -> dict[Kind, Any]:
        """Wait for all."""
        for thread in self._threads:
            thread.join(SECONDS)
        self._over.set()
        return self.results


DONE = {kind: [1, 7] if kind.response_streaming else [7] for kind in Kind}


def release(folder: Path) -> None:
    """Let the calls under way finish."""
    (folder / "release").touch()


def wait_until_refused(address: str) -> None:
    """Until nobody can connect any more."""
    until = time.monotonic() + SECONDS
    while True:
        assert time.monotonic() < until
        with channel_to(address) as channel:
            try:
                number_from(channel, "Quick")
            except grpc.RpcError:
                return


class Watched:
    """The health of a server, as one who watches it and one who asks see it."""

    def __init__(self, channel: grpc.Channel) -> None:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        self._stub = stub
        self._watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)

    def told(self) -> tuple[int, int]:
        """What is told next to who watches, and then to who asks: the server's and a service's."""
        told = next(self._watch).status
        for service in ("", "echo.Echo"):
            request = health_pb2.HealthCheckRequest(service=service)
            assert self._stub.Check(request, timeout=SECONDS).status == told
        return int(told), int(told)

    def end(self) -> tuple[grpc.StatusCode, str]:
        """The status that watching ends with."""
        with pytest.raises(grpc.RpcError):
            next(self._watch)
        return self._watch.code(), self._watch.details()


@pytest.mark.parametrize("world", WORLDS)
def test_load_balancers_are_told_first(tmp_path: Path, world: str) -> None:
    """SIGTERM: NOT_SERVING at once, while calls are served as before, on old and new connections;
    then GOAWAY, and what is under way finishes."""
    with (
        started(tmp_path, "drain_wait=2, grace=60", world) as program,
        contextlib.ExitStack() as stack,
    ):
        address = program.address()
        channel = stack.enter_context(channel_to(address))
        watched = Watched(stack.enter_context(channel_to(address)))
        peer = stack.enter_context(Peer(address))
        assert watched.told() == (SERVING, SERVING)
        held = Held(channel, program)
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        assert watched.told() == (NOT_SERVING, NOT_SERVING)
        with channel_to(address) as new:
            assert [number_from(one, "Quick") for one in (channel, new)] == [7, 7]
        assert peer.ping()
        goaway_too_soon = peer.goaway
        assert watched.end() == (Code.UNAVAILABLE, "the server is shutting down")
        waited = time.monotonic() - began
        peer.until(lambda: peer.goaway is not None)
        wait_until_refused(address)
        release(tmp_path)
        assert held.wait() == DONE
        assert program.code() == 0
    assert (goaway_too_soon, peer.goaway and peer.goaway[0]) == (None, "NO_ERROR")
    assert waited > 1.9


@pytest.mark.parametrize("world", WORLDS)
def test_what_is_left_after_the_grace_time(tmp_path: Path, world: str) -> None:
    """It is cancelled, with UNAVAILABLE for who waits for it; the exit code is 0."""
    with started(tmp_path, "grace=0.5", world) as program, channel_to(program.address()) as channel:
        held = Held(channel, program)
        program.signal(signal.SIGTERM)
        found = held.wait()
        release(tmp_path)
        code = program.code()
    assert (found, code) == (dict.fromkeys(Kind, Code.UNAVAILABLE), 0)


@pytest.mark.parametrize("world", WORLDS)
def test_ctrl_c_does_not_wait_for_load_balancers(tmp_path: Path, world: str) -> None:
    """SIGINT is a person's; calls under way finish all the same."""
    with (
        started(tmp_path, "drain_wait=600, grace=60", world) as program,
        channel_to(program.address()) as channel,
    ):
        held = Held(channel, program)
        watched = Watched(channel)
        assert watched.told() == (SERVING, SERVING)
        program.signal(signal.SIGINT)
        program.expect(r"^Waiting up to 60 s for calls under way; stop again to cancel them$")
        release(tmp_path)
        assert held.wait() == DONE
        assert program.code() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("drain_wait", [0, 600])
@pytest.mark.parametrize("world", WORLDS)
def test_a_second_signal_stops_at_once(
    tmp_path: Path, world: str, drain_wait: int, number: int
) -> None:
    """Whether it waits for load balancers or for calls; these are cancelled."""
    with (
        started(tmp_path, f"drain_wait={drain_wait}, grace=600", world) as program,
        channel_to(program.address()) as channel,
        channel_to(program.lines[0].split()[-1]) as other,
    ):
        held = Held(channel, program)
        watched = Watched(other)
        assert watched.told() == (SERVING, SERVING)
        program.signal(signal.SIGTERM)
        if drain_wait:
            assert watched.told() == (NOT_SERVING, NOT_SERVING)
        else:
            program.expect(r"^Waiting up to 600 s for calls under way; stop again to cancel them$")
        program.signal(number)
        found = held.wait()
        release(tmp_path)
        code = program.code()
    assert (found, code) == (dict.fromkeys(Kind, Code.UNAVAILABLE), 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_third_signal_ends_the_process(tmp_path: Path, number: int) -> None:
    """Whatever still runs, such as the end of a lifespan; the exit code is as shells have it."""
    with (
        started(tmp_path, "grace=600", "sync", LIFESPAN) as program,
        channel_to(program.address()) as channel,
    ):
        held = Held(channel, program)
        program.signal(number)
        program.expect(r"^Waiting up to 600 s for calls under way; ")
        program.signal(number)
        found = held.wait()
        program.expect("^the lifespan ends$")
        program.signal(number)
        code = program.code()
    assert (found, code) == (dict.fromkeys(Kind, Code.UNAVAILABLE), 128 + number)


@pytest.mark.parametrize("world", WORLDS)
def test_a_handler_that_never_ends_does_not_keep_the_process(tmp_path: Path, world: str) -> None:
    """When its call was cancelled nobody waits for its thread."""
    with started(tmp_path, "grace=0", world) as program, channel_to(program.address()) as channel:
        held = Held(channel, program)
        program.signal(signal.SIGTERM)
        assert held.wait() == dict.fromkeys(Kind, Code.UNAVAILABLE)
        assert program.code() == 0
