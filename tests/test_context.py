"""What a handler may ask and say about its call, in both worlds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from dynserve import AsyncContext, Context, Kind
from tests.conftest import Serve
from tests.echo import PATHS, Item, app_with, request_for, schema

KINDS = list(Kind)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
every_world = pytest.mark.parametrize("world", ["sync", "async"])
Said = dict[str, Any]


def ask(context: Context | AsyncContext) -> Said:
    """All that can be asked, and all that can be said without waiting."""
    context.set_compression(grpc.Compression.Gzip)
    context.disable_next_message_compression()
    context.set_trailing_metadata((("x-trailing", "t"), ("x-bin", b"\xff")))
    remaining = context.time_remaining()
    return {
        "method": str(context.method),
        "kind": context.method.kind,
        "metadata": dict(context.invocation_metadata())["x-sent"],
        "binary": dict(context.invocation_metadata())["y-bin"],
        "peer": context.peer().partition(":")[0],
        "identities": (context.peer_identities(), context.peer_identity_key()),
        "security": list(context.auth_context()["transport_security_type"]),
        "time": remaining is not None and 0 < remaining < 30,
        "trailing": context.trailing_metadata(),
        "status": (context.code(), context.details()),
    }


def handler_for(kind: Kind, world: str, said: Said) -> Any:
    def unary(request: Any, context: Context) -> Any:
        said.update(ask(context), active=context.is_active())
        context.send_initial_metadata((("x-initial", "i"),))
        return Item()

    def stream(request: Any, context: Context) -> Iterator[Any]:
        yield unary(request, context)

    async def unary_async(request: Any, context: AsyncContext) -> Any:
        said.update(ask(context), active=not context.done() and not context.cancelled())
        await context.send_initial_metadata((("x-initial", "i"),))
        return Item()

    async def stream_async(request: Any, context: AsyncContext) -> AsyncIterator[Any]:
        yield await unary_async(request, context)

    if world == "sync":
        return stream if kind.response_streaming else unary
    return stream_async if kind.response_streaming else unary_async


@every_kind
@every_world
def test_context_is_complete(serve: Serve, kind: Kind, world: str) -> None:
    """Method, metadata both ways, peer, security, time left and status, in every kind."""
    said: Said = {}
    with serve(app_with(handler_for(kind, world, said), kind)) as client:
        method = client.method(PATHS[kind])
        sent = (("x-sent", "s"), ("y-bin", b"\x00"))
        request = request_for(kind, 1)
        request = iter(request) if kind.request_streaming else request
        if kind.response_streaming:
            call = method(request, timeout=20, metadata=sent)
            assert list(call) == [Item()]
        else:
            response, call = method.with_call(request, timeout=20, metadata=sent)
            assert response == Item()
        assert dict(call.initial_metadata())["x-initial"] == "i"
        assert dict(call.trailing_metadata()) == {"x-trailing": "t", "x-bin": b"\xff"}
    assert said == {
        "method": PATHS[kind],
        "kind": kind,
        "metadata": "s",
        "binary": b"\x00",
        "peer": "ipv4",
        "identities": (None, None),
        "security": [b"insecure"],
        "time": True,
        "trailing": (("x-trailing", "t"), ("x-bin", b"\xff")),
        "status": (None, ""),
        "active": True,
    }


@every_world
def test_no_deadline_is_none(serve: Serve, world: str) -> None:
    """time_remaining() is None for a client that set no deadline."""
    found: list[Any] = []

    def sync_handler(request: Any, context: Context) -> Any:
        found.append(context.time_remaining())
        return Item()

    async def async_handler(request: Any, context: AsyncContext) -> Any:
        return sync_handler(request, context)  # type: ignore[arg-type]  # they share this much

    handler = sync_handler if world == "sync" else async_handler
    with serve(app_with(handler, Kind.UNARY_UNARY)) as client:
        client.call("echo.Echo/Unary", Item(), timeout=None)
    assert found == [None]


@every_world
def test_status_that_is_set_is_sent(serve: Serve, world: str) -> None:
    """set_code() and set_details() make the status when the handler returns."""

    def sync_handler(request: Any, context: Context) -> Any:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("half of it")
        assert (context.code(), context.details()) == (grpc.StatusCode.DATA_LOSS, "half of it")
        return Item()

    async def async_handler(request: Any, context: AsyncContext) -> Any:
        return sync_handler(request, context)  # type: ignore[arg-type]  # they share this much

    handler = sync_handler if world == "sync" else async_handler
    app = app_with(handler, Kind.UNARY_UNARY)
    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call("echo.Echo/Unary", Item())
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "half of it")


class Recorded:
    """An engine's context that only remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.told.append((name, args))


@pytest.mark.parametrize(
    ("use", "kind", "text"),
    [
        (
            lambda c: c.set_trailing_metadata([("A", "b")]),
            ValueError,
            "metadata key 'A' has characters other than a-z 0-9 _ . -",
        ),
        (
            lambda c: c.send_initial_metadata([("a", 1)]),
            TypeError,
            "got 'a': 1 as metadata, expected str: str or bytes",
        ),
        (
            lambda c: c.abort(grpc.StatusCode.OK),
            ValueError,
            "a StatusError cannot have the code OK; return a response instead",
        ),
        (
            lambda c: c.set_code("x"),
            TypeError,
            "got 'x' as a status code, expected a grpc.StatusCode",
        ),
        (lambda c: c.set_details(3), TypeError, "got 3 as the text of a status, expected a str"),
    ],
)
def test_misuse_raises_in_the_handler(use: Any, kind: type[Exception], text: str) -> None:
    """What gRPC could not send is an error on the line that says it, and nothing is set."""
    call = Recorded()
    context = Context(call, schema.method("echo.Echo/Unary"))
    with pytest.raises(kind) as caught:
        use(context)
    assert str(caught.value) == text
    assert call.told == []


def test_details_of_grpc_server_are_bytes() -> None:
    """grpc.server keeps the details as bytes; the context gives text."""

    class Sync:
        def details(self) -> bytes:
            return "ä".encode()

    assert Context(Sync(), schema.method("echo.Echo/Unary")).details() == "ä"
