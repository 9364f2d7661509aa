"""Who calls by the client's certificate, of mutual TLS."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc

from dynserve.auth.refusals import RefusalError, Weight, refused
from dynserve.errors import CredentialsError
from dynserve.identity import Identity

__all__ = ["ClientCertificate"]

_SECURED = (b"ssl", b"tls")

_missing = functools.partial(RefusalError, "a client certificate is needed", Weight.MISSING)
_not_allowed = functools.partial(
    RefusalError,
    "the client certificate is not allowed here",
    code=grpc.StatusCode.PERMISSION_DENIED,
)


class ClientCertificate:
    """Accepts calls over connections whose client has proved a certificate.

    ::

        app.auth(ClientCertificate({"gateway.example.com", "spiffe://example.com/ns/*/sa/billing"}))

    That the certificate is of an authority that is trusted, and in time, TLS itself has checked;
    the server needs ``tls_client_ca``. The certificate's names are its SPIFFE id and its subject
    alternative names; the common name counts only where there are none of those, as for gRPC's own
    ``peer_identities``. The identity's name is the first that is allowed, its scheme
    ``"certificate"``, its claims have all ``names``.

    Args:
        allow: whom to accept: a name, several, or a function from name to bool. In a name, ``*``
            stands for any characters but ``/``, and ``**`` for any. None accepts every certificate
            that the authority has signed.

    Raises:
        CredentialsError: nobody would be allowed.
        TypeError: of another type.
    """

    def __init__(self, allow: str | Iterable[str] | Callable[[str], bool] | None = None) -> None:
        self._allow = allow
        self._is_allowed: Callable[[str], object]
        if allow is None:
            self._is_allowed = _anyone
        elif callable(allow):
            self._is_allowed = allow
        else:
            patterns = [allow] if isinstance(allow, str) else list(allow)
            if not all(isinstance(pattern, str) for pattern in patterns):
                raise TypeError(f"allow: got {allow!r}, expected names as str, or a function")
            if not patterns or not all(patterns):
                problem = f"got {allow!r}, so nobody could call; None allows every certificate"
                raise CredentialsError("allow", problem)
            self._is_allowed = re.compile("|".join(map(_expression, patterns))).fullmatch

    def __call__(self, context: Any) -> Identity:
        """Who calls.

        Raises:
            StatusError: UNAUTHENTICATED, the connection has no client certificate;
                PERMISSION_DENIED, it is none of those that are allowed.
        """
        names = _names(context.auth_context())
        if not names:
            raise refused(
                context, _missing(), "the connection has no client certificate with a name"
            )
        allowed = next((name for name in names if self._is_allowed(name)), None)
        if allowed is None:
            raise refused(
                context, _not_allowed(), "the client certificate of %r is not allowed", names
            )
        return Identity(allowed, "certificate", {"names": names})

    def __repr__(self) -> str:
        return f"ClientCertificate(allow={self._allow!r})"


def _anyone(_: str) -> bool:
    return True


def _expression(pattern: str) -> str:
    parts = re.split(r"(\*+)", pattern)
    wild = {"*": "[^/]*"}
    return "".join(
        wild.get(part, ".*") if part.startswith("*") else re.escape(part) for part in parts
    )


def _names(properties: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """The names of the client's certificate, without repetition; empty where there is none."""
    if not any(kind in _SECURED for kind in properties.get("transport_security_type", ())):
        return ()
    for keys in (("peer_spiffe_id", "x509_subject_alternative_name"), ("x509_common_name",)):
        values = [value for key in keys for value in properties.get(key, ())]
        names = [value.decode("utf-8", "replace") for value in values]
        if values:
            return tuple(dict.fromkeys(name for name in names if name.isprintable() and name))
    return ()
