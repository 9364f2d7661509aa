"""Secrets that are known beforehand: bearer tokens and API keys."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Any

from dynserve.auth.metadata import bearer_token, credential
from dynserve.auth.refusals import RefusalError, Weight, invalid_token, refused
from dynserve.auth.secret_table import SecretTable
from dynserve.errors import CredentialsError
from dynserve.identity import Identity

__all__ = ["APIKeys", "BearerTokens"]

# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Header-Name"
_HEADER = re.compile(r"[0-9a-z_.\-]+")
_invalid_key = functools.partial(RefusalError, "the API key is not valid", Weight.INVALID)


class BearerTokens:
    """Accepts tokens that are known beforehand, sent as ``authorization: Bearer TOKEN``.

    ::

        app.auth(BearerTokens({os.environ["CI_TOKEN"]: "ci"}))
        app.auth(BearerTokens("/run/secrets/tokens"))

    Whom a token belongs to is the identity's name; its scheme is ``"bearer"``. No token is kept,
    shown or logged, only hashes are kept.

    Args:
        tokens: a mapping from token to name; or the path of a file with a line ``name:token`` or
            ``token`` for each, and comments that start with ``#``. A token without a name is
            called ``token-N`` after its line. One name may have several tokens, to change one. The
            file is read again when it changes, within a second.

    Raises:
        CredentialsError: there are no tokens, one has less than 16 characters or cannot be sent,
            two are the same, or the file cannot be read.
        TypeError: neither a mapping nor a path.
    """

    def __init__(self, tokens: Mapping[str, str] | str | os.PathLike[str]) -> None:
        self._table = SecretTable(tokens, "bearer", "token", "tokens")

    def __call__(self, context: Any) -> Identity:
        """Who calls.

        Raises:
            StatusError: UNAUTHENTICATED, there is no token that is known.
        """
        identity = self._table.identity_of(bearer_token(context))
        if identity is None:
            raise refused(context, invalid_token(), "the token is none of %r", self)
        return identity

    def __repr__(self) -> str:
        return f"BearerTokens{self._table!r}"


class APIKeys:
    """Accepts API keys that are known beforehand, sent in a metadata key.

    The identity's scheme is ``"api-key"``.

    Args:
        keys: a mapping from key to name, or the path of a file, as for :class:`BearerTokens`; a key
            without a name is called ``key-N`` after its line.
        header: the metadata key that a caller sends it in; in any case.

    Raises:
        CredentialsError: there are no keys, one has less than 16 characters or cannot be sent, two
            are the same, the file cannot be read, or ``header`` cannot be a metadata key.
        TypeError: neither a mapping nor a path.
    """

    def __init__(
        self, keys: Mapping[str, str] | str | os.PathLike[str], header: str = "x-api-key"
    ) -> None:
        self._header = header.lower()
        is_reserved = self._header.startswith("grpc-") or self._header.endswith("-bin")
        if not _HEADER.fullmatch(self._header) or is_reserved:
            problem = f"got {header!r}, expected a key of text metadata such as 'x-api-key'"
            raise CredentialsError("header", problem)
        self._table = SecretTable(keys, "api-key", "key", "keys")
        text = f"an API key is needed in metadata {self._header!r}"
        self._missing = functools.partial(RefusalError, text, Weight.MISSING)

    def __call__(self, context: Any) -> Identity:
        """Who calls.

        Raises:
            StatusError: UNAUTHENTICATED, there is no key that is known.
        """
        key = credential(context, self._header, self._missing, "the API key")
        identity = self._table.identity_of(key)
        if identity is None:
            raise refused(context, _invalid_key(), "the API key is none of %r", self)
        return identity

    def __repr__(self) -> str:
        return f"APIKeys{self._table!r}"
