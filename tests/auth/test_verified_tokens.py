"""Tokens that were verified before: what is remembered, and when it counts no more."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from dynserve.auth import JWT
from dynserve.auth.keys import Key
from dynserve.auth.verified_tokens import Verified, VerifiedTokens
from tests.auth.asking import WORLDS, answer, ask, bearer, refusal
from tests.auth.issuing import AUDIENCE, ISSUER, jwks, jwt, pem, token


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each token whose signature was verified, in order."""
    seen: list[str] = []
    decode = jwt.decode

    def watched(token: str, *arguments: Any, **options: Any) -> Any:
        seen.append(token)
        return decode(token, *arguments, **options)

    monkeypatch.setattr(jwt, "decode", watched)
    return seen


def verifier(**options: Any) -> JWT:
    return JWT(issuer=ISSUER, audience=AUDIENCE, **({"jwks": jwks()} | options))


@pytest.mark.parametrize("world", WORLDS)
def test_a_signature_is_verified_once(world: str, verified: list[str]) -> None:
    """The second call with a token has the same identity, and its own claims."""
    authenticate = verifier()
    one, two = token(roles=["a"]), token(sub="eve", exp=None)
    authenticate_forever = verifier(required=())
    found = [ask(authenticate, world, bearer(one)) for _ in range(3)]
    found[0].claims["sub"] = found[1].claims["sub"] = "changed"
    assert [identity.name for identity in found] == ["ada"] * 3
    assert ask(authenticate, world, bearer(one)).claims == found[2].claims
    assert found[2].claims["sub"] == "ada"
    assert [ask(authenticate_forever, world, bearer(two)).name for _ in range(2)] == ["eve"] * 2
    assert verified == [one, two]


@pytest.mark.parametrize("world", WORLDS)
def test_what_is_refused_is_not_remembered(world: str, verified: list[str]) -> None:
    """A wrong token is looked at each time."""
    authenticate = verifier()
    for wrong in (token(exp=1), token(sub=""), token(name="first", aud="other")):
        verified.clear()
        texts = {refusal(authenticate, world, bearer(wrong))[1] for _ in range(2)}
        assert (len(texts), verified) == (1, [wrong, wrong])


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("later", "times"), [(0, 1), (609, 1), (611, 2)])
def test_it_counts_until_the_token_ends(
    world: str, later: int, times: int, verified: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its end on, with the leeway, a token is verified anew, and so refused."""
    authenticate = verifier()
    now = int(time.time())
    one = token(exp=now + 600)
    assert ask(authenticate, world, bearer(one)).name == "ada"

    class Time:
        @staticmethod
        def time() -> float:
            return now + later

    monkeypatch.setattr("dynserve.auth.json_web_token.time", Time)
    ask(authenticate, world, bearer(one))
    assert verified == [one] * times


@pytest.mark.parametrize("world", WORLDS)
def test_it_counts_until_the_key_is_gone(
    world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of a key that the issuer has withdrawn is refused, remembered or not."""
    monkeypatch.setattr("dynserve.auth.watched._CHECK_SECONDS", 0.0)
    file = tmp_path / "keys"
    file.write_bytes(pem("ES256"))
    authenticate = verifier(jwks=file)
    one = token()
    found = [answer(authenticate, world, bearer(one)) for _ in range(2)]
    file.write_bytes(pem("ES256", "second"))
    found.append(answer(authenticate, world, bearer(one)))
    names = [getattr(identity, "name", identity) for identity in found]
    assert names == ["ada", "ada", "the token is not valid"]


def test_so_many_are_remembered_and_no_token_is_kept() -> None:
    """The first goes when there is no room; what is kept are hashes."""
    key = Key(None, frozenset(), None)
    tokens = VerifiedTokens(most=2)
    every = {name: Verified(None, "ES256", key, 1.0, name, {}) for name in ("one", "two", "three")}
    for name, verified in every.items():
        tokens.put(name, verified)
    assert {name: tokens.get(name) for name in (*every, "four")} == {
        "one": None,
        "two": every["two"],
        "three": every["three"],
        "four": None,
    }
    assert {len(digest) for digest in tokens._found} == {32}
