"""An authenticator from settings: what is given is accepted, and nothing by accident."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from dynserve.auth import from_settings
from dynserve.errors import CredentialsError
from tests.auth.asking import WORLDS, answer, bearer
from tests.auth.issuing import AUDIENCE, ISSUER, jwks, token

TOKEN, KEY = "t" * 16, "k" * 16


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of each sort, which is the working directory."""
    for name, text in {
        "tokens": f"ada:{TOKEN}",
        "keys": f"eve:{KEY}",
        "jwks.json": json.dumps(jwks()),
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_settings() -> None:
    """Nothing is authenticated where nothing says how."""
    assert from_settings() is None
    nothing: list[Any] = [False, (), []]
    assert [from_settings(auth_client_cert=one) for one in nothing] == [None] * 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"auth_tokens": "tokens"}, "BearerTokens('tokens', 1 token)"),
        ({"auth_tokens": {TOKEN: "a"}}, "BearerTokens(1 token)"),
        ({"auth_api_keys": "keys"}, "APIKeys('keys', 1 key)"),
        ({"auth_client_cert": True}, "ClientCertificate(allow=None)"),
        ({"auth_client_cert": "any"}, "ClientCertificate(allow=None)"),
        ({"auth_client_cert": "*"}, "ClientCertificate(allow=None)"),
        ({"auth_client_cert": ("*",)}, "ClientCertificate(allow=None)"),
        (
            {"auth_client_cert": str.isupper},
            "ClientCertificate(allow=<method 'isupper' of 'str' objects>)",
        ),
        ({"auth_client_cert": "a.example, b.*"}, "ClientCertificate(allow=['a.example', 'b.*'])"),
        ({"auth_client_cert": ["a,b"]}, "ClientCertificate(allow=['a,b'])"),
        (
            {"auth_jwks": "jwks.json", "auth_issuer": ISSUER, "auth_audience": "a, b"},
            f"JWT(keys='jwks.json', issuer=({ISSUER!r},), audience=('a', 'b'))",
        ),
        (
            {"auth_jwks": "https://issuer/jwks", "auth_issuer": ["i"], "auth_audience": "any"},
            "JWT(keys='https://issuer/jwks', issuer=('i',), audience=None)",
        ),
        (
            {
                "auth_api_keys": "keys",
                "auth_tokens": "tokens",
                "auth_jwks": jwks(),
                "auth_issuer": "any",
                "auth_audience": "routes",
                "auth_client_cert": "any",
            },
            "any_of(ClientCertificate(allow=None), BearerTokens('tokens', 1 token),"
            " JWT(keys=1 key, issuer=None, audience=('routes',)), APIKeys('keys', 1 key))",
        ),
    ],
    ids=map(str, itertools.count()),  # a key is another in each run
)
@pytest.mark.usefixtures("folder")
def test_what_is_given_is_accepted(settings: dict[str, Any], expected: str) -> None:
    """Each setting makes its authenticator; several are alternatives."""
    assert repr(from_settings(**settings)) == expected


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.usefixtures("folder")
def test_all_of_them_at_once(world: str) -> None:
    """A token of either sort, a key and a certificate each let a caller in."""
    authenticate = from_settings("tokens", "jwks.json", ISSUER, AUDIENCE, "keys", "*.example")
    assert authenticate is not None
    certificate = {
        "transport_security_type": [b"ssl"],
        "x509_common_name": [b"gw.example"],
    }
    found = [
        answer(authenticate, world, bearer(TOKEN)),
        answer(authenticate, world, bearer(token())),
        answer(authenticate, world, bearer(token(exp=1))),
        answer(authenticate, world, bearer("x.y.z")),
        answer(authenticate, world, [("x-api-key", KEY)]),
        answer(authenticate, world, auth=certificate),
        answer(authenticate, world),
    ]
    assert [getattr(one, "name", one) for one in found] == [
        "ada",
        "ada",
        "the token has expired",
        "the token is not valid",
        "eve",
        "gw.example",
        "a client certificate is needed, or a bearer token is needed in metadata 'authorization',"
        " or an API key is needed in metadata 'x-api-key'",
    ]


SHORT = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        *[
            ({name: ""}, f"{name}: it is empty; leave it out where nothing is to be accepted by it")
            for name in (
                "auth_tokens",
                "auth_jwks",
                "auth_issuer",
                "auth_audience",
                "auth_api_keys",
                "auth_client_cert",
            )
        ],
        (
            {"auth_tokens": "missing"},
            "auth_tokens: cannot read 'missing': No such file or directory",
        ),
        ({"auth_tokens": {}}, "auth_tokens: there is no token, so nobody could call"),
        (
            {"auth_api_keys": {"short": "ada"}},
            f"auth_api_keys: the key of 'ada' has 5 characters, expected at least 16; {SHORT}",
        ),
        (
            {"auth_client_cert": " , "},
            "auth_client_cert: got [], so nobody could call; None allows every certificate",
        ),
        (
            {"auth_issuer": ISSUER},
            "auth_issuer: has no effect without auth_jwks, the keys that tokens are verified with",
        ),
        (
            {"auth_audience": "a", "auth_tokens": "tokens"},
            "auth_audience: has no effect without auth_jwks, the keys that tokens are verified"
            " with",
        ),
        (
            {"auth_jwks": "jwks.json", "auth_audience": "a"},
            "auth_issuer: auth_jwks needs it: who made the tokens, their 'iss'; 'any' accepts any",
        ),
        (
            {"auth_jwks": "jwks.json", "auth_issuer": "i"},
            "auth_audience: auth_jwks needs it: whom they are for, their 'aud'; 'any' accepts any",
        ),
        (
            {"auth_jwks": "jwks.json", "auth_issuer": ",", "auth_audience": "a"},
            "auth_issuer: got [], expected a name, or several; None to accept any",
        ),
        (
            {"auth_jwks": "tokens", "auth_issuer": "i", "auth_audience": "a"},
            "auth_jwks: 'tokens': it is neither a JSON web key set nor a public key in PEM",
        ),
        (
            {"auth_jwks": "ftp://x/y", "auth_issuer": "i", "auth_audience": "a"},
            "auth_jwks: got 'ftp://x/y', expected a URL such as https://issuer.example/jwks.json",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.usefixtures("folder")
def test_what_does_not_fit(settings: dict[str, Any], problem: str) -> None:
    """An error names the setting; what is empty or lacks another never means nobody is asked."""
    with pytest.raises(CredentialsError) as raised:
        from_settings(**settings)
    assert str(raised.value) == problem
