"""A long mixed load on one server, or many starts and stops under load; 1 where a call was lost.

    python bench/soak.py --seconds 600 --engine queue
    python bench/soak.py --starts 50 --engine queue

Every call must end with a status that fits what was asked, and with the right answer where it is
OK. The server's memory is sampled; at the end it gets SIGTERM with calls under way and has to be
gone within its grace time.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc

APP = Path(__file__).parent / "servers" / "soak_app.py"
PROTO = APP.parent / "soak.proto"
GRACE = 2.0
_Code = grpc.StatusCode
# What may become of a call by what is done to it.
MAY_BE = {
    "plain": {_Code.OK},
    "abort": {_Code.ABORTED},
    "raise": {_Code.INTERNAL},
    "deadline": {_Code.OK, _Code.DEADLINE_EXCEEDED},
    "cancel": {_Code.OK, _Code.CANCELLED},
}
STOPPING = {_Code.UNAVAILABLE, _Code.CANCELLED}


# ---- the server


class Server:
    """The server in a process of its own."""

    def __init__(self, engine: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(APP), engine, str(GRACE)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # tracebacks that were asked for
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def megabytes(self) -> float:
        """Resident memory."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> float:
        """SIGTERM; how long it took to end, in seconds."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(GRACE + 8)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit("FAILED: the server did not stop") from None
        if code:
            raise SystemExit(f"FAILED: the server ended with {code}")
        return time.monotonic() - start


# ---- the load


class Load:
    """Threads that call until they are told to stop."""

    def __init__(self, address: str, threads: int, seed: int) -> None:
        from dynserve import Schema

        self.message = Schema.load(PROTO).message("soak.M")
        self.address = address
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.is_stopping = False  # from here on calls may be refused
        self.is_over = threading.Event()
        self.threads = [
            threading.Thread(target=self._run, args=(seed + n,), daemon=True)
            for n in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        """Stop, and wait for the calls under way."""
        self.is_over.set()
        for thread in self.threads:
            thread.join(40)
            if thread.is_alive():
                self.wrong.append("a call never ended")

    def _run(self, seed: int) -> None:
        rng = random.Random(seed)
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(self.address, options=options) as channel:
            while not self.is_over.is_set():
                self._call(rng, channel)

    def _call(self, rng: random.Random, channel: Any) -> None:
        world, kind = rng.choice(("Sync", "Async")), rng.choice(("One", "Down", "Up", "Chat"))
        fate = rng.choices(tuple(MAY_BE), (70, 5, 5, 10, 10))[0]
        count = rng.choice((1, 3, 30, 300))
        data = bytes(rng.choice((0, 10, 1000, 50_000)) if count < 300 else 10)
        how = fate if fate in ("abort", "raise") else rng.choice(("", "", "", "slow"))
        make = {"One": "unary_unary", "Down": "unary_stream", "Up": "stream_unary"}
        method = getattr(channel, make.get(kind, "stream_stream"))(
            f"/soak.{world}/{kind}",
            request_serializer=self.message.SerializeToString,
            response_deserializer=self.message.FromString,
        )
        M = self.message
        streams = kind in ("Up", "Chat")
        request = (
            (M(n=i, data=data, how=how) for i in range(count))
            if streams
            else M(n=count, data=data, how=how)
        )
        timeout = rng.uniform(0.0005, 0.05) if fate == "deadline" else 30
        started = time.monotonic()
        call = (
            method.future(request, timeout=timeout)
            if kind in ("One", "Up")
            else method(request, timeout=timeout)
        )
        if fate == "cancel":
            threading.Timer(rng.uniform(0, 0.01), call.cancel).start()
        try:
            got = [call.result()] if kind in ("One", "Up") else list(call)
            code = _Code.OK
        except (grpc.RpcError, grpc.FutureCancelledError):
            code = call.code()
        self._judge(
            f"{world}/{kind} {fate} {count}x{len(data)}", fate, code, time.monotonic() - started
        )
        if code is _Code.OK and fate in ("plain", "deadline", "cancel"):
            want = {"One": [count], "Down": list(range(count)), "Up": [sum(range(count))]}
            if [m.n for m in got] != want.get(kind, list(range(count))):
                self.wrong.append(f"{world}/{kind} {fate}: {len(got)} messages, wrong ones")

    def _judge(self, what: str, fate: str, code: grpc.StatusCode, seconds: float) -> None:
        self.outcomes[f"{fate} {code.name}"] += 1
        if code in MAY_BE[fate] or (self.is_stopping and code in STOPPING):
            return
        self.wrong.append(f"{what}: {code.name} after {seconds:.2f} s")


def soak(engine: str, seconds: float, threads: int) -> list[str]:
    """One server, one long load."""
    server = Server(engine)
    load = Load(server.address, threads, 1)
    start, samples = time.monotonic(), []
    while (passed := time.monotonic() - start) < seconds:
        time.sleep(min(10, seconds / 10))
        samples.append(server.megabytes())
        total = sum(load.outcomes.values())
        print(
            f"\r{passed:4.0f} s, {total} calls, {samples[-1]:.0f} MB, {len(load.wrong)} wrong",
            end="",
            file=sys.stderr,
        )
    print(file=sys.stderr)
    load.is_stopping = True
    took = server.stop()
    load.end()
    early = samples[len(samples) // 5 : len(samples) // 2] or samples
    late = samples[-len(samples) // 3 :]
    grown = sum(late) / len(late) - sum(early) / len(early)
    calls = sum(load.outcomes.values())
    print(f"{engine}: {calls} calls in {seconds:.0f} s, grpcio {grpc.__version__}")
    for name, count in sorted(load.outcomes.items()):
        print(f"  {name}: {count}")
    print(f"  memory: {samples[0]:.1f} MB first, {samples[-1]:.1f} MB last")
    print(f"  grown {grown:+.1f} MB from the first half to the last third")
    print(f"  stopped under load in {took:.2f} s (grace {GRACE} s)")
    return load.wrong


def starts(engine: str, count: int, threads: int) -> list[str]:
    """Many servers, each stopped under load."""
    wrong, calls, took = [], 0, []
    for number in range(count):
        server = Server(engine)
        load = Load(server.address, threads, number * 1000)
        time.sleep(0.5)
        load.is_stopping = True
        took.append(server.stop())
        load.end()
        wrong += load.wrong
        calls += sum(load.outcomes.values())
        print(
            f"\r{number + 1} of {count} stopped, {calls} calls, {len(wrong)} wrong",
            end="",
            file=sys.stderr,
        )
    print(file=sys.stderr)
    print(f"{engine}: {count} starts and stops, {calls} calls")
    print(f"  slowest stop {max(took):.2f} s (grace {GRACE} s)")
    return wrong


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default="queue", choices=("queue", "aio"))
    parser.add_argument("--seconds", type=float, default=60, help="of the long load")
    parser.add_argument("--starts", type=int, default=0, help="start and stop that often instead")
    parser.add_argument(
        "--threads", type=int, default=12, help="that call, each on a connection of its own"
    )
    args = parser.parse_args()
    if args.starts:
        wrong = starts(args.engine, args.starts, args.threads)
    else:
        wrong = soak(args.engine, args.seconds, args.threads)
    for line in wrong[:20]:
        print("WRONG", line)
    print(f"{len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
