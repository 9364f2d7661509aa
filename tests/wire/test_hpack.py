"""A bad header value must not outlive its request.

gRPC's core keeps a value that it cannot parse in the table of the connection's headers, as an
error. A later request that refers to the entry, if only for the header's name, fails by it: through
a proxy those are requests of other clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from hyperframe.frame import HeadersFrame, SettingsFrame

from tests.wire.honest import Honest
from tests.wire.lab import HONEST, Peer, framed, request_headers
from tests.wire.served import WORLDS, make_app

_Code = grpc.StatusCode
KEPT = [("grpc.http2.hpack_table_size.decoder", 4096)]  # the core's own default

# A header, a value that cannot be parsed, a proper one, and what the bad one is answered.
HEADERS = [
    (b"grpc-timeout", b"banana", b"20S", "Error parsing 'grpc-timeout' metadata"),
    (b"grpc-encoding", b"banana", b"gzip", "Error parsing 'grpc-encoding' metadata"),
    (b"te", b"banana", b"trailers", "Error parsing 'te' metadata"),
    (b"x-bin", b"!!!", b"AAEC", "Error parsing 'x-bin' metadata: illegal base64 encoding"),
]


def codes(address: str, path: str, name: bytes, *values: bytes) -> list[tuple[Any, str]]:
    """What calls that differ in one header end with, one after the other on one connection."""
    ended = []
    with Peer(address) as peer:
        peer.until(lambda: bool(peer.settings))
        for value in values:
            headers = dict(request_headers(path)) | {name: value}
            answer = peer.call(list(headers.items()), framed(HONEST))
            ended.append((answer.code, answer.details))
    return ended


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("name", "bad", "good", "text"), HEADERS, ids=[header[0].decode() for header in HEADERS]
)
def test_bad_value_fails_its_own_request_only(
    name: bytes, bad: bytes, good: bytes, text: str, world: str, address: str
) -> None:
    """After a value that cannot be parsed, requests with that header are served as before."""
    ended = codes(address, f"wire.{world}/Unary", name, bad, good, bad, good)
    assert ended == [(_Code.INTERNAL, text), (_Code.OK, "")] * 2


@pytest.mark.parametrize(
    ("name", "bad", "good", "text"), HEADERS, ids=[header[0].decode() for header in HEADERS]
)
def test_hole_that_this_closes(
    name: bytes, bad: bytes, good: bytes, text: str, engine: str
) -> None:
    """With the core's own table every later request with the header fails: it is still needed."""
    server = make_app().server("127.0.0.1:0", engine=engine, options=KEPT)
    with server.in_thread() as serving:
        ended = codes(serving.addresses[0], "wire.Sync/Unary", name, bad, good, good)
    assert ended == [(_Code.INTERNAL, text)] * 3


def test_nothing_is_kept_from_before_the_settings(address: str) -> None:
    """What a peer sent before it knew of the table's size does no harm after it does."""
    with Peer(address, greets=False, is_honest=False) as peer:
        peer.greet({SettingsFrame.INITIAL_WINDOW_SIZE: 65535}, 65535)
        early = dict(request_headers("wire.Sync/Unary")) | {b"grpc-timeout": b"banana"}
        first = peer.call(list(early.items()), framed(HONEST))
        peer.until(lambda: bool(peer.settings))
        peer.send(SettingsFrame(0, flags=["ACK"]))
        peer.encoder.header_table_size = peer.settings[SettingsFrame.HEADER_TABLE_SIZE]
        late = dict(early) | {b"grpc-timeout": b"20S"}
        second = peer.call(list(late.items()), framed(HONEST))
    assert (first.code, second.code) == (_Code.INTERNAL, _Code.OK)


def bad_index(block: bytes) -> bytes:
    return block + b"\xfe"  # entry 126, which nobody sent


def endless_number(block: bytes) -> bytes:
    return block + b"\x7f" + b"\xff" * 20


def large_table(block: bytes) -> bytes:
    return b"\x3f\xff\xff\xff\x07" + block  # a size of the table that was not offered


def cut_off(block: bytes) -> bytes:
    return block + b"\x00\x7f"


@pytest.mark.parametrize("spoil", [bad_index, endless_number, large_table, cut_off])
def test_block_that_cannot_be_decoded(
    spoil: Callable[[bytes], bytes], address: str, engine: str
) -> None:
    """A header block that is none ends its call or its connection, and nothing else."""
    with Honest(address) as honest, Peer(address) as peer:
        peer.until(lambda: bool(peer.settings))
        stream = peer.new_stream()
        block = spoil(peer.encoder.encode(request_headers("wire.Sync/Unary")))
        peer.send(HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"]))
        answer = peer.answer(stream)
        assert answer.code != _Code.OK
        honest.answered()
