"""Long streams take no thread from unary calls, and nothing at all from health and reflection."""

from __future__ import annotations

import contextlib
import queue
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.echo import ECHO, Item
from tests.real.programs import SECONDS, Program, channel_to, number_from

THREADS = 4
CALLS = 50
BOUND = 2.0  # seconds; measured: milliseconds
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
LIST = b"\x3a\x00"

PROGRAM = f"""
import threading
from dynserve import App

app = App({ECHO!r})
entered, released = threading.Semaphore(0), threading.Event()

@app.rpc("echo.Echo/Unary")
def unary(request):
    if request.text == "hold":
        entered.release()
        released.wait({SECONDS})
    return {{"number": 7}}

@app.rpc("echo.Echo/Chat")
def chat(requests):
    for request in requests:
        if request.text == "entered":
            entered.acquire()
        if request.text == "release":
            released.set()
        yield request

app.run("127.0.0.1:0", threads={THREADS}, grace=0)
"""


@pytest.fixture(scope="module", params=["queue", "aio"])
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where a server with four threads listens, in a process of its own."""
    folder = tmp_path_factory.mktemp("starvation")
    (folder / "program.py").write_text(PROGRAM)
    env = {"DYNSERVE_ENGINE": request.param}
    with Program.of([sys.executable, "program.py"], folder, env) as program:
        yield program.address()


class Stream:
    """An open bidirectional stream that answers each request with one response."""

    def __init__(self, channel: grpc.Channel, path: str) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        make: Any = channel.stream_stream(path)
        self._call = make(iter(self._requests.get, None), timeout=SECONDS)

    def ask(self, request: bytes) -> bytes:
        """Send a request and wait for its response."""
        self._requests.put(request)
        response: bytes = next(self._call)
        return response

    def close(self) -> None:
        """End it."""
        self._call.cancel()
        self._requests.put(None)


@contextlib.contextmanager
def opened(channel: grpc.Channel, path: str, request: bytes, count: int) -> Iterator[list[Stream]]:
    """So many streams, each of which has answered once."""
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(count):
            stream = Stream(channel, path)
            stack.callback(stream.close)
            assert stream.ask(request)
            streams.append(stream)
        yield streams


def seconds_of(call: Callable[[], object]) -> list[float]:
    """How long each of some calls took, in seconds, in order."""
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return sorted(took)


@pytest.mark.parametrize("streams", [THREADS, 10 * THREADS])
def test_streams_starve_nobody(address: str, streams: int) -> None:
    """Four threads, as many streams of each sort, or ten times as many: all else is answered."""
    with channel_to(address) as channel, channel_to(address) as other:
        health: Any = health_pb2_grpc.HealthStub(other)
        item = Item(number=1).SerializeToString()
        with (
            opened(channel, "/echo.Echo/Chat", item, streams) as chats,
            opened(channel, REFLECTION, LIST, streams) as reflections,
        ):

            def reflect() -> None:
                stream = Stream(other, REFLECTION)
                assert b"echo.Echo" in stream.ask(LIST)
                stream.close()

            found = {
                "unary": seconds_of(lambda: number_from(other)),
                "health": seconds_of(
                    lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
                ),
                "new reflection": seconds_of(reflect),
                "the open streams": seconds_of(lambda: chats[-1].ask(item)),
                "the open reflection": seconds_of(lambda: reflections[0].ask(LIST)),
            }
            assert {stream.ask(item) for stream in chats} == {item}
    for name, took in found.items():
        median, longest = statistics.median(took) * 1000, took[-1] * 1000
        print(f"{streams} streams of each: {name}: median {median:.2f} ms, max {longest:.2f} ms")
    assert {name: took[-1] for name, took in found.items() if took[-1] >= BOUND} == {}


def test_unary_calls_starve_no_other(address: str) -> None:
    """Where unary handlers have taken all threads, streams, health and reflection go on; one
    more unary call is answered in the end."""
    hold, entered, release = (
        Item(text=text).SerializeToString() for text in ("hold", "entered", "release")
    )
    with channel_to(address) as channel, channel_to(address) as other:
        call: Any = channel.unary_unary("/echo.Echo/Unary", response_deserializer=Item.FromString)
        health: Any = health_pb2_grpc.HealthStub(other)
        with (
            opened(other, "/echo.Echo/Chat", Item(number=1).SerializeToString(), 1) as (chat,),
            opened(other, REFLECTION, LIST, 1) as (reflection,),
        ):
            held = []
            for _ in range(THREADS):
                held.append(call.future(hold, timeout=SECONDS))
                assert chat.ask(entered) == entered
            waiting = call.future(b"", timeout=SECONDS)
            found = {
                "health": seconds_of(
                    lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
                ),
                "streams": seconds_of(lambda: chat.ask(hold)),
                "reflection": seconds_of(lambda: reflection.ask(LIST)),
            }
            over = [one.done() for one in held]
            chat.ask(release)
            numbers = [one.result().number for one in (*held, waiting)]
    for name, took in found.items():
        median, longest = statistics.median(took) * 1000, took[-1] * 1000
        print(f"no thread for unary calls: {name}: median {median:.2f} ms, max {longest:.2f} ms")
    assert (over, numbers) == ([False] * THREADS, [7] * (THREADS + 1))
    assert {name: took[-1] for name, took in found.items() if took[-1] >= BOUND} == {}
