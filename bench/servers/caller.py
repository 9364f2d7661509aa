"""Unary calls by a stub of dynserve and by a generated one on the same channel, one at a time.

caller.py PORT WORLD SECONDS [TURNED]: prints, as JSON, µs and CPU µs a call of each by name. WORLD
is sync or async. The two take turns of a few calls, so that what else happens meets both alike.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import echo_pb2  # type: ignore[import-not-found]  # made by the run
import echo_pb2_grpc  # type: ignore[import-not-found]

import dynserve

PROTO = Path(__file__).parent.parent / "echo.proto"
BATCH, WARM = 50, 10  # calls, batches


class Clock:
    """What the calls of one name have taken."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = self.cpu = 0.0
        self._start = self._cpu = 0.0

    def __enter__(self) -> None:
        self._start, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start
        self.cpu += time.process_time() - self._cpu
        self.calls += BATCH

    def told(self) -> dict[str, float]:
        """By call."""
        return {"us": self.seconds / self.calls * 1e6, "cpu us": self.cpu / self.calls * 1e6}


def measured(
    batches: dict[str, Callable[[], object]], seconds: float, turned: bool
) -> dict[str, Clock]:
    """Runs the batches in turn for so long."""
    clocks = {name: Clock() for name in batches}
    for _ in range(WARM):
        for batch in batches.values():
            batch()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name in reversed(batches) if turned else batches:
            with clocks[name]:
                batches[name]()
    return clocks


def sync(target: str, seconds: float, turned: bool) -> dict[str, Clock]:
    """Blocking calls."""

    def batch_of(call: Callable[[Any], Any], request: Any) -> Callable[[], object]:
        def batch() -> None:
            for _ in range(BATCH):
                call(request)

        return batch

    with dynserve.connect(target, str(PROTO)) as client:
        own = client.schema.message("bench.SayRequest")(name="world")
        generated: Any = echo_pb2_grpc.EchoStub(client.channel).Say
        batches = {
            "dynserve": batch_of(client.service("bench.Echo").Say, own),
            "generated stub": batch_of(generated, echo_pb2.SayRequest(name="world")),
        }
        return measured(batches, seconds, turned)


def on_loop(target: str, seconds: float, turned: bool) -> dict[str, Clock]:
    """Calls that are awaited."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    def batch_of(call: Callable[[Any], Awaitable[Any]], request: Any) -> Callable[[], object]:
        async def batch() -> None:
            for _ in range(BATCH):
                await call(request)

        return lambda: loop.run_until_complete(batch())

    client = dynserve.aio.connect(target, str(PROTO))
    stub = loop.run_until_complete(client.service("bench.Echo"))
    own = client.schema.message("bench.SayRequest")(name="world")
    generated: Any = echo_pb2_grpc.EchoStub(client.channel).Say
    batches = {
        "dynserve": batch_of(stub.Say, own),
        "generated stub": batch_of(generated, echo_pb2.SayRequest(name="world")),
    }
    try:
        return measured(batches, seconds, turned)
    finally:
        loop.run_until_complete(client.close())


def main() -> None:
    """See above."""
    port, world, seconds, *turned = sys.argv[1:]
    run = sync if world == "sync" else on_loop
    clocks = run(f"127.0.0.1:{port}", float(seconds), bool(turned))
    print(json.dumps({name: clock.told() for name, clock in clocks.items()}))


main()
