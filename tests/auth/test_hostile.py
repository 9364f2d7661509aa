"""Whatever a caller sends, it gets a refusal, or the identity that is its own."""

from __future__ import annotations

import base64
import json
from collections.abc import Coroutine
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynserve import StatusError
from dynserve.auth import JWT, APIKeys, BearerTokens, ClientCertificate, any_of
from dynserve.identity import Identity
from tests.auth.asking import WORLDS, Answer, ask
from tests.auth.issuing import AUDIENCE, ISSUER, jwk, jwks, pem, token

TOKEN, KEY, SECRET = "t0ken-of-sixteen", "k3y-of-sixteen-c", "s" * 32
VALID = {algorithm: token(algorithm, key=None) for algorithm in ("ES256", "RS256", "EdDSA")}
SIGNED = token("HS256", key=SECRET)

OF_TOKENS = BearerTokens({TOKEN: "of token"})
OF_KEYS = APIKeys({KEY: "of key"})
OF_JWT = JWT(jwks=jwks(jwk("ES256"), jwk("RS256"), jwk("EdDSA")), issuer=ISSUER, audience=AUDIENCE)
OF_SECRET = JWT(key=SECRET, issuer=ISSUER, audience=AUDIENCE)
EVERY = any_of(OF_TOKENS, OF_JWT, OF_SECRET, OF_KEYS, ClientCertificate())

# What a peer may be told: nothing but these.
TEXTS = {
    "a client certificate is needed",
    "an API key is needed in metadata 'x-api-key'",
    "a bearer token is needed in metadata 'authorization'",
    "a bearer token is needed in metadata 'authorization', or an API key is needed in metadata"
    " 'x-api-key', or a client certificate is needed",
    "metadata 'authorization' is not of the form 'Bearer TOKEN'",
    "metadata 'authorization' was sent more than once; send it once",
    "metadata 'x-api-key' was sent more than once; send it once",
    "the API key has characters that are not printable ASCII",
    "the API key is longer than 16384 characters",
    "the API key is not valid",
    "the token has characters that are not printable ASCII",
    "the token has expired",
    "the token is longer than 16384 characters",
    "the token is not valid",
    "the token is not valid yet",
}
CHALLENGES: set[Any] = {
    (),
    (("www-authenticate", "Bearer"),),
    (("www-authenticate", 'Bearer error="invalid_token"'),),
}


def expected(pairs: list[tuple[str, str | bytes]]) -> set[str]:
    """The names that these credentials prove, each by itself; empty where none may get in."""
    names = set()
    for key, name in (("authorization", ""), ("x-api-key", "of key")):
        values = [value for given, value in pairs if given == key]
        if len(values) != 1 or not isinstance(values[0], str):
            continue
        if key == "x-api-key" and values[0] == KEY:
            names.add(name)
        scheme, _, rest = values[0].partition(" ")
        if key == "authorization" and scheme.lower() == "bearer":
            if rest.strip(" ") == TOKEN:
                names.add("of token")
            if rest.strip(" ").rstrip("=") in (*VALID.values(), SIGNED):
                names.add("ada")
    return names


class Call:
    """A call as an engine has it: with whatever metadata gRPC let through."""

    method = None

    def __init__(self, pairs: list[tuple[str, str | bytes]]) -> None:
        self.pairs = pairs

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return tuple(self.pairs)

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"transport_security_type": [b"insecure"]}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:50000"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["ES256", "RS256", "HS256", "EdDSA", "none", "PS256"]) | values,
        "kid": st.sampled_from(["first", "second"]) | values,
        "typ": values,
        "crit": values,
        "b64": values,
        "jwk": st.just(jwk("ES256", "second")),
        "jku": st.just("http://127.0.0.1:1/jwks"),
        "x5u": st.just("file:///etc/passwd"),
    },
)
claims = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("sub", "iss", "aud", "exp", "nbf", "iat", "jti"), values),
)
segments = st.one_of(
    st.binary(max_size=40).map(b64),
    st.text(alphabet="abcXYZ019-_=+/", max_size=20),
    st.sampled_from([part for one in (*VALID.values(), SIGNED) for part in one.split(".")]),
)


def unsigned(header: Any, payload: Any, signature: str) -> str:
    return ".".join(
        [b64(json.dumps(header).encode()), b64(json.dumps(payload).encode()), signature]
    )


tokens = st.one_of(
    st.sampled_from([TOKEN, KEY, SECRET, SIGNED, *VALID.values(), pem("ES256").hex()]),
    st.builds(unsigned, headers, claims, segments),
    st.lists(segments, max_size=5).map(".".join),
    st.text(max_size=60),
    st.builds(
        lambda one, place, letter: one[:place] + letter + one[place + 1 :],
        st.sampled_from([TOKEN, KEY, SIGNED, *VALID.values()]),
        st.integers(0, 300),
        st.sampled_from("Aa1.=_- "),
    ),
)
authorizations = st.one_of(
    tokens,
    st.builds(
        lambda scheme, space, one: f"{scheme}{space}{one}",
        st.sampled_from(["Bearer", "bearer", "BEARER", "Basic", "bear", "", "Bearer Bearer"]),
        st.sampled_from([" ", "  ", "\t", "", ":"]),
        tokens,
    ),
    st.integers(16360, 16400).map(lambda count: "Bearer " + "x" * count),
    st.binary(max_size=20),
)
metadata = st.lists(
    st.one_of(
        st.tuples(st.just("authorization"), authorizations),
        st.tuples(st.just("authorization"), tokens.map(lambda one: f"Bearer {one}")),
        st.tuples(st.just("x-api-key"), tokens | st.binary(max_size=20)),
        st.tuples(st.sampled_from(["Authorization", "authorization-bin", "cookie"]), tokens),
    ),
    max_size=4,
)


def answer(authenticate: Any, call: Call) -> str:
    """The name in the identity, or the text of the refusal."""
    try:
        name: str = authenticate(call).name
    except StatusError as error:
        return error.details()
    return name


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that waits for nothing, as keys that are at hand have it."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits")


def check(authenticate: Any, world: str, pairs: Any, allowed: set[str]) -> None:
    """The outcome is one of those that are allowed, and the whole of a refusal is a known one."""
    call = Call(pairs)
    try:
        if world == "async" and hasattr(authenticate, "authenticate_async"):
            identity: Identity = at_once(authenticate.authenticate_async(call))
        else:
            identity = authenticate(call)
    except StatusError as error:
        refused: Answer = (error.code(), error.details(), error.trailing_metadata())
        assert refused[0] is grpc.StatusCode.UNAUTHENTICATED
        assert refused[1].split(", or ")[0] in TEXTS
        assert refused[2] in CHALLENGES
    else:
        assert identity.name in allowed


@pytest.mark.parametrize("world", WORLDS)
@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(pairs=metadata)
def test_any_metadata(world: str, pairs: list[tuple[str, str | bytes]]) -> None:
    """No metadata raises anything but a refusal, or gives anyone a name that is not its own."""
    names = expected(pairs)
    check(OF_TOKENS, world, pairs, names & {"of token"})
    check(OF_KEYS, world, pairs, names & {"of key"})
    check(OF_JWT, world, pairs, names & {"ada"})
    check(OF_SECRET, world, pairs, names & {"ada"})
    check(EVERY, world, pairs, names)


@pytest.mark.parametrize("world", WORLDS)
def test_each_credential_by_itself(world: str) -> None:
    """The other test can fail: what it takes for right does get in."""
    for pairs in (
        [("authorization", f"Bearer {TOKEN}")],
        [("authorization", f"bearer  {SIGNED}")],
        [("x-api-key", KEY)],
        *([("authorization", f"Bearer {one}")] for one in VALID.values()),
    ):
        assert {ask(EVERY, world, pairs).name} == expected(list(pairs))


@settings(deadline=None, max_examples=200)
@given(
    properties=st.dictionaries(
        st.sampled_from(
            [
                "transport_security_type",
                "x509_common_name",
                "x509_subject_alternative_name",
                "peer_spiffe_id",
                "peer_identity",
            ]
        ),
        st.lists(st.sampled_from([b"ssl", b"ada", b"ada\0", b"\xff", b"", b"eve"]), max_size=3),
    )
)
def test_any_properties_of_a_connection(properties: dict[str, list[bytes]]) -> None:
    """A certificate lets in by a name that it has, over TLS, and by nothing else."""
    allowed = ClientCertificate({"ada"})

    class Connection(Call):
        def auth_context(self) -> dict[str, list[bytes]]:
            return properties

    found = answer(allowed, Connection([]))
    alternative = [
        name
        for key in ("peer_spiffe_id", "x509_subject_alternative_name")
        for name in properties.get(key, [])
    ]
    names = alternative or properties.get("x509_common_name", [])
    is_let_in = b"ssl" in properties.get("transport_security_type", []) and b"ada" in names
    refusals = ["a client certificate is needed", "the client certificate is not allowed here"]
    assert found in (["ada"] if is_let_in else refusals)
