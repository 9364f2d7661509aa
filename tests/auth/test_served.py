"""Authentication of an app that is served: each kind of call, on each engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from dynserve import App
from dynserve.auth import JWT, APIKeys, BearerTokens, any_of, require_scopes
from tests.auth.issuing import AUDIENCE, ISSUER, KeyServer, key_server, token
from tests.conftest import Client, Serve

PROTO = """
syntax = "proto3";
package pkg;
message Text { string text = 1; }
service Service {
  rpc UnaryUnary(Text) returns (Text);
  rpc UnaryStream(Text) returns (stream Text);
  rpc StreamUnary(stream Text) returns (Text);
  rpc StreamStream(stream Text) returns (stream Text);
  rpc Public(Text) returns (Text);
  rpc Scoped(Text) returns (Text);
  rpc Unhandled(Text) returns (Text);
}
"""
TOKEN, KEY = "t" * 16, "k" * 16
KINDS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
MISSING = (
    grpc.StatusCode.UNAUTHENTICATED,
    "a bearer token is needed in metadata 'authorization', or an API key is needed in metadata"
    " 'x-api-key'",
    "Bearer",
)


def who(context: Any) -> dict[str, str]:
    identity = context.identity
    return {"text": f"{identity.name} by {identity.scheme}" if identity else "nobody"}


def app_of(world: str) -> App:
    """An app whose methods say who calls."""
    app = App(PROTO)
    service = app.service("pkg.Service")
    if world == "sync":
        service.unary_unary("UnaryUnary")(lambda _, context: who(context))
        service.unary_stream("UnaryStream")(lambda _, context: [who(context)])
        service.stream_unary("StreamUnary")(lambda _, context: who(context))
        service.stream_stream("StreamStream")(lambda _, context: [who(context)])
        service.unary_unary("Public")(lambda _, context: who(context))
        service.unary_unary("Scoped", middleware=[require_scopes("a")])(
            lambda _, context: who(context)
        )
        return app

    async def one(_: Any, context: Any) -> dict[str, str]:
        await asyncio.sleep(0)
        return who(context)

    async def many(_: Any, context: Any) -> Any:
        yield who(context)

    for name, handler in zip(KINDS, (one, many, one, many), strict=True):
        app.rpc(f"pkg.Service/{name}")(handler)
    app.rpc("pkg.Service/Public")(one)
    app.rpc("pkg.Service/Scoped", middleware=[require_scopes("a")])(one)
    return app


def said(client: Client, method: str, *metadata: tuple[str, str]) -> Any:
    """What the method says; else the status, and its challenge."""
    is_streaming = method in ("StreamUnary", "StreamStream")
    request: Any = [{"text": "x"}] if is_streaming else {"text": "x"}
    try:
        response = client.call(f"pkg.Service/{method}", request, metadata=metadata)
    except grpc.RpcError as error:
        return status_of(error)
    return response[0].text if isinstance(response, list) else response.text


def status_of(error: Any) -> Any:
    trailing = dict(error.trailing_metadata() or ())
    return error.code(), error.details(), trailing.get("www-authenticate")


def bearer(value: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {value}")


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    with key_server() as server:
        yield server


@pytest.mark.parametrize("world", ["sync", "async"])
def test_who_calls(world: str, serve: Serve, keys: KeyServer) -> None:
    """Each kind of call gets its identity from a token, a key, or a JWT whose key is fetched."""
    app = app_of(world)
    verifier = JWT(jwks=keys.url, issuer=ISSUER, audience=AUDIENCE)
    app.auth(any_of(BearerTokens({TOKEN: "ada"}), verifier, APIKeys({KEY: "eve"})))
    signed = bearer(token())
    with serve(app) as client:
        found = [
            [
                said(client, kind, signed),
                said(client, kind, bearer(TOKEN)),
                said(client, kind, ("x-api-key", KEY)),
                said(client, kind, bearer(token(exp=1))),
                said(client, kind),
            ]
            for kind in KINDS
        ]
    invalid = 'Bearer error="invalid_token"'
    expired = (grpc.StatusCode.UNAUTHENTICATED, "the token has expired", invalid)
    expected = ["ada by jwt", "ada by bearer", "eve by api-key", expired, MISSING]
    assert (found, keys.count) == ([expected] * 4, 1)


@pytest.mark.parametrize("world", ["sync", "async"])
def test_what_is_open_and_what_is_not(world: str, serve: Serve) -> None:
    """Public methods and health are open; reflection, and what does not exist, is not."""
    app = app_of(world)
    app.auth(
        any_of(BearerTokens({TOKEN: "ada"}), APIKeys({KEY: "eve"})), public=["pkg.Service/Public"]
    )
    with serve(app) as client:

        def raw(path: str, request: bytes, *metadata: tuple[str, str]) -> Any:
            call: Any = client.channel.stream_stream(path)
            try:
                list(call(iter([request]), metadata=metadata, timeout=20))
            except grpc.RpcError as error:
                return status_of(error)
            return "served"

        reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        found = {
            "public": said(client, "Public"),
            "public, with a wrong token": said(client, "Public", bearer("wrong")),
            "unhandled": said(client, "Unhandled"),
            "unhandled, known": said(client, "Unhandled", bearer(TOKEN))[0],
            "unknown": raw("/no.Such/Method", b""),
            "unknown, known": raw("/no.Such/Method", b"", bearer(TOKEN))[0],
            "health": raw("/grpc.health.v1.Health/Check", b""),
            "reflection": raw(reflection, b"\x3a\x00"),
            "reflection, known": raw(reflection, b"\x3a\x00", bearer(TOKEN)),
        }
    assert found == {
        "public": "nobody",
        "public, with a wrong token": "nobody",
        "unhandled": MISSING,
        "unhandled, known": grpc.StatusCode.UNIMPLEMENTED,
        "unknown": MISSING,
        "unknown, known": grpc.StatusCode.UNIMPLEMENTED,
        "health": "served",
        "reflection": MISSING,
        "reflection, known": "served",
    }


@pytest.mark.parametrize("world", ["sync", "async"])
def test_scopes_of_a_token(world: str, serve: Serve, keys: KeyServer) -> None:
    """A method may ask for scopes, which the claims of a token have."""
    app = app_of(world)
    app.auth(JWT(jwks=keys.url, issuer=ISSUER, audience=AUDIENCE))
    with serve(app) as client:
        found = [said(client, "Scoped", bearer(token(scope=scope))) for scope in ("a b", "b")]
    assert found == [
        "ada by jwt",
        (
            grpc.StatusCode.PERMISSION_DENIED,
            "this method needs the scope 'a'",
            'Bearer error="insufficient_scope", scope="a"',
        ),
    ]
