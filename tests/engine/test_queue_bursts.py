"""Messages that follow one another at once leave together, and none is ever kept back.

The core is told of a message that another one follows it (``buffer_hint``): it need not leave yet.
Were that wrong once, the message would lie in the core until something else moves the stream. Here
nothing else does: who is served goes on only when it has had all that was sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from dynserve.engine.queue import QueueEngine
from dynserve.engines import new_event_loop
from tests.engine.test_engines import WAIT, Channel, generic, run

STREAMS, TOGETHER = 1000, 100
# bytes: next to nothing, and around what a frame, the core's buffer and a window hold
SIZES = (0, 1, 1, 10, 10, 100, 1000, 16_379, 16_380, 32_000, 65_530, 65_536, 70_000)
_CANCELLED = 7  # of so many streams one is cancelled by the client


def bursts(seed: int) -> list[list[bytes]]:
    """What a stream sends before it waits to be told to go on, several times."""
    chosen = random.Random(seed)
    heavy = chosen.random() < 0.1  # or the test would take long
    sizes = SIZES if heavy else SIZES[:7]
    return [
        [bytes(chosen.choice(sizes)) for _ in range(chosen.choice((1, 1, 1, 2, 2, 3, 5, 70)))]
        for _ in range(chosen.randint(1, 2))
    ]


def serve(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
    for burst in bursts(int(next(requests))):
        yield from burst
        next(requests)


async def serve_async(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    for burst in bursts(int(await anext(requests))):
        for message in burst:
            yield message
        await anext(requests)


async def write_async(_requests: AsyncIterator[bytes], context: Any) -> None:
    for burst in bursts(int(await context.read())):
        for message in burst:
            await context.write(message)
        await context.read()


async def follow(method: Any, seed: int) -> None:
    """Be served one stream, and see that everything comes, in its order."""
    call = method(timeout=WAIT * 2)
    await call.write(b"%d" % seed)
    for burst in bursts(seed):
        for expected in burst:
            assert await call.read() == expected
            if seed % _CANCELLED == 0 and len(expected) == 100:
                call.cancel()
                return
        await call.write(b"go on")
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("loop_leads", [False, True], ids=["poller", "loop"])
@pytest.mark.parametrize("handler", [serve, serve_async, write_async])
def test_a_thousand_odd_streams_are_never_kept_waiting(handler: Any, loop_leads: bool) -> None:
    """Whatever is sent in whatever bursts comes without anything else that moves the stream."""

    async def main() -> None:
        go: Any = grpc.stream_stream_rpc_method_handler(handler)
        engine = QueueEngine([generic(Go=go)])
        port = engine.add_port("127.0.0.1:0")
        await engine.start()
        turns = asyncio.Semaphore(TOGETHER)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method: Any = channel.stream_stream("/a.B/Go")

            async def one(seed: int) -> None:
                async with turns:
                    await follow(method, seed)

            await asyncio.gather(*(one(seed) for seed in range(STREAMS)))
        await engine.stop(None)

    loop = new_event_loop("queue") if loop_leads else asyncio.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(main(), WAIT * 2))
    finally:
        loop.close()


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("refused", ["a message", "the trailing metadata"])
def test_what_was_sent_comes_before_what_the_core_refuses(
    world: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the core is lost when it refuses the next: so none is left there before that."""
    monkeypatch.setenv("DYNSERVE_ENGINE", "queue")

    def down(_request: bytes, context: Any) -> Iterator[bytes]:
        for number in range(5):
            yield b"%d" % number
        if refused == "a message":
            yield bytes(2000)
        else:
            context.set_trailing_metadata((("UPPER", "x"),))
            yield b"last"

    async def down_async(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for message in down(request, context):
            yield message

    def client(channel: Channel) -> tuple[list[bytes], grpc.StatusCode]:
        call = channel.unary_stream("/a.B/Down")(b"", timeout=WAIT)
        came: list[bytes] = []
        with pytest.raises(grpc.RpcError):
            came.extend(message for message in call)
        return came, call.code()

    handler: Any = down if world == "sync" else down_async
    served = generic(Down=grpc.unary_stream_rpc_method_handler(handler))
    options = [("grpc.max_send_message_length", 1000)]
    everything = [b"%d" % number for number in range(5)]
    for _ in range(20):
        came, code = run(served, client, options=options)
        if refused == "a message":
            assert (came, code) == (everything, grpc.StatusCode.RESOURCE_EXHAUSTED)
        else:
            assert code is grpc.StatusCode.INTERNAL
            assert came in (everything, [*everything, b"last"])  # which may have left before
