"""Attacks on purpose: whoever else calls is served meanwhile, and nothing is kept afterwards."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.wire.attacks import ATTACKS, Attack
from tests.wire.honest import Honest
from tests.wire.lab import WAIT, Peer, framed, request_headers
from tests.wire.served import Async, Node, Sync, make_app

SLOWEST = 10.0  # seconds; milliseconds, but a busy machine is no failure
SMALLEST = {"gzip": 64, "message": (4 << 20) + 1, "nested": 500}


def small(attack: Attack) -> int:
    """How much of an attack is enough for a test."""
    kind = attack.name.split()[0]
    return SMALLEST.get(kind, min(attack.size // 5, 20_000))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors in /proc")
@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_each_attack(attack: Attack, address: str) -> None:
    """Honest calls are answered on old and new connections; no descriptor stays open."""
    with Honest(address) as honest:
        before = descriptors()
        with attack.run(address, small(attack)) as tells:
            assert honest.answered() < SLOWEST
            assert tells()
        assert honest.answered() < SLOWEST
        deadline = time.monotonic() + WAIT
        while descriptors() > before:
            assert time.monotonic() < deadline, f"{descriptors() - before} descriptors stay open"
            time.sleep(0.02)


# What the server says to some, by the beginning of it.
SAID = {
    "rapid reset, streaming": "RST_STREAM REFUSED_STREAM",
    "calls without end": "RST_STREAM REFUSED_STREAM",
    "PING": "closed (ENHANCE_YOUR_CALM)",
    "gzip bomb, MB": "RESOURCE_EXHAUSTED: ",
    "nested so deep": "INVALID_ARGUMENT: the request is not a valid wire.Node",
    "headers of 1 KB": "RESOURCE_EXHAUSTED",
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_said(name: str, address: str) -> None:
    """An attacker is told, by what gRPC and HTTP/2 have for it."""
    attack = next(attack for attack in ATTACKS if attack.name == name)
    with attack.run(address, small(attack) * 2) as tells:
        assert SAID[name] in tells()


def test_no_thread_is_kept(engine: str) -> None:
    """Attack after attack, a server has no more threads than its settings say."""
    server = make_app().server("127.0.0.1:0", engine=engine, threads=4, stream_threads=4)
    before = threading.active_count()
    with server.in_thread() as serving, Honest(serving.addresses[0]) as honest:
        for attack in ATTACKS:
            if attack.name.startswith(("rapid", "calls", "slow")):
                with attack.run(serving.addresses[0], 50):
                    honest.answered()
        # A loop, at most one leader, and the threads of both kinds.
        assert threading.active_count() <= before + 12
    deadline = time.monotonic() + WAIT
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("world", ["Sync", "Async"])
def test_stream_that_nobody_reads(world: str, engine: str) -> None:
    """A handler is not asked for more than the connection takes: responses do not pile up."""
    sync, asynchronous = Sync(), Async()
    server = make_app(sync, asynchronous).server("127.0.0.1:0", engine=engine)
    with server.in_thread() as serving:
        address = serving.addresses[0]
        with Honest(address) as honest, Peer(address, settings={4: 0}, window=65535) as peer:
            request = framed(Node(text="many", number=1000).SerializeToString())
            stream = peer.open(request_headers(f"wire.{world}/Down"), request)
            # The headers are not held back by the window: the handler runs.
            peer.until(lambda: bool(peer.answers.get(stream) and peer.answers[stream].headers))
            for _ in range(5):
                honest.answered()
            assert (sync if world == "Sync" else asynchronous).written <= 20  # 1 MiB ahead
