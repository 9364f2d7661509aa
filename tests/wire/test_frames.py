"""Frames that break the rules of HTTP/2: the stream or the connection ends, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    WindowUpdateFrame,
)

from tests.wire.honest import Honest
from tests.wire.lab import HONEST, PREFACE, Peer, framed, request_headers

CALL = request_headers("wire.Async/Chat")


def frame(kind: int, flags: int, stream: int, body: bytes, length: int | None = None) -> bytes:
    """A frame as it is on the wire, with any length."""
    size = len(body) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def opened(peer: Peer) -> int:
    """A call that is under way."""
    return peer.open(CALL, framed(HONEST), ends=False)


def block(peer: Peer) -> bytes:
    return bytes(peer.encoder.encode(CALL))


CLOSED, GOES_ON = "closed", "goes on"

# What is sent, and whether the connection is still there afterwards. The core is more lenient here
# and there than RFC 9113 wants; what matters is that nobody else notices.
FRAMES: dict[str, tuple[str, Callable[[Peer], bytes]]] = {
    "DATA on stream 0": (GOES_ON, lambda peer: frame(0, 0, 0, b"data")),
    "DATA on a stream that was never opened": (
        GOES_ON,
        lambda peer: DataFrame(99, b"data").serialize(),
    ),
    "HEADERS on stream 0": (GOES_ON, lambda peer: frame(1, 4, 0, block(peer))),
    "HEADERS on a stream of the server's": (
        GOES_ON,
        lambda peer: HeadersFrame(2, block(peer), flags=["END_HEADERS"]).serialize(),
    ),
    "CONTINUATION after nothing": (
        CLOSED,
        lambda peer: ContinuationFrame(1, b"", flags=["END_HEADERS"]).serialize(),
    ),
    "another frame inside of a header block": (
        CLOSED,
        lambda peer: (
            HeadersFrame(1, block(peer)).serialize() + PingFrame(0, b"8 bytes!").serialize()
        ),
    ),
    "CONTINUATION for another stream": (
        CLOSED,
        lambda peer: (
            HeadersFrame(1, block(peer)).serialize()
            + ContinuationFrame(3, b"", flags=["END_HEADERS"]).serialize()
        ),
    ),
    "PING of 7 bytes": (CLOSED, lambda peer: frame(6, 0, 0, b"7 bytes")),
    "PING on a stream": (GOES_ON, lambda peer: frame(6, 0, 1, b"8 bytes!")),
    "SETTINGS of 5 bytes": (CLOSED, lambda peer: frame(4, 0, 0, b"5 byt")),
    "SETTINGS on a stream": (CLOSED, lambda peer: frame(4, 0, 1, b"")),
    "SETTINGS, acknowledged and not empty": (CLOSED, lambda peer: frame(4, 1, 0, bytes(6))),
    "SETTINGS with a window of 2 GiB": (
        CLOSED,
        lambda peer: frame(4, 0, 0, b"\0\4" + b"\xff" * 4),
    ),
    "SETTINGS that nobody knows": (GOES_ON, lambda peer: frame(4, 0, 0, b"\xff\xff" + bytes(4))),
    "WINDOW_UPDATE of 0": (CLOSED, lambda peer: frame(8, 0, 0, bytes(4))),
    "WINDOW_UPDATE of 3 bytes": (CLOSED, lambda peer: frame(8, 0, 0, bytes(3))),
    "a window beyond 2 GiB": (
        GOES_ON,
        lambda peer: WindowUpdateFrame(0, window_increment=2**31 - 1).serialize() * 2,
    ),
    "RST_STREAM of 3 bytes": (CLOSED, lambda peer: frame(3, 0, 1, bytes(3))),
    "RST_STREAM on stream 0": (GOES_ON, lambda peer: frame(3, 0, 0, bytes(4))),
    "PUSH_PROMISE": (
        GOES_ON,
        lambda peer: PushPromiseFrame(1, promised_stream_id=2, flags=["END_HEADERS"]).serialize(),
    ),
    "PRIORITY on itself": (GOES_ON, lambda peer: PriorityFrame(1, depends_on=1).serialize()),
    "GOAWAY": (GOES_ON, lambda peer: GoAwayFrame(0, last_stream_id=0).serialize()),
    "a frame of an unknown kind": (GOES_ON, lambda peer: frame(0xEE, 0xFF, 77, b"anything")),
    "a frame of 16 MiB": (CLOSED, lambda peer: frame(0, 0, opened(peer), b"", 0xFFFFFF)),
    "padding that is longer than its frame": (
        GOES_ON,
        lambda peer: frame(0, 8, opened(peer), b"\xffshort"),
    ),
    "a stream that was closed": (
        GOES_ON,
        lambda peer: frame(3, 0, opened(peer), b"\0\0\0\x08") + frame(0, 0, 1, b"more"),
    ),
    "a stream number that goes back": (
        GOES_ON,
        lambda peer: (
            HeadersFrame(9, block(peer), flags=["END_HEADERS", "END_STREAM"]).serialize()
            + HeadersFrame(3, block(peer), flags=["END_HEADERS", "END_STREAM"]).serialize()
        ),
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_each_frame(name: str, address: str, honest: Honest) -> None:
    """What breaks the rules costs at most its own connection."""
    outcome, make = FRAMES[name]
    with Peer(address) as peer:
        peer.until(lambda: bool(peer.settings))
        assert peer.ping(b"before..")
        peer.send_bytes(make(peer))
        assert (GOES_ON if peer.ping(b"after...") else CLOSED) == outcome
        honest.answered()


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # TLS
        PREFACE[:-1] + b"x",
        b"\0" * 100,
        PREFACE + frame(1, 4, 1, b"\x82"),  # no SETTINGS first
    ],
    ids=["HTTP/1.1", "TLS", "almost the preface", "zeros", "no SETTINGS"],
)
def test_each_greeting(greeting: bytes, address: str, honest: Honest) -> None:
    """A connection that does not begin as HTTP/2 is closed."""
    with Peer(address, greets=False) as peer:
        peer.send_bytes(greeting)
        peer.wait_closed()
        assert peer.is_closed
    honest.answered()


def test_half_closed(address: str, honest: Honest) -> None:
    """A peer that closes its side after the request does not keep its connection."""
    import socket

    with Peer(address) as peer:
        peer.until(lambda: bool(peer.settings))
        peer.open(CALL, framed(HONEST))
        peer.socket.shutdown(socket.SHUT_WR)
        peer.wait_closed()
        assert peer.is_closed
    honest.answered()


def test_beyond_the_window(address: str, honest: Honest) -> None:
    """Data beyond the window that the server gave is not buffered."""
    with Peer(address) as peer:
        peer.until(lambda: bool(peer.settings))
        stream = peer.open(CALL, ends=False)
        piece = DataFrame(stream, bytes(16384)).serialize()
        try:
            peer.send_bytes(piece * 1024)
            assert not peer.ping() or peer.answers[stream].is_over
        except ConnectionError:
            peer.is_closed = True
    honest.answered()
