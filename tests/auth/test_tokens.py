"""Bearer tokens and API keys: who is let in, and what the others are told."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import pytest

from dynserve.auth import APIKeys, BearerTokens
from dynserve.errors import CredentialsError
from dynserve.identity import Identity
from tests.auth.asking import WORLDS, Answer, ask, refusal

TOKEN = "c2VjcmV0LW9mLWFkYQ"
OTHER = "c2VjcmV0LW9mLWV2ZQ"
TOKENS = {TOKEN: "ada", OTHER: "eve"}

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
MISSING: Answer = (
    UNAUTHENTICATED,
    "a bearer token is needed in metadata 'authorization'",
    (("www-authenticate", "Bearer"),),
)
FORM: Answer = (
    UNAUTHENTICATED,
    "metadata 'authorization' is not of the form 'Bearer TOKEN'",
    (("www-authenticate", "Bearer"),),
)
INVALID: Answer = (
    UNAUTHENTICATED,
    "the token is not valid",
    (("www-authenticate", 'Bearer error="invalid_token"'),),
)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
@pytest.mark.parametrize(("token", "name"), TOKENS.items())
def test_a_known_token_is_let_in(world: str, scheme: str, token: str, name: str) -> None:
    """The identity is the name that the token was given; the scheme may be in any case."""
    found = ask(BearerTokens(TOKENS), world, [("authorization", f"{scheme} {token}")])
    assert found == Identity(name, "bearer")


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], MISSING),
        ([""], MISSING),
        (["Bearer"], FORM),
        (["Bearer "], FORM),
        (["Bearer    "], FORM),
        ([TOKEN], FORM),
        ([f"Basic {TOKEN}"], FORM),
        ([f"Bearer{TOKEN}"], FORM),
        ([f"Bearer:{TOKEN}"], FORM),
        ([f" Bearer {TOKEN}"], FORM),
        ([f"Bearer {TOKEN[:-1]}"], INVALID),
        ([f"Bearer {TOKEN}="], INVALID),
        ([f"Bearer {TOKEN.lower()}"], INVALID),
        ([f"Bearer {TOKEN} {OTHER}"], INVALID),
        ([f"Bearer Bearer {TOKEN}"], INVALID),
        (
            [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
            (
                UNAUTHENTICATED,
                "metadata 'authorization' was sent more than once; send it once",
                (),
            ),
        ),
        (
            ["Bearer " + "x" * 16384],
            (UNAUTHENTICATED, "the token is longer than 16384 characters", ()),
        ),
        (["Bearer " + "x" * 16377], INVALID),
    ],
)
def test_what_else_is_told(world: str, values: list[str], expected: Answer) -> None:
    """A refusal says what is expected, and nothing of what is known."""
    metadata = [("x-other", "Bearer"), *(("authorization", value) for value in values)]
    assert refusal(BearerTokens(TOKENS), world, metadata) == expected


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}\xe9", "Bearer \u2028", "Bearer a\tb", b"\xff"])
def test_characters_that_no_token_has(value: str | bytes) -> None:
    """What gRPC lets through beside printable ASCII is refused before anything looks at it."""

    class Call:
        method = None

        def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
            return [("authorization", value)]

        def peer(self) -> str:
            return ""

    with pytest.raises(grpc.RpcError) as raised:
        BearerTokens(TOKENS)(Call())
    expected = "UNAUTHENTICATED: the token has characters that are not printable ASCII"
    assert str(raised.value) == expected


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("header", ["x-api-key", "X-Team-Key"])
def test_a_known_key_is_let_in(world: str, header: str) -> None:
    """A key is looked for under its own metadata key, which may be written in any case."""
    keys = APIKeys(TOKENS, header=header)
    assert ask(keys, world, [(header.lower(), OTHER)]) == Identity("eve", "api-key")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ([], "an API key is needed in metadata 'x-api-key'"),
        ([("authorization", f"Bearer {TOKEN}")], "an API key is needed in metadata 'x-api-key'"),
        ([("x-api-key", "")], "an API key is needed in metadata 'x-api-key'"),
        ([("x-api-key", TOKEN[1:])], "the API key is not valid"),
        ([("x-api-key", f"Bearer {TOKEN}")], "the API key is not valid"),
        (
            [("x-api-key", TOKEN), ("x-api-key", OTHER)],
            "metadata 'x-api-key' was sent more than once; send it once",
        ),
        ([("x-api-key", "x" * 16385)], "the API key is longer than 16384 characters"),
    ],
)
def test_what_callers_without_a_key_are_told(
    metadata: list[tuple[str, str]], expected: str
) -> None:
    """As with tokens; there is no challenge, since no scheme of HTTP is an API key."""
    assert refusal(APIKeys(TOKENS), "sync", metadata) == (UNAUTHENTICATED, expected, ())


@pytest.mark.parametrize("header", ["", "x key", "x-key-bin", "grpc-key", "schl\u00fcssel"])
def test_a_header_that_cannot_be_one(header: str) -> None:
    """A key that no client could send as text is refused where it is written."""
    with pytest.raises(CredentialsError) as raised:
        APIKeys(TOKENS, header=header)
    expected = f"header: got {header!r}, expected a key of text metadata such as 'x-api-key'"
    assert str(raised.value) == expected


def test_texts_and_logs_have_no_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is shown and logged of an authenticator is how many tokens it has, and whence."""
    caplog.set_level(logging.DEBUG, "dynserve.auth")
    file = tmp_path / "tokens"
    file.write_text(f"ada:{TOKEN}\n")
    file.chmod(0o600)
    tokens, keys, of_file = BearerTokens(TOKENS), APIKeys({TOKEN: "a"}), BearerTokens(file)
    assert [repr(tokens), repr(keys), repr(of_file)] == [
        "BearerTokens(2 tokens)",
        "APIKeys(1 key)",
        f"BearerTokens({str(file)!r}, 1 token)",
    ]
    refusal(tokens, "sync", [("authorization", f"Bearer {TOKEN}x")])
    refusal(keys, "sync", [("x-api-key", f"{TOKEN}x")])
    refusal(keys, "sync")
    assert [record.getMessage() for record in caplog.records] == [
        "None from ipv4:127.0.0.1:50000: the token is none of BearerTokens(2 tokens)",
        "None from ipv4:127.0.0.1:50000: the API key is none of APIKeys(1 key)",
        "None from ipv4:127.0.0.1:50000: no metadata 'x-api-key'",
    ]
    for one in (tokens, keys, of_file):
        assert TOKEN not in repr(vars(vars(one)["_table"]))
