"""What a hostile peer does on purpose, each as a context: inside of it the attack is under way.

Tests run them small and ``bench/hostile.py`` large. What a context gives is a function that tells
what the attacker saw.
"""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.wire.lab import (
    HONEST,
    PREFACE,
    ClosedError,
    Peer,
    framed,
    request_headers,
    unindexed,
)
from tests.wire.served import Node

__all__ = ["ATTACKS", "Attack", "Seen"]

Seen = Callable[[], str]
Frames = Callable[[Peer, int], bytes]
BATCH = 200
PATIENCE = 3.0  # seconds in which the server reads nothing: it holds the attacker back
CHUNKS = 2000  # of 64 KiB each, that nobody reads


class Attack(NamedTuple):
    """One attack: its name, how much of it is one attack, and how it is done."""

    name: str
    size: int
    run: Callable[[str, int], AbstractContextManager[Seen]]


def _block(path: str) -> bytes:
    """A header block that needs no table, so that it can be sent again and again."""
    return bytes(Encoder().encode(unindexed(request_headers(path))))


_UNARY, _CHAT = _block("wire.Sync/Unary"), _block("wire.Async/Chat")
_NOWHERE = _block("wire.Nowhere/Unary")


def _bytes(*frames: Frame) -> bytes:
    return b"".join(frame.serialize() for frame in frames)


def _headers(peer: Peer, block: bytes, *flags: str) -> HeadersFrame:
    return HeadersFrame(peer.new_stream(), block, flags=["END_HEADERS", *flags])


# ---- floods on one connection


def _flood(
    frames: Frames, reads: bool = True
) -> Callable[[str, int], AbstractContextManager[Seen]]:
    @contextlib.contextmanager
    def run(address: str, count: int) -> Iterator[Seen]:
        with Peer(address) as peer:
            peer.until(lambda: bool(peer.settings))
            peer.ping()
            peer.socket.settimeout(PATIENCE)
            sent, how = 0, ""
            try:
                while sent < count and not peer.is_closed:
                    peer.send_bytes(b"".join(frames(peer, sent + n) for n in range(BATCH)))
                    sent += BATCH
                    if reads:
                        peer.drain()
            except ClosedError:
                pass
            except TimeoutError:
                how = "held back, "
            yield lambda: f"{how}{_seen(peer)}"

    return run


def _seen(peer: Peer) -> str:
    """What became of the connection, and of the streams on it."""
    with contextlib.suppress(TimeoutError):
        peer.until(lambda: False, 0.3)
    codes = Counter(
        getattr(answer.code, "name", answer.code)
        for stream, answer in peer.answers.items()
        if stream and answer.is_over
    )
    told = [f"{count} {code}" for code, count in codes.most_common()]
    if peer.is_closed:
        told.append(f"closed ({peer.goaway[0]})" if peer.goaway else "closed")
    return ", ".join(told) or "nothing"


def _reset(block: bytes, *data: bytes) -> Frames:
    def frames(peer: Peer, _number: int) -> bytes:
        headers = _headers(peer, block)
        stream = headers.stream_id
        return _bytes(headers, *(DataFrame(stream, one) for one in data), RstStreamFrame(stream, 8))

    return frames


def _call(block: bytes, *flags: str) -> Frames:
    return lambda peer, _number: _bytes(_headers(peer, block, *flags))


def _after_headers(frame: Frame, *flags: str) -> Frames:
    """One call, and this frame of it over and over."""

    def frames(peer: Peer, number: int) -> bytes:
        opening = HeadersFrame(peer.new_stream(), _CHAT, flags=flags) if number == 0 else None
        return (_bytes(opening) if opening else b"") + frame.serialize()

    return frames


def _same(frame: Frame) -> Frames:
    data = frame.serialize()
    return lambda _peer, _number: data


def _priority(_peer: Peer, number: int) -> bytes:
    return _bytes(PriorityFrame(2 * number + 1, depends_on=0, stream_weight=1))


def _settings(_peer: Peer, number: int) -> bytes:
    return _bytes(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: number % 2 * 9999}))


# ---- many connections that are slow


def _slow(open_one: Callable[[str], Peer]) -> Callable[[str, int], AbstractContextManager[Seen]]:
    @contextlib.contextmanager
    def run(address: str, count: int) -> Iterator[Seen]:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(open_one(address)) for _ in range(count)]
            yield lambda: f"{_alive(peers)} of {count} connections open"

    return run


def _alive(peers: list[Peer]) -> int:
    for peer in peers:
        with contextlib.suppress(TimeoutError):
            peer.until(lambda: False, 0.001)
    return sum(not peer.is_closed for peer in peers)


# Those that are not through with their greeting acknowledge nothing, which would be the next step.


def _nothing(address: str) -> Peer:
    return Peer(address, greets=False, is_honest=False)


def _half_preface(address: str) -> Peer:
    peer = Peer(address, greets=False, is_honest=False)
    peer.send_bytes(PREFACE[:10])
    return peer


def _half_headers(address: str) -> Peer:
    peer = Peer(address, is_honest=False)
    peer.send(HeadersFrame(peer.new_stream(), _UNARY[:20]))
    return peer


def _half_message(address: str) -> Peer:
    peer = Peer(address)
    peer.open(request_headers("wire.Sync/Unary"), framed(bytes(1000))[:500], ends=False)
    return peer


def _no_window(address: str) -> Peer:
    peer = Peer(address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}, window=65535)
    peer.open(request_headers("wire.Sync/Unary"), framed(HONEST))
    return peer


def _no_window_for(path: str) -> Callable[[str], Peer]:
    """Asks for a long stream and takes nothing of it."""
    request = framed(Node(text="many", number=CHUNKS).SerializeToString())

    def open_one(address: str) -> Peer:
        peer = Peer(address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}, window=65535)
        peer.open(request_headers(path), request)
        return peer

    return open_one


# ---- single requests


def _upload(
    data: Callable[[int], bytes], path: str = "wire.Sync/Unary", **changed: bytes
) -> Callable[[str, int], AbstractContextManager[Seen]]:
    @contextlib.contextmanager
    def run(address: str, count: int) -> Iterator[Seen]:
        with Peer(address) as peer:
            answer = peer.upload(request_headers(path, **changed), data(count))
            name = getattr(answer.code, "name", answer.code)
            yield lambda: f"{name}: {answer.details}"

    return run


def _bomb(megabytes: int) -> bytes:
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(1 << 20)
    packed = [packer.compress(zeros) for _ in range(megabytes)]
    return framed(b"".join(packed) + packer.flush(), 1)


def _nested(depth: int) -> bytes:
    message = Node()
    for _ in itertools.repeat(None, min(depth, 90)):
        message = Node(child=message)
    data = bytes(message.SerializeToString())
    while depth > 90:
        depth -= 1
        size, length = len(data), b""
        while size > 127:
            size, length = size >> 7, length + bytes([size & 127 | 128])
        data = b"\x22" + length + bytes([size]) + data
    return framed(data)


@contextlib.contextmanager
def _large_headers(address: str, count: int) -> Iterator[Seen]:
    pairs = [(b"x-%06d" % number, b"a" * 1000) for number in range(count)]
    with Peer(address) as peer:
        headers = unindexed(request_headers("wire.Sync/Unary", *pairs))
        stream = peer.new_stream()
        with contextlib.suppress(ClosedError):
            peer.send_headers(stream, headers, ends=True, piece=4000)
        yield lambda: getattr(peer.answer(stream).code, "name", "closed")


ATTACKS = (
    Attack("rapid reset, unary", 10_000, _flood(_reset(_UNARY))),
    Attack("rapid reset, streaming", 10_000, _flood(_reset(_CHAT))),
    Attack("rapid reset, with a message", 10_000, _flood(_reset(_UNARY, framed(HONEST)))),
    Attack("calls without end", 10_000, _flood(_call(_CHAT))),
    Attack("calls of an unknown method", 10_000, _flood(_call(_NOWHERE, "END_STREAM"))),
    Attack(
        "CONTINUATION",
        100_000,
        _flood(_after_headers(ContinuationFrame(1, b"\x10\x01x\x01y"))),
    ),
    Attack("CONTINUATION, empty", 100_000, _flood(_after_headers(ContinuationFrame(1, b"")))),
    Attack("PING", 100_000, _flood(_same(PingFrame(0, b"8 bytes!")))),
    Attack("SETTINGS", 100_000, _flood(_settings)),
    Attack("SETTINGS, answers unread", 1_000_000, _flood(_settings, reads=False)),
    Attack("DATA, empty", 100_000, _flood(_after_headers(DataFrame(1, b""), "END_HEADERS"))),
    Attack(
        "messages, empty",
        100_000,
        _flood(_after_headers(DataFrame(1, framed(b"")), "END_HEADERS")),
    ),
    Attack("WINDOW_UPDATE", 100_000, _flood(_same(WindowUpdateFrame(0, window_increment=1)))),
    Attack("PRIORITY", 100_000, _flood(_priority)),
    Attack("RST_STREAM of no stream", 100_000, _flood(_same(RstStreamFrame(1, 8)))),
    Attack("slow: nothing sent", 300, _slow(_nothing)),
    Attack("slow: half a preface", 300, _slow(_half_preface)),
    Attack("slow: half of the headers", 300, _slow(_half_headers)),
    Attack("slow: half a message", 300, _slow(_half_message)),
    Attack("slow: reads nothing, unary", 300, _slow(_no_window)),
    Attack("slow: reads nothing, sync stream", 300, _slow(_no_window_for("wire.Sync/Down"))),
    Attack("slow: reads nothing, async stream", 300, _slow(_no_window_for("wire.Async/Down"))),
    Attack("gzip bomb, MB", 512, _upload(_bomb, grpc_encoding=b"gzip")),
    Attack(
        "gzip bomb on a stream, MB",
        512,
        _upload(_bomb, "wire.Async/Chat", grpc_encoding=b"gzip"),
    ),
    Attack("message of so many bytes", (4 << 20) + 1, _upload(lambda size: framed(bytes(size)))),
    Attack("nested so deep", 500, _upload(_nested)),
    Attack("headers of 1 KB", 5_000, _large_headers),
)
