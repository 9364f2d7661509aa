"""JSON web tokens, signed by an issuer whose keys are known or fetched."""

from __future__ import annotations

import logging
import os
import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dynserve.auth.fetching import checked_url
from dynserve.auth.key_sources import FetchedKeys, FixedKeys, KeySource, WatchedKeys
from dynserve.auth.keys import (
    KNOWN_ALGORITHMS,
    PUBLIC_ALGORITHMS,
    SECRET_ALGORITHMS,
    keys_of_bytes,
    keys_of_jwks,
    keys_of_pem,
    keys_of_secret,
)
from dynserve.auth.metadata import bearer_token
from dynserve.auth.refusals import Weight, invalid_token, refused
from dynserve.auth.steps import Steps, run, run_async
from dynserve.auth.verified_tokens import Verified, VerifiedTokens
from dynserve.auth.watched import WatchedFile
from dynserve.errors import CredentialsError, did_you_mean
from dynserve.identity import Identity

__all__ = ["JWT"]

_log = logging.getLogger("dynserve.auth")

_NEVER = 1 << 62  # seconds since 1970
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class JWT:
    """Accepts JSON web tokens, sent as ``authorization: Bearer TOKEN`` (RFC 7519, RFC 8725).

    ::

        app.auth(
            JWT(
                jwks="https://issuer.example/.well-known/jwks.json",
                issuer="https://issuer.example/",
                audience="routes",
            )
        )

    The identity's name is the token's ``sub``, its scheme ``"jwt"``, its claims those of the token.

    Called, it waits in the thread for keys that have to be fetched first; ``authenticate_async``
    leaves the loop free meanwhile. With keys at hand, both return at once. A signature is verified
    once: the last 1024 tokens are remembered, by their hash, until they end or their key is gone.

    Args:
        jwks: the issuer's keys: the URL of a JSON web key set, the path of a file with one or with
            a public key in PEM, which is read again when it changes, or a key set as a mapping.
        key: instead of ``jwks``, a public key or certificate in PEM; or a secret, which lets
            whoever verifies tokens also sign them.
        audience: who tokens have to be meant for, one name or several; None accepts tokens that the
            issuer made for anyone, and the log warns of it.
        issuer: who has to have made them, one or several; None accepts any that the keys fit, and
            the log warns of it.
        algorithms: what may sign: by default every one of RS, PS, ES and EdDSA, or HS256 with a
            secret. Of these, a key verifies only what it is made for. ``none`` cannot be allowed,
            and HS only with a secret.
        leeway: seconds by which clocks may differ.
        required: claims that a token has to have, beside ``name``; without ``exp``, tokens without
            an end are accepted, and the log warns of it.
        name: the claim that is the identity's name.
        timeout: seconds that a fetch of keys may take, and that a call waits for one.
        max_age: seconds after which keys are fetched again.
        refetch_after: seconds between two fetches at least, however many tokens with unknown keys
            arrive; so long may a new key of the issuer take to be accepted.

    Raises:
        CredentialsError: the keys cannot be used, or an argument contradicts another; PyJWT is not
            installed.
        TypeError: an argument is of another type.
    """

    def __init__(
        self,
        *,
        jwks: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        key: str | bytes | None = None,
        audience: str | Iterable[str] | None,
        issuer: str | Iterable[str] | None,
        algorithms: Sequence[str] | None = None,
        leeway: float = 10.0,
        required: Sequence[str] = ("exp",),
        name: str = "sub",
        timeout: float = 5.0,
        max_age: float = 300.0,
        refetch_after: float = 10.0,
    ) -> None:
        self._jwt = _pyjwt()
        if (jwks is None) == (key is None):
            raise CredentialsError("jwks", "give either jwks or key, one of them")
        is_secret = key is not None and b"-----BEGIN" not in _bytes(key)
        self._algorithms = _checked_algorithms(algorithms, is_secret)
        if leeway < 0:
            raise CredentialsError("leeway", f"got {leeway!r}, expected seconds, 0 or more")
        self._audience = _names("audience", audience)
        self._issuer = _names("issuer", issuer)
        if "exp" not in required:
            _log.warning("JWT without 'exp' in required: a token without an end is valid for ever")
        self._options = {
            "require": list(dict.fromkeys([*required, name])),
            "verify_aud": self._audience is not None,
            "verify_iss": self._issuer is not None,
        }
        self._leeway = leeway
        self._name = name
        self._known = VerifiedTokens()
        self._keys: KeySource
        if key is not None:
            self._keys = _given(_bytes(key), self._algorithms if is_secret else ())
        elif isinstance(jwks, str) and "://" in jwks:
            self._keys = FetchedKeys(_url(jwks), timeout, max_age, refetch_after)
        elif isinstance(jwks, (str, os.PathLike)):
            self._keys = WatchedKeys(WatchedFile(Path(jwks), keys_of_bytes, "jwks"))
        else:
            self._keys = _given_set(jwks)

    def __call__(self, context: Any) -> Identity:
        """Who calls; the thread waits where keys have to be fetched.

        Raises:
            StatusError: UNAUTHENTICATED, there is no valid token; UNAVAILABLE, nobody can know yet.
        """
        return run(self._steps(context))

    async def authenticate_async(self, context: Any) -> Identity:
        """Who calls; the loop goes on where keys have to be fetched.

        Raises:
            StatusError: as above.
        """
        return await run_async(self._steps(context))

    def __repr__(self) -> str:
        return f"JWT(keys={self._keys!r}, issuer={self._issuer!r}, audience={self._audience!r})"

    def _steps(self, context: Any) -> Steps[Identity]:
        token = bearer_token(context)
        if (known := self._known.get(token)) and time.time() - self._leeway < known.end:
            key = yield from self._keys.find(known.identifier, known.algorithm)
            if key is known.key:  # it is still a key of the issuer's
                return Identity(known.name, "jwt", dict(known.claims))
        identifier, algorithm = self._header(context, token)
        key = yield from self._keys.find(identifier, algorithm)
        if key is None:
            raise refused(context, invalid_token(), "no key %.100r for %s", identifier, algorithm)
        claims = self._verified(context, token, key.material, algorithm)
        name = claims.get(self._name)
        if not isinstance(name, str) or not name:
            raise refused(context, invalid_token(), "the claim %r is not a text", self._name)
        end = int(claims.get("exp", _NEVER))
        self._known.put(token, Verified(identifier, algorithm, key, end, name, dict(claims)))
        return Identity(name, "jwt", claims)

    def _header(self, context: Any, token: str) -> tuple[str | None, str]:
        """The id of the key, if it is named, and the algorithm; nothing of it is verified."""
        try:
            header = self._jwt.get_unverified_header(token)
        except Exception as error:  # PyJWT's, and whatever else a parser may raise
            raise refused(
                context, invalid_token(), "it cannot be read: %s", type(error).__name__
            ) from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise refused(
                context, invalid_token(), "the algorithm %.100r is not allowed", algorithm
            )
        # https://www.rfc-editor.org/rfc/rfc7515#section-4.1.11: what is critical and not
        # understood makes it invalid; nothing is understood here. PyJWT checks it since 2.12.
        if "crit" in header:
            raise refused(context, invalid_token(), "the header has 'crit'")
        return header.get("kid"), algorithm  # PyJWT has checked that the id is a text

    def _verified(self, context: Any, token: str, key: Any, algorithm: str) -> dict[str, Any]:
        """The claims, once signature, times, audience and issuer are right."""
        try:
            claims: dict[str, Any] = self._jwt.decode(
                token,
                key,
                # The key fits this algorithm, and the list of those allowed has it.
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options=self._options,
            )
        except self._jwt.ExpiredSignatureError:
            expired = "the token has expired"
            raise refused(context, invalid_token(expired, Weight.TELLING), expired) from None
        except self._jwt.ImmatureSignatureError:
            early = "the token is not valid yet"
            raise refused(context, invalid_token(early, Weight.TELLING), early) from None
        except Exception as error:  # with a valid signature too, a claim may be of any type
            raise refused(
                context, invalid_token(), "it is not valid: %s", type(error).__name__
            ) from None
        return claims


def _pyjwt() -> Any:
    try:
        import cryptography  # noqa: F401  # PyJWT imports it only where it is there
        import jwt
    except ImportError as error:
        problem = f"JSON web tokens need {error.name}: pip install 'dynserve[auth]'"
        raise CredentialsError("jwks", problem) from error
    return jwt


def _bytes(key: object) -> bytes:
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes):
        return key
    raise TypeError(f"key: got a {type(key).__name__}, expected PEM or a secret, as str or bytes")


def _checked_algorithms(algorithms: Sequence[str] | None, is_secret: bool) -> tuple[str, ...]:
    if algorithms is None:
        return ("HS256",) if is_secret else PUBLIC_ALGORITHMS
    if isinstance(algorithms, str) or not algorithms:
        raise CredentialsError("algorithms", f"got {algorithms!r}, expected a list of names")
    for name in algorithms:
        if name.lower() == "none":
            raise CredentialsError("algorithms", "'none' would accept what nobody has signed")
        if name not in KNOWN_ALGORITHMS:
            problem = f"there is no algorithm {name!r} here{did_you_mean(name, KNOWN_ALGORITHMS)}"
            raise CredentialsError("algorithms", problem)
        if name in SECRET_ALGORITHMS and not is_secret:
            raise CredentialsError(
                "algorithms",
                f"{name} cannot go with public keys: whoever knows one, that is anyone, could sign"
                " tokens with it",
            )
        if name not in SECRET_ALGORITHMS and is_secret:
            known = ", ".join(SECRET_ALGORITHMS)
            problem = f"{name} needs a public key, but key is a secret; expected {known}"
            raise CredentialsError("algorithms", problem)
    return tuple(algorithms)


def _names(argument: str, given: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """What is accepted, always as several: PyJWT 2.10.0 takes one issuer for any part of it."""
    if given is None:
        what = "meant for anyone" if argument == "audience" else "of any issuer with these keys"
        _log.warning("JWT with %s=None: tokens %s are accepted", argument, what)
        return None
    names: tuple[object, ...] = (given,) if isinstance(given, str) else tuple(given)
    if not names or not all(isinstance(name, str) and name for name in names):
        problem = f"got {given!r}, expected a name, or several; None to accept any"
        raise CredentialsError(argument, problem)
    return tuple(map(str, names))


def _given(key: bytes, secret_algorithms: Sequence[str]) -> FixedKeys:
    try:
        if secret_algorithms:
            return FixedKeys(keys_of_secret(key, secret_algorithms))
        return FixedKeys(keys_of_pem(key))
    except ValueError as error:
        raise CredentialsError("key", str(error)) from error


def _given_set(jwks: object) -> FixedKeys:
    if not isinstance(jwks, Mapping):
        kind = type(jwks).__name__
        raise TypeError(f"jwks: got a {kind}, expected a URL, the path of a file, or a mapping")
    try:
        return FixedKeys(keys_of_jwks(jwks))
    except ValueError as error:
        raise CredentialsError("jwks", str(error)) from error


def _url(url: str) -> str:
    try:
        checked_url(url)
    except ValueError as error:
        raise CredentialsError("jwks", str(error)) from error
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        _log.warning("%s is not https: who is on the way can put in keys and sign tokens", url)
    return url
