"""The benchmark's client that checks servers and sees them start, in a process of its own.

It reads one JSON object a line from stdin and answers each with one on stdout:
{"do": NAME, "port": PORT, "count": N} → {"seconds": …}, {"at": …} or {"error": …}. What is timed is
sent by h2load and by cpp/client.cc. It ends when stdin is closed.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Any

import grpc

SERVICE = "/bench.Echo/"
HELLO = b"\n\x05world"  # SayRequest and SayReply are the same on the wire
TIMEOUT = 60.0
START_TIMEOUT = 60.0
POLL = 0.001  # seconds between two attempts to connect to a server that is about to listen
# Any, because grpc-stubs insist on serializers, without which bytes go as they are.
Channel = Any


class WrongAnswer(Exception):
    """The server did not answer what its handlers say."""


def item(count: int, payload: bytes = b"0123456789") -> bytes:
    """A serialised bench.Item; written by hand, so that the client needs no schema."""
    return (b"\x08" + varint(count) if count else b"") + b"\x12" + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    """The protobuf encoding of a number that is not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def expect(got: object, expected: object, what: str) -> None:
    """Raises WrongAnswer where they differ."""
    if got != expected:
        raise WrongAnswer(f"{what}: got {got!r}, expected {expected!r}")


def check(channel: Channel, count: int) -> None:
    """Calls every method once and compares each byte of the answers."""
    items = [item(i) for i in range(1, count + 1)]
    for name in ("Say", "Wait"):
        expect(channel.unary_unary(SERVICE + name)(HELLO, timeout=TIMEOUT), HELLO, name)
    sent = [
        message.removeprefix(b"\x08\0")  # a zero that proto3 allows to be sent, as JavaScript does
        for message in channel.unary_stream(SERVICE + "Down")(item(count), timeout=TIMEOUT)
    ]
    expect(sent, [item(i) for i in range(count)], "Down")
    total = channel.stream_unary(SERVICE + "Up")(iter(items), timeout=TIMEOUT)
    expect(total, b"\x08" + varint(count * (count + 1) // 2), "Up")
    echoed = list(channel.stream_stream(SERVICE + "Chat")(iter(items), timeout=TIMEOUT))
    expect(echoed, items, "Chat")


def probe(port: int) -> float:
    """The clock when a server that may not have started yet has answered its first call."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL)
    # A channel that had tried in vain would wait for its backoff; this one succeeds at once.
    channel: Channel
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        say = channel.unary_unary(SERVICE + "Say")
        expect(say(HELLO, timeout=TIMEOUT), HELLO, "Say")
        return time.monotonic()


def answer(line: str, channels: dict[int, Channel]) -> dict[str, object]:
    """Does what one line asks for."""
    asked = json.loads(line)
    port = asked["port"]
    try:
        if asked["do"] == "probe":
            return {"at": probe(port)}
        if port not in channels:
            channels[port] = grpc.insecure_channel(f"127.0.0.1:{port}")
        start = time.perf_counter()
        check(channels[port], asked["count"])
        return {"seconds": time.perf_counter() - start}
    except (grpc.RpcError, OSError, WrongAnswer) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Serves requests until stdin ends."""
    channels: dict[int, Channel] = {}
    for line in sys.stdin:
        print(json.dumps(answer(line, channels)), flush=True)


if __name__ == "__main__":
    main()
