"""JSON web tokens: which are valid, and that nothing else is."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from dynserve.auth import JWT
from dynserve.errors import CredentialsError
from dynserve.identity import Identity
from tests.auth.asking import WORLDS, Answer, answer, ask, bearer, refusal
from tests.auth.issuing import (
    AUDIENCE,
    ISSUER,
    jwk,
    jwks,
    jwt,
    pem,
    private_key,
    raw_token,
    token,
)

SECRET = "a secret of thirty-two characters"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
CHALLENGE = (("www-authenticate", 'Bearer error="invalid_token"'),)
INVALID: Answer = (UNAUTHENTICATED, "the token is not valid", CHALLENGE)
EXPIRED: Answer = (UNAUTHENTICATED, "the token has expired", CHALLENGE)
NOT_YET: Answer = (UNAUTHENTICATED, "the token is not valid yet", CHALLENGE)

PUBLIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
PUBLIC += ["EdDSA", "Ed448"]


def verifier(**options: Any) -> JWT:
    """One with the first ES256 key."""
    if "key" not in options:
        options.setdefault("jwks", jwks())
    options.setdefault("issuer", ISSUER)
    options.setdefault("audience", AUDIENCE)
    return JWT(**options)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("algorithm", PUBLIC)
@pytest.mark.parametrize("source", ["jwks", "pem", "file of jwks", "file of pem"])
def test_a_valid_token_is_let_in(world: str, algorithm: str, source: str, tmp_path: Path) -> None:
    """The identity has the subject as its name, and the claims; each algorithm and source does."""
    keys = jwks(jwk("RS256", "other"), jwk(algorithm))
    given: dict[str, Any] = {"jwks": keys} if source == "jwks" else {"key": pem(algorithm)}
    if source.startswith("file"):
        file = tmp_path / "keys"
        file.write_bytes(
            jwt.api_jwt.json.dumps(keys).encode() if "jwks" in source else pem(algorithm)
        )
        given = {"jwks": file if "jwks" in source else str(file)}
    exp = int(time.time()) + 60
    found = ask(verifier(**given), world, bearer(token(algorithm, exp=exp, scope="a b")))
    claims = {"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": exp, "scope": "a b"}
    assert found == Identity("ada", "jwt", claims)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_shared_secret(algorithm: str) -> None:
    """With a secret, tokens that are signed with it are valid, by the algorithms that are named."""
    secret = SECRET * 2
    authenticate = verifier(key=secret, algorithms=[algorithm])
    right = token(algorithm, key=secret)
    wrong = token(algorithm, key=secret[1:])
    other = token({"HS256": "HS512"}.get(algorithm, "HS256"), key=secret)
    names = [answer(authenticate, "sync", bearer(one)) for one in (right, wrong, other)]
    assert [getattr(one, "name", one) for one in names] == [
        "ada",
        "the token is not valid",
        "the token is not valid",
    ]


def test_a_secret_is_for_hs256_by_default() -> None:
    """A secret may be bytes, and needs no list of algorithms."""
    authenticate = verifier(key=SECRET.encode())
    assert ask(authenticate, "sync", bearer(token("HS256", key=SECRET))).name == "ada"


class In(NamedTuple):
    """A time so many seconds after the test has begun."""

    seconds: int


def timed(claims: dict[str, Any]) -> dict[str, Any]:
    now = int(time.time())
    return {
        name: now + value.seconds if isinstance(value, In) else value
        for name, value in claims.items()
    }


def in_(seconds: int) -> int:
    return int(time.time()) + seconds


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": In(-600)}, EXPIRED),
        ({"exp": In(-30)}, EXPIRED),
        ({"exp": 0}, EXPIRED),
        ({"exp": None}, INVALID),
        ({"exp": "never"}, INVALID),
        ({"exp": [1]}, INVALID),
        ({"exp": float("inf")}, INVALID),
        ({"exp": float("nan")}, INVALID),
        ({"nbf": In(600)}, NOT_YET),
        ({"nbf": "soon"}, INVALID),
        ({"iat": In(600)}, NOT_YET),
        ({"iss": None}, INVALID),
        ({"iss": ISSUER[:-1]}, INVALID),
        ({"iss": f"{ISSUER}x"}, INVALID),
        ({"aud": None}, INVALID),
        ({"aud": "other"}, INVALID),
        ({"aud": "route"}, INVALID),
        ({"aud": ["other", "routes2"]}, INVALID),
        ({"aud": []}, INVALID),
        ({"aud": {"routes": 1}}, INVALID),
        ({"sub": None}, INVALID),
        ({"sub": ""}, INVALID),
        ({"sub": 5}, INVALID),
        ({"sub": ["ada"]}, INVALID),
    ],
    ids=repr,
)
def test_claims_that_are_not_right(world: str, claims: dict[str, Any], expected: Answer) -> None:
    """A token with a right signature and a wrong claim is refused; only times are told."""
    assert refusal(verifier(), world, bearer(token(**timed(claims)))) == expected


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": In(-3)},
        {"nbf": In(3)},
        {"iat": In(3)},
        {"aud": ["other", AUDIENCE]},
        {"scope": "a"},
    ],
    ids=repr,
)
def test_claims_that_are_right_all_the_same(claims: dict[str, Any]) -> None:
    """Clocks may differ by ten seconds, and a token may be for several."""
    assert ask(verifier(), "sync", bearer(token(**timed(claims)))).name == "ada"


def test_several_audiences_and_issuers() -> None:
    """One of those that are named is enough; part of a name never is."""
    authenticate = verifier(audience=["a", "b"], issuer=["https://one/", "https://two/"])
    cases = [("a", "https://two/"), ("b", "https://one/"), ("c", "https://one/")]
    cases += [("a", "https://three/"), ("a", "https://"), ("a", "https")]
    found = [answer(authenticate, "sync", bearer(token(aud=a, iss=i))) for a, i in cases]
    invalid = "the token is not valid"
    assert [getattr(one, "name", one) for one in found] == ["ada", "ada", *[invalid] * 4]


def test_what_is_not_checked_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """None for audience or issuer, and no exp, accept more, and the log warns of each."""
    authenticate = verifier(audience=None, issuer=None, required=())
    assert ask(authenticate, "sync", bearer(token(aud="x", iss="y", exp=None))).name == "ada"
    assert ask(authenticate, "sync", bearer(token(aud=None, iss=None))).name == "ada"
    assert refusal(authenticate, "sync", bearer(token(exp=1))) == EXPIRED
    assert [record.getMessage() for record in caplog.records] == [
        "JWT with audience=None: tokens meant for anyone are accepted",
        "JWT with issuer=None: tokens of any issuer with these keys are accepted",
        "JWT without 'exp' in required: a token without an end is valid for ever",
    ]


def test_name_and_required_claims() -> None:
    """The name may be another claim, and further claims may have to be there."""
    authenticate = verifier(name="client_id", required=["exp", "jti"], leeway=0)
    found = ask(authenticate, "sync", bearer(token(sub=None, client_id="cli", jti="1")))
    assert (found.name, "sub" in found.claims) == ("cli", False)
    for claims in ({"client_id": "cli"}, {"jti": "1"}, {"client_id": 7, "jti": "1"}):
        assert refusal(authenticate, "sync", bearer(token(**claims))) == INVALID


def test_algorithms_are_told_apart_by_the_key() -> None:
    """Neither none, nor a public key as a secret, nor another algorithm than the key's is valid."""
    authenticate = verifier(jwks=jwks(jwk("RS256"), jwk("ES256", "second")))
    public = pem("RS256")
    claims = {"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": in_(600)}
    head = raw_token({"alg": "HS256", "kid": "first"}, claims).rpartition(".")[0]
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    forged = f"{head}.{jwt.utils.base64url_encode(hmac.sign(head.encode(), public)).decode()}"
    tokens = [
        forged,
        token("ES256", "first"),  # an id of a key of another kind
        token("RS256", "second"),
        token("ES384", "second", header={"kid": "second"}),
        raw_token({"alg": "none"}, claims, b""),
        raw_token({"alg": "None", "kid": "first"}, claims, b""),
        raw_token({"alg": "", "kid": "first"}, claims, b""),
        raw_token({"kid": "first"}, claims, b""),
        raw_token({"alg": ["RS256"], "kid": "first"}, claims),
        raw_token({"alg": {"a": 1}, "kid": "first"}, claims),
        raw_token({"alg": "RS256", "kid": "first"}, claims),
        raw_token({"alg": "RS256", "kid": 1}, claims),
        raw_token({"alg": "RS256", "kid": ["first"]}, claims),
        token("RS256", "other", header={"kid": "first"}),  # another key under the same id
    ]
    assert [refusal(authenticate, "sync", bearer(one)) for one in tokens] == [INVALID] * 14


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"crit": None, "b64": False},
    ],
    ids=repr,
)
def test_what_is_critical_is_not_understood(header: dict[str, Any]) -> None:
    """A header that asks for an extension makes a token invalid, though its signature be right."""
    parts = {"alg": "HS256", **header}
    claims = {"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": in_(600)}
    head = raw_token(parts, claims).rpartition(".")[0]
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = hmac.sign(head.encode(), SECRET.encode())
    signed = f"{head}.{jwt.utils.base64url_encode(signature).decode()}"
    assert refusal(verifier(key=SECRET), "sync", bearer(signed)) == INVALID


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    "broken",
    [
        "x",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "...",
        "....",
        "=.=.=",
        "e30.e30.",
        "W10.e30.e30",
        raw_token(b"[" * 9000, {}),
        raw_token(b'{"alg":' * 1300, {}),
        raw_token(b"\xff\xfe", {}),
        raw_token({"alg": "ES256", "kid": "first"}, b"[" * 9000),
        raw_token({"alg": "ES256", "kid": "x" * 9000}, {}),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_token(world: str, broken: str) -> None:
    """Nonsense of any form is not valid, and nothing more is said."""
    assert refusal(verifier(), world, bearer(broken)) == INVALID


def test_every_changed_letter_makes_it_invalid() -> None:
    """No part of a token can be changed."""
    valid = token()
    places = [*range(0, len(valid), 7), len(valid) - 2]
    changed = [
        valid[:place] + ("A" if valid[place] != "A" else "B") + valid[place + 1 :]
        for place in places
    ]
    found = {refusal(verifier(), "sync", bearer(one))[1] for one in changed}
    assert found == {"the token is not valid"}


def test_without_a_bearer_token() -> None:
    """What is missing is told as for any bearer token."""
    text = "a bearer token is needed in metadata 'authorization'"
    assert refusal(verifier(), "sync") == (
        UNAUTHENTICATED,
        text,
        (("www-authenticate", "Bearer"),),
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"jwks": None}, "jwks: give either jwks or key, one of them"),
        ({"key": SECRET, "jwks": jwks()}, "jwks: give either jwks or key, one of them"),
        ({"algorithms": []}, "algorithms: got [], expected a list of names"),
        ({"algorithms": "ES256"}, "algorithms: got 'ES256', expected a list of names"),
        (
            {"algorithms": ["none"]},
            "algorithms: 'none' would accept what nobody has signed",
        ),
        (
            {"algorithms": ["ES265"]},
            "algorithms: there is no algorithm 'ES265' here; did you mean 'ES256' or 'ES256K' or"
            " 'ES512'?",
        ),
        (
            {"algorithms": ["ES256", "HS256"]},
            "algorithms: HS256 cannot go with public keys: whoever knows one, that is anyone,"
            " could sign tokens with it",
        ),
        (
            {"key": pem("RS256"), "algorithms": ["HS256"]},
            "algorithms: HS256 cannot go with public keys: whoever knows one, that is anyone,"
            " could sign tokens with it",
        ),
        (
            {"key": SECRET, "algorithms": ["HS256", "RS256"]},
            "algorithms: RS256 needs a public key, but key is a secret; expected HS256, HS384,"
            " HS512",
        ),
        ({"key": "short"}, "key: the secret has 5 bytes, HS256 needs at least 32"),
        (
            {"key": SECRET, "algorithms": ["HS512"]},
            "key: the secret has 33 bytes, HS512 needs at least 64",
        ),
        ({"leeway": -1}, "leeway: got -1, expected seconds, 0 or more"),
        ({"audience": []}, "audience: got [], expected a name, or several; None to accept any"),
        ({"audience": ""}, "audience: got '', expected a name, or several; None to accept any"),
        ({"issuer": [5]}, "issuer: got [5], expected a name, or several; None to accept any"),
        ({"jwks": {}}, 'jwks: it is no JSON web key set: expected {"keys": [...]}'),
        (
            {"jwks": "ftp://issuer/jwks"},
            "jwks: got 'ftp://issuer/jwks', expected a URL such as"
            " https://issuer.example/jwks.json",
        ),
        (
            {"jwks": "https://a:b@issuer/jwks"},
            "jwks: the URL has a user name in it, which is not sent; remove it",
        ),
        ({"jwks": "/missing"}, "jwks: cannot read '/missing': No such file or directory"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_arguments_that_make_no_sense(options: dict[str, Any], problem: str) -> None:
    """An error says which argument, what it is, and what to write."""
    with pytest.raises(CredentialsError) as raised:
        verifier(**options)
    assert str(raised.value) == problem


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"key": 5}, "key: got a int, expected PEM or a secret, as str or bytes"),
        (
            {"jwks": [jwk("ES256")]},
            "jwks: got a list, expected a URL, the path of a file, or a mapping",
        ),
    ],
)
def test_arguments_of_another_type(options: dict[str, Any], problem: str) -> None:
    """What has another type is named by it: its value may be secret."""
    with pytest.raises(TypeError) as raised:
        verifier(**options)
    assert str(raised.value) == problem


def test_audience_and_issuer_have_to_be_said() -> None:
    """There is no default that would leave them unchecked."""
    with pytest.raises(TypeError, match="missing 2 required keyword-only arguments"):
        JWT(jwks=jwks())  # type: ignore[call-arg]


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_without_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyJWT, or what it verifies with, an error says what to install."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(CredentialsError) as raised:
        verifier()
    expected = f"jwks: JSON web tokens need {missing}: pip install 'dynserve[auth]'"
    assert str(raised.value) == expected


def test_a_file_of_keys_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key in a file is used, and an old one no longer."""
    monkeypatch.setattr("dynserve.auth.watched._CHECK_SECONDS", 0.0)
    file = tmp_path / "keys.pem"
    file.write_bytes(pem("ES256"))
    authenticate = verifier(jwks=file)
    tokens = [token("ES256"), token("EdDSA")]
    found = [[getattr(answer(authenticate, "sync", bearer(one)), "name", "") for one in tokens]]
    file.write_bytes(pem("EdDSA"))
    found.append([getattr(answer(authenticate, "sync", bearer(one)), "name", "") for one in tokens])
    assert found == [["ada", ""], ["", "ada"]]


def test_text_and_log_have_no_token_and_no_key(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the reason of a refusal; nobody finds a token, a claim or a secret there."""
    caplog.set_level(logging.DEBUG, "dynserve.auth")
    authenticate = verifier(key=SECRET)
    assert repr(authenticate) == f"JWT(keys=1 key, issuer=({ISSUER!r},), audience=('routes',))"
    assert repr(verifier(jwks=jwks(jwk("ES256"), jwk("ES384")))).startswith("JWT(keys=2 keys, ")
    bad = ["a.b.c", token(), token("HS256", key=SECRET, exp=1), token("HS256", key=SECRET, aud="x")]
    bad += [token("HS256", key=SECRET, nbf=in_(99)), token("HS256", key=SECRET, sub="")]
    bad += [raw_token({"alg": "HS256", "crit": ["b64"], "b64": True}, {})]
    for one in bad:
        refusal(authenticate, "sync", bearer(one))
    refusal(verifier(), "sync", bearer(token(name="second")))
    call = "None from ipv4:127.0.0.1:50000: "
    logged = [record.getMessage().removeprefix(call) for record in caplog.records]
    assert logged == [
        "it cannot be read: DecodeError",
        "the algorithm 'ES256' is not allowed",
        "the token has expired",
        "it is not valid: InvalidAudienceError",
        "the token is not valid yet",
        "the claim 'sub' is not a text",
        "the header has 'crit'",
        "no key 'second' for ES256",
    ]


def test_private_keys_are_not_asked_for() -> None:
    """The issuer's private half, given by mistake, is refused with how to make the public one."""
    from cryptography.hazmat.primitives import serialization

    private = private_key("ES256").private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(CredentialsError) as raised:
        verifier(key=private.decode())
    assert str(raised.value) == (
        "key: it is a private key, which only who signs tokens should have; write its public half:"
        " openssl pkey -in KEY -pubout"
    )
