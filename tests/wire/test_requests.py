"""Requests that are not what they should be: each ends with a status that says so, and alone."""

from __future__ import annotations

import gzip
import logging
import zlib
from typing import Any, NamedTuple

import grpc
import pytest
from hyperframe.frame import DataFrame, RstStreamFrame

from tests.wire.honest import Honest
from tests.wire.lab import HONEST, Pairs, Peer, framed, request_headers
from tests.wire.served import SECRET, WORLDS, Node

_Code = grpc.StatusCode
Outcome = tuple[Any, str, list[bytes]]  # code, details, messages

# The core became stricter, and its texts other ones, in one of the versions up to 1.84.
IS_OLD = tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 84)

OK: Outcome = (_Code.OK, "", [HONEST])
EMPTY: Outcome = (_Code.OK, "", [b""])
INVALID: Outcome = (_Code.INVALID_ARGUMENT, "the request is not a valid wire.Node", [])
NONE: Outcome = (_Code.UNIMPLEMENTED, "expected one request message, got none", [])
MANY: Outcome = (_Code.UNIMPLEMENTED, "expected one request message, got more than one", [])
LATE: Outcome = (_Code.DEADLINE_EXCEEDED, "Deadline Exceeded", [])
RESET: Outcome = ("RST_STREAM INTERNAL_ERROR", "", [])


def internal(text: str) -> Outcome:
    return _Code.INTERNAL, text, []


def damaged(why: str) -> Outcome:
    """Compressed data that cannot be inflated."""
    if IS_OLD:
        return internal("Unexpected error decompressing data for algorithm gzip")
    return internal(f"Decompression failed due to {why}")


TOO_LONG: Outcome = (
    _Code.RESOURCE_EXHAUSTED,
    "SERVER: Received message larger than max (4294967295 vs. 4194304)",
    [],
)


def unparsable(name: str, why: str = "") -> Outcome:
    return internal(f"Error parsing '{name}' metadata{why}")


def nested(depth: int) -> bytes:
    """A Node in a Node in a Node …"""
    message = b""
    for _ in range(depth):
        size, length = len(message), b""
        while size > 127:
            size, length = size >> 7, length + bytes([size & 127 | 128])
        message = b"\x22" + length + bytes([size]) + message
    return message


class Case(NamedTuple):
    """One request: what differs from a proper one, and what comes of it."""

    name: str
    outcome: Outcome
    data: bytes = framed(HONEST)
    changed: dict[str, bytes | None] = {}  # noqa: RUF012 - never written
    more: Pairs = ()
    on_aio: Outcome | None = None  # where grpc.aio does something else


CASES = [
    Case("proper", OK),
    # ---- messages
    Case("two messages", MANY, framed(HONEST) * 2, on_aio=OK),
    Case("no message", NONE, b"", on_aio=LATE),
    Case("half a prefix", NONE, b"\0\0\0", on_aio=LATE),
    Case("less than its length", NONE, b"\0\0\0\0\x09" + HONEST, on_aio=LATE),
    Case("more than its length", INVALID, b"\0\0\0\0\x01" + HONEST),
    Case(
        "a length of 4 GiB",
        NONE if IS_OLD else TOO_LONG,
        b"\0\xff\xff\xff\xff" + HONEST,
        on_aio=LATE if IS_OLD else None,
    ),
    Case("garbage behind it", MANY, framed(HONEST) + b"garbage", on_aio=OK),
    Case("half a prefix behind it", OK, framed(HONEST) + b"\0"),
    Case("invalid UTF-8", INVALID, framed(b"\x12\x02\xff\xfe")),
    Case("noise", INVALID, framed(b"\xff" * 20)),
    Case("a field that is cut off", INVALID, framed(b"\x12\x7fab")),
    Case("nested 90 deep", EMPTY, framed(nested(90))),
    Case("nested 500 deep", INVALID, framed(nested(500))),
    Case("nested 10,000 deep", INVALID, framed(nested(10_000))),
    # ---- compression
    Case("gzip", OK, framed(gzip.compress(HONEST), 1), {"grpc_encoding": b"gzip"}),
    Case("deflate", OK, framed(zlib.compress(HONEST), 1), {"grpc_encoding": b"deflate"}),
    Case(
        "compressed, but how?",
        OK if IS_OLD else internal("Compression bit set but no encoding configured"),
        framed(HONEST, 1),
    ),
    Case(
        "gzip that is none",
        damaged("zlib error"),
        framed(HONEST, 1),
        {"grpc_encoding": b"gzip"},
    ),
    Case(
        "gzip that is cut off",
        damaged("data error"),
        framed(gzip.compress(HONEST * 50)[:-9], 1),
        {"grpc_encoding": b"gzip"},
    ),
    Case(
        "gzip and more",
        damaged("not all input consumed"),
        framed(gzip.compress(HONEST) + b"more", 1),
        {"grpc_encoding": b"gzip"},
    ),
    Case("unknown encoding", unparsable("grpc-encoding"), changed={"grpc_encoding": b"snappy"}),
    Case("unknown flag", EMPTY, framed(HONEST, 2)),  # the core drops what it does not know
    # ---- headers
    Case("timeout", unparsable("grpc-timeout"), changed={"grpc_timeout": b"banana"}),
    Case("negative timeout", unparsable("grpc-timeout"), changed={"grpc_timeout": b"-1S"}),
    Case("no time", LATE, changed={"grpc_timeout": b"0n"}),
    Case("the longest timeout", OK, changed={"grpc_timeout": b"99999999H"}),
    Case("te", unparsable("te"), changed={"te": b"banana"}),
    Case("no te", RESET, changed={"te": None}),
    Case("base64", unparsable("x-bin", ": illegal base64 encoding"), more=[(b"x-bin", b"!!!")]),
    Case("content-type", OK, changed={"content_type": b"text/html"}),  # the core does not look
    Case("no content-type", OK, changed={"content_type": None}),
    Case("GET", RESET, changed={"method": b"GET"}),
    Case("PUT", RESET, changed={"method": b"PUT"}),
    Case("CONNECT", unparsable(":method"), changed={"method": b"CONNECT"}),
    Case("no method", RESET, changed={"method": None}),
    Case("no scheme", RESET, changed={"scheme": None}),
    Case("no authority", RESET, changed={"authority": None}),
    Case("upper case", internal("Illegal header key: X-A"), more=[(b"X-A", b"1")]),
    Case("no name", internal("Metadata keys cannot be zero length"), more=[(b"", b"1")]),
    Case("a pseudo header of its own", internal("Illegal header key: :x"), more=[(b":x", b"1")]),
    Case(
        "authority twice",
        OK if IS_OLD else internal("Duplicate ':authority' header received"),
        more=[(b":authority", b"other")],
    ),
    Case("invalid UTF-8 in metadata", OK, more=[(b"x", b"\xff\xfe")]),
    Case("lines in metadata", OK, more=[(b"x", b"a\r\nb\0")]),
    Case("headers of HTTP/1", OK, more=[(b"connection", b"close"), (b"content-length", b"9")]),
]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_each_has_a_status(
    case: Case, world: str, engine: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that is wrong gets a fixed status, the next on its connection is served."""
    caplog.set_level(logging.WARNING)
    expected = (case.on_aio if engine == "aio" else None) or case.outcome
    needs_deadline = expected is LATE and not case.changed
    changed = {"grpc_timeout": b"300m"} if needs_deadline else case.changed
    path = f"wire.{world}/Unary"
    with Peer(address) as peer:
        got = peer.call(request_headers(path, *case.more, **changed), case.data)
        after = peer.call(request_headers(path), framed(HONEST))
    assert (got.code, got.details, got.messages) == expected
    assert (after.code, after.messages) == (_Code.OK, [HONEST])
    assert [one.getMessage() for one in caplog.records if one.name.startswith("dynserve")] == []


STREAMED = {
    "two messages": (framed(HONEST) * 2, (_Code.OK, "", [HONEST, HONEST])),
    "no message": (b"", (_Code.OK, "", [])),
    "invalid UTF-8": (framed(HONEST) + framed(b"\x12\x01\xff"), (*INVALID[:2], [HONEST])),
    "nested 500 deep": (framed(nested(500)), INVALID),
    "gzip that is none": (framed(HONEST, 1), damaged("zlib error")),
    "a length of 4 GiB": (
        b"\0\xff\xff\xff\xff",
        (_Code.OK, "", []) if IS_OLD else TOO_LONG,
    ),
    # The core does not tell a stream that breaks off in a message from one that is complete.
    "less than its length": (framed(HONEST) + b"\0\0\0\0\x09\x08", (_Code.OK, "", [HONEST])),
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", STREAMED)
def test_each_message_of_a_stream(name: str, world: str, address: str) -> None:
    """A message that is wrong ends its stream with a status; those before it were answered."""
    data, expected = STREAMED[name]
    headers = request_headers(f"wire.{world}/Chat", grpc_encoding=b"gzip")
    with Peer(address) as peer:
        got = peer.call(headers, data)
        after = peer.call(headers, framed(HONEST))
    assert (got.code, got.details, got.messages) == expected
    assert (after.code, after.messages) == (_Code.OK, [HONEST])


PATHS = {
    b"": "unknown service ''",
    b"/": "unknown service ''",
    b"*": "unknown service ''",
    b"/wire.Sync/": "unknown method '' of service 'wire.Sync'",
    b"/wire.Sync/%55nary": (
        "unknown method '%2555nary' of service 'wire.Sync'; did you mean 'Unary'?"
    ),
    b"/wire.Sync/Unary?x=1": (
        "unknown method 'Unary?x=1' of service 'wire.Sync'; did you mean 'Unary'?"
    ),
    b"/wire.Sync/../Sync/Unary": ("unknown service 'wire.Sync/../Sync'; did you mean 'wire.Sync'?"),
    b"/wire.sync/Unary": "unknown service 'wire.sync'; did you mean 'wire.Sync'?",
    b"/wire.Sync/a\nb\0": "unknown method 'a\\nb\\x00' of service 'wire.Sync'",
    b"/" + b"a" * 7000: "unknown service ''",
}


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_each_path(path: bytes, address: str) -> None:
    """A path that names nothing is UNIMPLEMENTED; it is never taken for another one."""
    with Peer(address) as peer:
        got = peer.call(request_headers(path), framed(HONEST))
    assert (got.code, got.details, got.messages) == (_Code.UNIMPLEMENTED, PATHS[path], [])


def test_path_that_is_not_utf_8(engine: str, address: str, honest: Honest) -> None:
    """Such a path is like another; grpc.aio's server ends by it, and another takes its place."""
    with Peer(address) as peer:
        got = peer.call(request_headers(b"/wire.Sync/\xff\xfe"), framed(HONEST))
    if engine == "aio":
        assert got.code is not _Code.OK
        honest.answered_again()
    else:
        text = "unknown method '%EF%BF%BD%EF%BF%BD' of service 'wire.Sync'"
        assert (got.code, got.details) == (_Code.UNIMPLEMENTED, text)
        honest.answered()


@pytest.mark.parametrize("world", WORLDS)
def test_message_over_the_limit(world: str, address: str, honest: Honest) -> None:
    """4 MiB are served, 4 MiB and a byte are RESOURCE_EXHAUSTED, the connection goes on."""
    limit = 4 << 20
    empty = (
        len(Node(data=b"").SerializeToString() or b"") + 5
    )  # its tag, and a length of four bytes
    exact = Node(data=bytes(limit - empty)).SerializeToString()
    over = Node(data=bytes(limit - empty + 1)).SerializeToString()
    assert (len(exact), len(over)) == (limit, limit + 1)
    headers = request_headers(f"wire.{world}/Unary")
    with Peer(address) as peer:
        fits = peer.upload(headers, framed(exact))
        refused = peer.upload(headers, framed(over))
        after = peer.call(headers, framed(HONEST))
    assert (fits.code, Node.FromString(fits.messages[0]).number) == (_Code.OK, limit - empty)
    assert (refused.code, refused.details) == (
        _Code.RESOURCE_EXHAUSTED,
        "SERVER: Received message larger than max (4194305 vs. 4194304)",
    )
    assert after.messages == [HONEST]
    honest.answered()


def bomb_text(size: int) -> str:
    """What the core says: it looks at the limit while it inflates since 1.84, before that after."""
    if IS_OLD:
        return f"SERVER: Received message larger than max ({size} vs. 4194304)"
    return "Decompressed message larger than max"


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", ["Unary", "Chat"])
def test_gzip_bomb(world: str, kind: str, address: str, honest: Honest) -> None:
    """64 KB that would become 64 MiB are refused."""
    bomb = gzip.compress(bytes(64 << 20))
    assert len(bomb) < 66_000
    headers = request_headers(f"wire.{world}/{kind}", grpc_encoding=b"gzip")
    with Peer(address) as peer:
        got = peer.upload(headers, framed(bomb, 1))
    text = bomb_text(64 << 20)
    assert (got.code, got.details, got.messages) == (_Code.RESOURCE_EXHAUSTED, text, [])
    honest.answered()


@pytest.mark.parametrize("world", WORLDS)
def test_reset_in_a_message(world: str, address: str, honest: Honest) -> None:
    """A call that is reset halfway through a message leaves its connection as it was."""
    for kind in ("Unary", "Down", "Up", "Chat"):
        headers = request_headers(f"wire.{world}/{kind}")
        with Peer(address) as peer:
            for _ in range(50):
                stream = peer.open(headers, framed(bytes(1000))[:500], ends=False)
                peer.send(RstStreamFrame(stream, 8))
            after = peer.call(headers, framed(HONEST))
        assert (after.code, after.messages) == (_Code.OK, [HONEST])
    honest.answered()


@pytest.mark.parametrize("world", WORLDS)
def test_stream_without_end(world: str, address: str, honest: Honest) -> None:
    """A request that never ends ends by its deadline."""
    headers = request_headers(f"wire.{world}/Up", grpc_timeout=b"300m")
    with Peer(address) as peer:
        stream = peer.open(headers, framed(HONEST), ends=False)
        got = peer.answer(stream)
        honest.answered()
    assert (got.code, got.details) == (_Code.DEADLINE_EXCEEDED, "Deadline Exceeded")


def test_data_after_the_end(address: str, honest: Honest) -> None:
    """What comes for a stream that is over is no harm to the others."""
    with Peer(address) as peer:
        stream = peer.open(request_headers("wire.Sync/Unary"), framed(HONEST))
        got = peer.answer(stream)
        peer.send(DataFrame(stream, framed(HONEST)), DataFrame(stream, b"", flags=["END_STREAM"]))
        after = peer.call(request_headers("wire.Sync/Unary"), framed(HONEST))
    assert (got.messages, after.messages) == ([HONEST], [HONEST])
    honest.answered()


@pytest.mark.parametrize("world", WORLDS)
def test_no_secret_is_told(world: str, address: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a handler raises stays in the log: no kind of call, and no header, has its text."""
    request = framed(Node(text="fail").SerializeToString())
    for kind in ("Unary", "Down", "Up", "Chat"):
        with Peer(address) as peer:
            got = peer.call(request_headers(f"wire.{world}/{kind}"), request)
        assert got.code is _Code.INTERNAL
        assert SECRET not in repr(got)
        assert "RuntimeError" not in repr(got)
    assert caplog.text.count(f"RuntimeError: {SECRET}") == 4
