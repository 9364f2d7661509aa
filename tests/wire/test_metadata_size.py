"""How large the metadata of a request may be: to the byte, however it is sent.

The core refuses between a soft and a hard limit of its own by chance, so a client with 12 KiB would
fail every other time; ``max_metadata_size`` is one limit, counted as in RFC 9113.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from tests.wire.honest import Honest
from tests.wire.lab import HONEST, Pairs, Peer, framed, request_headers, size_of, unindexed
from tests.wire.served import KINDS, WORLDS, make_app

_Code = grpc.StatusCode
LIMIT = 16 << 10  # by default
SMALL = 2000


@pytest.fixture(scope="module")
def small(engine: str) -> Iterator[str]:
    """The address of a server with a limit of its own."""
    server = make_app().server("127.0.0.1:0", engine=engine, max_metadata_size=SMALL)
    with server.in_thread() as serving:
        yield serving.addresses[0]


def one_large(path: str, size: int) -> Pairs:
    """A list of exactly that size, by one long value."""
    base = request_headers(path, (b"x-a", b""))
    return request_headers(path, (b"x-a", b"a" * (size - size_of(base))))


def many_small(path: str, size: int) -> Pairs:
    """… by as many short ones as fit, and a longer one."""
    base = request_headers(path, (b"x-a", b""))
    count, rest = divmod(size - size_of(base), 40)
    short = [(b"x-%04d" % number, b"12") for number in range(count)]
    return request_headers(path, *short, (b"x-a", b"a" * rest))


LISTS = {"one large": one_large, "many small": many_small}


def code(address: str, headers: Pairs, piece: int = 16384) -> grpc.StatusCode | str:
    """What a call with these headers ends with, on a connection that knows the server's limits."""
    with Peer(address) as peer:
        peer.until(lambda: bool(peer.settings))
        peer.ping()  # the server has seen that they are acknowledged
        stream = peer.new_stream()
        peer.send_headers(stream, unindexed(headers), piece=piece)
        peer.send_data(stream, framed(HONEST), ends=True)
        return peer.answer(stream).code


@pytest.mark.parametrize("made", LISTS)
@pytest.mark.parametrize("piece", [16384, 700], ids=["in HEADERS", "over CONTINUATION"])
def test_default_limit(made: str, piece: int, address: str) -> None:
    """16 KiB are served every time, one byte more never is."""
    fits = LISTS[made]("wire.Sync/Unary", LIMIT)
    over = LISTS[made]("wire.Sync/Unary", LIMIT + 1)
    assert (size_of(fits), size_of(over)) == (LIMIT, LIMIT + 1)
    assert [code(address, fits, piece) for _ in range(5)] == [_Code.OK] * 5
    assert [code(address, over, piece) for _ in range(3)] == [_Code.RESOURCE_EXHAUSTED] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("made", LISTS)
def test_limit_of_ones_own(made: str, world: str, kind: str, small: str) -> None:
    """``max_metadata_size`` holds to the byte, for calls of every kind."""
    path = f"wire.{world}/{kind}"
    assert code(small, LISTS[made](path, SMALL)) is _Code.OK
    assert code(small, LISTS[made](path, SMALL + 1)) is _Code.RESOURCE_EXHAUSTED


def test_before_the_settings(small: str) -> None:
    """A peer that never acknowledges the server's limits gets no further than the default one."""
    headers = LISTS["many small"]("wire.Sync/Unary", LIMIT + 1)
    for _ in range(3):
        with Peer(small, is_honest=False) as peer:
            answer = peer.call(unindexed(headers), framed(HONEST))
        assert answer.code is _Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("size", [64 << 10, 1 << 20])
@pytest.mark.parametrize("piece", [16384, 4000, 101])
def test_far_over_the_limit(size: int, piece: int, address: str, honest: Honest) -> None:
    """Lists many times the limit are refused however they are cut up, and harm nobody else."""
    pairs = [(b"x-%06d" % number, b"a" * 1000) for number in range(size // 1040)]
    headers = request_headers("wire.Sync/Unary", *pairs)
    assert code(address, headers, piece) is _Code.RESOURCE_EXHAUSTED
    honest.answered()


def test_table_does_not_help(engine: str) -> None:
    """Large headers by reference to the table, a byte each on the wire, count by their size."""
    options = [("grpc.http2.hpack_table_size.decoder", 4096)]  # or there is none to refer to
    server = make_app().server("127.0.0.1:0", engine=engine, options=options)
    with server.in_thread() as serving, Peer(serving.addresses[0]) as peer:
        peer.until(lambda: bool(peer.settings))
        headers = request_headers("wire.Sync/Unary", *[(b"x-a", b"a" * 2000)] * 1000)
        frames = peer.header_frames(peer.new_stream(), headers, ends=True)
        assert sum(map(len, (frame.serialize() for frame in frames))) < 4000
        peer.send(*frames)
        assert peer.answer(1).code is _Code.RESOURCE_EXHAUSTED


def test_values_are_not_told(address: str) -> None:
    """The refusal names headers and sizes; the value of none, for it may be a token."""
    headers = request_headers("wire.Sync/Unary", (b"authorization", b"hunter2" * 3000))
    with Peer(address) as peer:
        answer = peer.call(unindexed(headers), framed(HONEST))
    assert answer.code is _Code.RESOURCE_EXHAUSTED
    assert "hunter2" not in repr(answer)
