"""Identity: who makes a call, as authentication found it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a call.

    Two are equal where name, scheme and claims are. The text of one shows no claims, since a log
    is no place for them.

    Args:
        name: who it is: the subject of a token, the name of a key or of a certificate.
        scheme: how that was found out: ``"bearer"``, ``"jwt"``, ``"api-key"``, ``"certificate"``,
            or a word of an authenticator of your own.
        claims: what else is known of it; a JWT's claims for example.
    """

    name: str
    scheme: str
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
