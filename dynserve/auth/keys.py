"""The keys that JSON web tokens are verified with.

What each key may verify is decided here, from the key itself, and never from a token
(https://www.rfc-editor.org/rfc/rfc8725#section-3.1): a public RSA key is never the secret of an
HMAC, and a key on one curve never verifies for another.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = [
    "KNOWN_ALGORITHMS",
    "PUBLIC_ALGORITHMS",
    "SECRET_ALGORITHMS",
    "Key",
    "KeySet",
    "keys_of_bytes",
    "keys_of_jwks",
    "keys_of_pem",
    "keys_of_secret",
]

_log = logging.getLogger("dynserve.auth")

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_OF_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "secp256k1": "ES256K"}
_OF_CRYPTOGRAPHY = {
    "secp256r1": "ES256",
    "secp384r1": "ES384",
    "secp521r1": "ES512",
    "secp256k1": "ES256K",
}
_MIN_RSA = 2048  # bits: https://www.rfc-editor.org/rfc/rfc7518#section-3.3

# Bytes of a secret, at least: https://www.rfc-editor.org/rfc/rfc7518#section-3.2
SECRET_ALGORITHMS = {"HS256": 32, "HS384": 48, "HS512": 64}
PUBLIC_ALGORITHMS = (*_RSA, "ES256", "ES384", "ES512", "EdDSA")
KNOWN_ALGORITHMS = (*PUBLIC_ALGORITHMS, "ES256K", *SECRET_ALGORITHMS)

# https://www.rfc-editor.org/rfc/rfc7518#section-6: what only who signs needs.
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})


class Key(NamedTuple):
    """One key: its id, if any, the algorithms that it may verify, and what PyJWT takes."""

    identifier: str | None
    algorithms: frozenset[str]
    material: Any


class KeySet:
    """Some keys, found by their id; never changed."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)
        self._named: dict[str | None, list[Key]] = {}
        for key in self._keys:
            self._named.setdefault(key.identifier, []).append(key)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, identifier: str | None, algorithm: str) -> Key | None:
        """The key that verifies a token with this header; None where there is none.

        A token may name no key, and a key may have no id: then it has to be the only one for that
        algorithm.
        """
        fitting = self._fitting(self._named.get(identifier, ()), algorithm)
        if fitting and identifier is not None:
            return fitting[0]
        others = self._keys if identifier is None else self._named.get(None, ())
        fitting = self._fitting(others, algorithm)
        return fitting[0] if len(fitting) == 1 else None

    @staticmethod
    def _fitting(keys: Iterable[Key], algorithm: str) -> list[Key]:
        return [key for key in keys if algorithm in key.algorithms]


def keys_of_bytes(data: bytes) -> KeySet:
    """The keys in a file or an answer: a JWKS, or a public key in PEM.

    Raises:
        ValueError: they are neither, or none of them can be used.
    """
    if b"-----BEGIN" in data:
        return keys_of_pem(data)
    try:
        jwks = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is neither a JSON web key set nor a public key in PEM") from error
    return keys_of_jwks(jwks)


def keys_of_jwks(jwks: object) -> KeySet:
    """The public keys of a JSON web key set (https://www.rfc-editor.org/rfc/rfc7517).

    Keys for something else, of an unknown kind, too short, or secret are left out, as section 5 of
    the RFC has it.

    Raises:
        ValueError: it is no key set, or has no key that can be used.
    """
    listed = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(listed, list):
        raise ValueError('it is no JSON web key set: expected {"keys": [...]}')
    keys = []
    for number, jwk in enumerate(listed):
        try:
            keys.append(_key_of_jwk(jwk))
        except Exception as error:  # PyJWT's and cryptography's, of any class
            kind = type(error).__name__
            _log.debug("key %d of a JWKS is left out: %s", number, error.args[:1] or kind)
    if not keys:
        raise ValueError(
            f"none of the {len(listed)} keys of the JSON web key set is a public key that can"
            " verify tokens"
        )
    return KeySet(keys)


def _key_of_jwk(jwk: Any) -> Key:
    """One key of a set.

    Raises:
        Exception: it cannot be used.
    """
    from jwt import PyJWK

    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        raise ValueError("it is not meant to verify signatures")
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if kind == "RSA":
        algorithms = frozenset(_RSA)
    elif kind == "EC" and curve in _OF_CURVE:
        algorithms = frozenset({_OF_CURVE[curve]})
    elif kind == "OKP" and curve in ("Ed25519", "Ed448"):
        algorithms = frozenset({"EdDSA"})
    else:
        raise ValueError("it is of another kind than RSA, EC and OKP, or on an unknown curve")
    if "alg" in jwk:
        algorithms &= {jwk["alg"]}
    public = {name: value for name, value in jwk.items() if name not in _PRIVATE | {"alg"}}
    if not algorithms:
        raise ValueError("its algorithm does not fit its kind")
    material = PyJWK(public, min(algorithms)).key
    if kind == "RSA":
        _check_length(material)
    identifier = jwk.get("kid")
    return Key(identifier if isinstance(identifier, str) else None, algorithms, material)


def keys_of_pem(pem: bytes) -> KeySet:
    """The one public key in PEM, as such or in a certificate.

    Raises:
        ValueError: it is none, a private one, or of an unknown kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    if b"PRIVATE KEY" in pem:
        raise ValueError(
            "it is a private key, which only who signs tokens should have; write its public half:"
            " openssl pkey -in KEY -pubout"
        )
    try:
        if b"BEGIN CERTIFICATE" in pem:
            key: Any = load_pem_x509_certificate(pem).public_key()
        else:
            key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("it is not a public key in PEM") from error
    match key:
        case rsa.RSAPublicKey():
            _check_length(key)
            algorithms = frozenset(_RSA)
        case ec.EllipticCurvePublicKey() if key.curve.name in _OF_CRYPTOGRAPHY:
            algorithms = frozenset({_OF_CRYPTOGRAPHY[key.curve.name]})
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            algorithms = frozenset({"EdDSA"})
        case _:
            raise ValueError("it is a public key of another kind than RSA, EC and EdDSA")
    return KeySet([Key(None, algorithms, key)])


def keys_of_secret(secret: bytes, algorithms: Iterable[str]) -> KeySet:
    """A secret that those who sign tokens and those who verify them share.

    Raises:
        ValueError: it is shorter than an algorithm needs.
    """
    for algorithm in algorithms:
        if len(secret) < SECRET_ALGORITHMS[algorithm]:
            raise ValueError(
                f"the secret has {len(secret)} bytes, {algorithm} needs at least"
                f" {SECRET_ALGORITHMS[algorithm]}"
            )
    return KeySet([Key(None, frozenset(algorithms), secret)])


def _check_length(key: Any) -> None:
    if key.key_size < _MIN_RSA:
        raise ValueError(
            f"it is an RSA key of {key.key_size} bits; RFC 7518 asks for at least {_MIN_RSA}"
        )
