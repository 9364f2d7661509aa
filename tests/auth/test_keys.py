"""Keys: what each may verify, and which are left out."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from dynserve.auth.keys import KeySet, keys_of_bytes, keys_of_jwks, keys_of_pem
from tests.auth.issuing import jwk, jwks, pem, private_key

RSA = ["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]


def held(keys: KeySet) -> list[tuple[str | None, list[str]]]:
    """The id and the algorithms of each."""
    return [(key.identifier, sorted(key.algorithms)) for key in keys._keys]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (jwk("RS256"), ("first", RSA)),
        (jwk("RS256", alg="PS384"), ("first", ["PS384"])),
        (jwk("RS256", use="sig"), ("first", RSA)),
        (jwk("RS256", key_ops=["verify"]), ("first", RSA)),
        (jwk("ES256"), ("first", ["ES256"])),
        (jwk("ES384"), ("first", ["ES384"])),
        (jwk("ES512"), ("first", ["ES512"])),
        (jwk("ES256K"), ("first", ["ES256K"])),
        (jwk("EdDSA"), ("first", ["EdDSA"])),
        (jwk("Ed448"), ("first", ["EdDSA"])),
        (jwk("ES256", kid=None), (None, ["ES256"])),
        (jwk("ES256", kid=7), (None, ["ES256"])),
        (jwk("ES256", alg="RS256"), None),
        (jwk("RS256", alg="HS256"), None),
        (jwk("RS256", alg="none"), None),
        (jwk("RS256", alg=["RS256"]), None),
        (jwk("ES256", use="enc"), None),
        (jwk("ES256", key_ops=["encrypt"]), None),
        (jwk("ES256", key_ops=7), None),
        (jwk("ES256", x="AAAA"), None),
        (jwk("ES256", crv="P-384"), None),
        (jwk("ES256", crv="P-999"), None),
        (jwk("EdDSA", crv="X25519"), None),
        (jwk("RSA1024"), None),
        ({"kty": "oct", "kid": "first", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXM"}, None),
        ({"kty": "RSA", "kid": "first"}, None),
        ({"kty": ["RSA"]}, None),
        ({}, None),
        ("key", None),
        (None, None),
    ],
    ids=lambda value: "",
)
def test_a_key_verifies_what_it_is_made_for(key: Any, expected: Any) -> None:
    """Kind, curve and the set's own words say which; what cannot be used is left out."""
    keys = keys_of_jwks({"keys": [key, jwk("EdDSA", "last")]})
    last = [("last", ["EdDSA"])]
    assert held(keys) == ([expected] if expected else []) + last


def test_only_the_public_half_is_kept() -> None:
    """A set that tells its private keys by mistake is used without them."""
    from jwt.algorithms import ECAlgorithm, RSAAlgorithm

    both = [
        ECAlgorithm.to_jwk(private_key("ES256"), as_dict=True),
        {**RSAAlgorithm.to_jwk(private_key("RS256"), as_dict=True), "key_ops": ["verify"]},
    ]
    keys = keys_of_jwks({"keys": both})
    assert [hasattr(key.material, "sign") for key in keys._keys] == [False, False]


@pytest.mark.parametrize(
    ("jwks", "problem"),
    [
        (None, 'it is no JSON web key set: expected {"keys": [...]}'),
        ([], 'it is no JSON web key set: expected {"keys": [...]}'),
        ({"keys": {}}, 'it is no JSON web key set: expected {"keys": [...]}'),
        (
            {"keys": []},
            "none of the 0 keys of the JSON web key set is a public key that can verify tokens",
        ),
        (
            {"keys": [{"kty": "oct"}, 5]},
            "none of the 2 keys of the JSON web key set is a public key that can verify tokens",
        ),
    ],
)
def test_what_is_no_key_set(jwks: Any, problem: str) -> None:
    """A set that nothing could be verified with is refused."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the whole text is compared
        keys_of_jwks(jwks)
    assert str(raised.value) == problem


@pytest.mark.parametrize(
    ("kid", "algorithm", "expected"),
    [
        ("a", "ES256", "a of ES256"),
        ("a", "RS256", "a of RS256"),
        ("a", "ES384", None),
        ("b", "ES256", "b of ES256"),
        ("b", "RS256", None),
        ("c", "ES256", None),
        ("c", "EdDSA", "nameless"),
        ("", "ES256", None),
        (None, "ES256", None),  # two
        (None, "RS256", "a of RS256"),
        (None, "EdDSA", "nameless"),
        (None, "HS256", None),
    ],
)
def test_which_key_a_header_names(kid: str | None, algorithm: str, expected: str | None) -> None:
    """The id and the algorithm have to fit; without an id, the only key that fits is it."""
    listed = {
        "a of ES256": jwk("ES256", kid="a"),
        "a of RS256": jwk("RS256", kid="a"),
        "b of ES256": jwk("ES256", "second", kid="b"),
        "nameless": jwk("EdDSA", kid=None),
    }
    keys = keys_of_jwks({"keys": list(listed.values())})
    names = dict(zip(map(id, keys._keys), listed, strict=True))
    found = keys.find(kid, algorithm)
    assert (found and names[id(found)], len(keys)) == (expected, 4)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("RS256", RSA),
        ("ES256", ["ES256"]),
        ("ES384", ["ES384"]),
        ("ES512", ["ES512"]),
        ("ES256K", ["ES256K"]),
        ("EdDSA", ["EdDSA"]),
        ("Ed448", ["EdDSA"]),
    ],
)
def test_a_key_in_pem(algorithm: str, expected: list[str]) -> None:
    """A public key verifies by its kind, and has no id."""
    assert held(keys_of_pem(pem(algorithm))) == [(None, expected)]


def test_a_certificate_in_pem() -> None:
    """A certificate's key is taken."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key("ES256").public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(private_key("ES256"), hashes.SHA256())
    )
    keys = keys_of_bytes(certificate.public_bytes(Encoding.PEM))
    assert held(keys) == [(None, ["ES256"])]


def _dsa() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import x25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x25519.X25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "it is neither a JSON web key set nor a public key in PEM"),
        (b"<html>", "it is neither a JSON web key set nor a public key in PEM"),
        (b"\xff", "it is neither a JSON web key set nor a public key in PEM"),
        (b"[" * 100_000, "it is neither a JSON web key set nor a public key in PEM"),
        (b"5", 'it is no JSON web key set: expected {"keys": [...]}'),
        (b"-----BEGIN PUBLIC KEY-----\nx", "it is not a public key in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nx", "it is not a public key in PEM"),
        (_dsa(), "it is a public key of another kind than RSA, EC and EdDSA"),
        (
            pem("RSA1024"),
            "it is an RSA key of 1024 bits; RFC 7518 asks for at least 2048",
        ),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_holds_no_keys(data: bytes, problem: str) -> None:
    """Each is refused with what it is not."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the whole text is compared
        keys_of_bytes(data)
    assert str(raised.value) == problem


def test_a_key_set_as_bytes() -> None:
    """JSON is read as a set."""
    assert held(keys_of_bytes(json.dumps(jwks()).encode())) == [("first", ["ES256"])]
