"""An authenticator from settings, such as the command line and the environment have them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias

from dynserve.auth.any_of import any_of
from dynserve.auth.certificate import ClientCertificate
from dynserve.auth.json_web_token import JWT
from dynserve.auth.tokens import APIKeys, BearerTokens
from dynserve.errors import CredentialsError

__all__ = ["from_settings"]

_Secrets: TypeAlias = "Mapping[str, str] | str | os.PathLike[str]"

ANY = "any"


def from_settings(
    auth_tokens: _Secrets | None = None,
    auth_jwks: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    auth_issuer: str | Iterable[str] | None = None,
    auth_audience: str | Iterable[str] | None = None,
    auth_api_keys: _Secrets | None = None,
    auth_client_cert: str | bool | Iterable[str] | Callable[[str], bool] | None = None,
) -> Callable[[Any], Any] | None:
    """An authenticator of all that is given, one of which is enough; None where nothing is.

    An empty text is refused: a variable of the environment that something forgot to fill must not
    leave a server open. Where several names may stand, a text has commas between them.

    Args:
        auth_tokens: for :class:`BearerTokens`.
        auth_jwks: for :class:`JWT`: a URL, or the path of a file.
        auth_issuer: for :class:`JWT`; ``"any"`` for None.
        auth_audience: for :class:`JWT`; ``"any"`` for None.
        auth_api_keys: for :class:`APIKeys`.
        auth_client_cert: names for :class:`ClientCertificate`; True, ``"any"`` or ``"*"`` for None.
            No names at all are the same as nothing.

    Raises:
        CredentialsError: one cannot be used, or lacks another; it names the setting.
        TypeError: one is of another type.
    """
    for name, value in locals().copy().items():
        if value == "":
            problem = "it is empty; leave it out where nothing is to be accepted by it"
            raise CredentialsError(name, problem)
    found: list[Callable[[Any], Any]] = []
    if auth_client_cert not in (None, False, (), []):
        found.append(_certificate(auth_client_cert))
    if not _is_absent(auth_tokens):
        found.append(_made("auth_tokens", BearerTokens, auth_tokens))
    if not _is_absent(auth_jwks):
        found.append(_jwt(auth_jwks, auth_issuer, auth_audience))
    else:
        for name, value in (("auth_issuer", auth_issuer), ("auth_audience", auth_audience)):
            if not _is_absent(value):
                problem = "has no effect without auth_jwks, the keys that tokens are verified with"
                raise CredentialsError(name, problem)
    if not _is_absent(auth_api_keys):
        found.append(_made("auth_api_keys", APIKeys, auth_api_keys))
    if len(found) > 1:
        return any_of(*found)
    return found[0] if found else None


def _is_absent(value: object) -> bool:
    """Whether a setting is not given; an empty mapping is given, and refused."""
    return value is None or value is False


def _made(setting: str, make: Callable[[Any], Any], value: object) -> Callable[[Any], Any]:
    try:
        authenticate: Callable[[Any], Any] = make(value)
    except CredentialsError as error:
        raise CredentialsError(setting, error.problem) from error
    return authenticate


def _certificate(value: Any) -> Callable[[Any], Any]:
    allow = _names(value)
    if allow is True or (isinstance(allow, Collection) and {ANY, "*"} & set(allow)):
        allow = None
    return _made("auth_client_cert", ClientCertificate, allow)


def _jwt(jwks: Any, issuer: Any, audience: Any) -> Callable[[Any], Any]:
    for name, value, what in (
        ("auth_issuer", issuer, "who made the tokens, their 'iss'"),
        ("auth_audience", audience, "whom they are for, their 'aud'"),
    ):
        if _is_absent(value):
            problem = f"auth_jwks needs it: {what}; '{ANY}' accepts any"
            raise CredentialsError(name, problem)

    def checked(value: Any) -> Any:
        return None if value == ANY else _names(value)

    try:
        return JWT(jwks=jwks, issuer=checked(issuer), audience=checked(audience))
    except CredentialsError as error:
        raise CredentialsError(f"auth_{error.name}", error.problem) from error


def _names(value: Any) -> Any:
    """The names in a text with commas; anything else as it is."""
    if not isinstance(value, str):
        return value
    return [name for part in value.split(",") if (name := part.strip())]
