"""Identity: who makes a call, as authentication found it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["Identity"]

_NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


class Identity:
    """Who makes a call; cannot be changed.

    Two are equal where name, scheme and claims are. The text of one shows no claims, since a log
    is no place for them.

    Args:
        name: who it is: the subject of a token, the name of a key or of a certificate.
        scheme: how that was found out: ``"bearer"``, ``"jwt"``, ``"api-key"``, ``"certificate"``,
            or a word of an authenticator of your own.
        claims: what else is known of it; a JWT's claims for example.
    """

    __slots__ = ("claims", "name", "scheme")

    name: str
    scheme: str
    claims: Mapping[str, Any]

    def __init__(self, name: str, scheme: str, claims: Mapping[str, Any] = _NO_CLAIMS) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "scheme", scheme)
        object.__setattr__(self, "claims", claims)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"an Identity cannot be changed: {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an Identity cannot be changed: {name!r} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity):
            return NotImplemented
        mine = self.name, self.scheme, self.claims
        return mine == (other.name, other.scheme, other.claims)

    def __hash__(self) -> int:
        return hash((self.name, self.scheme))

    def __repr__(self) -> str:
        return f"Identity(name={self.name!r}, scheme={self.scheme!r})"

    def __reduce__(self) -> Any:
        return type(self), (self.name, self.scheme, dict(self.claims))
