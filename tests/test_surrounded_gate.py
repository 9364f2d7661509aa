"""Observers of calls that nobody handles: unknown methods, and too much metadata."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from dynserve import App, Kind
from tests.conftest import Serve
from tests.echo import PATHS, app_with, schema
from tests.witness import WAIT, Told, Witness, handler_of, status_of

Code = grpc.StatusCode
WORLDS = ["sync", "async"]
KINDS = list(Kind)


def test_what_nobody_handles_is_seen(serve: Serve) -> None:
    """Unknown methods, unknown services, and methods without a handler; none has a method."""
    witness = Witness()
    paths = ["/echo.Echo/Unari", "/no.Such/Method", "/echo.Echo/Unary"]
    texts = [
        "unknown method 'Unari' of service 'echo.Echo'; did you mean 'Unary'?",
        "unknown service 'no.Such'",
        "method echo.Echo/Unary is not implemented on this server",
    ]
    told = []
    with serve(App(schema=schema), observers=[witness]) as client:
        for path in paths:
            call: Any = client.channel.unary_unary(path)
            with pytest.raises(grpc.RpcError):
                call(b"123", timeout=WAIT)
            told.append(witness.told())
    name = "StatusError(<StatusCode.UNIMPLEMENTED: (12, 'unimplemented')>"
    assert told == [
        Told(path, "", Code.UNIMPLEMENTED, text, f"{name}, {text!r})", (0, 0), (0, 0), None)
        for path, text in zip(paths, texts, strict=True)
    ]


def test_without_observers_the_status_is_the_same(serve: Serve) -> None:
    """Nobody has to look for it to be sent."""
    with serve(App(schema=schema)) as client:
        call: Any = client.channel.unary_unary("/no.Such/Method")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"123", timeout=WAIT)
    status: Any = caught.value
    assert (status.code(), status.details()) == (Code.UNIMPLEMENTED, "unknown service 'no.Such'")


def size_of(metadata: Any) -> int:
    """As HTTP/2 counts it."""
    return sum(len(key) + len(value) + 32 for key, value in metadata)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
def test_metadata_past_the_limit_is_refused_and_seen(serve: Serve, kind: Kind, world: str) -> None:
    """What gRPC's core lets through is counted again: the limit is served, a byte more is not."""
    witness, sizes, limit = Witness(), [], 3000
    options = [(f"grpc.{name}max_metadata_size", 1 << 20) for name in ("", "absolute_")]
    app = app_with(
        handler_of(kind, world, lambda c: sizes.append(size_of(c.invocation_metadata()))), kind
    )
    with serve(app, observers=[witness], max_metadata_size=limit, options=options) as client:
        assert status_of(client, kind, metadata=[("x", "")]) == (Code.OK, "")
        room = limit - sizes[0]
        found = [status_of(client, kind, metadata=[("x", "a" * size)]) for size in (room, room + 1)]
        told = [witness.told() for _ in range(3)]
    text = "metadata is larger than 3000 bytes"
    assert (found, sizes[1:]) == ([(Code.OK, ""), (Code.RESOURCE_EXHAUSTED, text)], [limit])
    assert told[2] == Told(
        f"/{PATHS[kind]}",
        "",
        Code.RESOURCE_EXHAUSTED,
        text,
        f"StatusError(<StatusCode.RESOURCE_EXHAUSTED: (8, 'resource exhausted')>, '{text}')",
        (0, 0),
        (0, 0),
        None,
    )
