"""What a channel is secured with: TLS, and the token that calls carry."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from dynserve.errors import CredentialsError
from dynserve.pem import PEM, is_pem_text, read_pem

__all__ = ["TLS", "Token", "channel_credentials"]

Token: TypeAlias = "str | Callable[[], str]"  # noqa: S105 - a type

_BEARER = "Bearer "
_GRPC_ROOTS = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"  # asked by gRPC where it is given no roots
_OPENSSL_ROOTS = "SSL_CERT_FILE"


@dataclass(frozen=True)
class TLS:
    """How a connection is encrypted, and who proves what to whom.

    Each of the first three is the path of a PEM file, or the PEM bytes.

    Args:
        ca: the certificates of the authorities that the server's may be signed by; by default
            those that the system trusts. Others are named by ``GRPC_DEFAULT_SSL_ROOTS_FILE_PATH``,
            as for every gRPC, and next by ``SSL_CERT_FILE``, as for OpenSSL.
        cert: this client's certificate, with the chain to its authority, for mutual TLS.
        key: the private key to ``cert``.
        server_name: the name that the server's certificate must have, where it is not the host's;
            the server is told it as the host.
    """

    ca: PEM | None = None
    cert: PEM | None = None
    key: PEM | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            given, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise CredentialsError(given, f"mutual TLS needs {missing}= too")

    def __repr__(self) -> str:
        key = None if self.key is None else "..."
        return (
            f"TLS(ca={_shown(self.ca)}, cert={_shown(self.cert)}, key={key},"
            f" server_name={self.server_name!r})"
        )

    def credentials(self) -> grpc.ChannelCredentials:
        """gRPC's own form of it.

        Raises:
            CredentialsError: a file, of a variable too, cannot be read or is not PEM.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_system_roots() if self.ca is None else read_pem("ca", self.ca),
            private_key=None if self.key is None else read_pem("key", self.key),
            certificate_chain=None if self.cert is None else read_pem("cert", self.cert),
        )


def channel_credentials(
    tls: bool | str | os.PathLike[str] | bytes | TLS | grpc.ChannelCredentials, token: Token | None
) -> tuple[grpc.ChannelCredentials | None, str | None]:
    """What the two arguments of ``connect`` mean.

    Returns:
        The credentials, None for a connection that is not encrypted; and the name that the
        server's certificate must have, None where it is the host's.

    Raises:
        CredentialsError: a file cannot be read, or a token would be sent in the clear.
    """
    if tls is False:
        if token is not None:
            raise CredentialsError(
                "token",
                "would be sent unencrypted; give tls=True, or where the connection is safe by"
                " other means metadata={'authorization': 'Bearer …'}",
            )
        return None, None
    if isinstance(tls, grpc.ChannelCredentials):
        channel, name = tls, None
    else:
        given = tls if isinstance(tls, TLS) else TLS() if isinstance(tls, bool) else TLS(ca=tls)
        channel, name = given.credentials(), given.server_name
    if token is not None:
        channel = grpc.composite_channel_credentials(channel, _call_credentials(token))
    return channel, name


def _call_credentials(token: Token) -> grpc.CallCredentials:
    if isinstance(token, str):
        return grpc.access_token_call_credentials(token)
    return grpc.metadata_call_credentials(_TokenPlugin(token), "dynserve")


class _TokenPlugin(grpc.AuthMetadataPlugin):
    """Asks for the token of each call; gRPC calls it on a thread of its own."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def __call__(
        self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback
    ) -> None:
        try:
            token = self._token()
        except Exception as error:  # the call ends with UNAVAILABLE and this text
            callback((), error)
        else:
            callback((("authorization", _BEARER + token),), None)


def _shown(given: PEM | None) -> str:
    return "..." if isinstance(given, bytes) or (given and is_pem_text(given)) else repr(given)


def _system_roots() -> bytes | None:
    """The certificates that the system trusts; None, which means gRPC's own, where it has none.

    OpenSSL and gRPC take others without a word where a variable names no file.
    """
    if named := os.environ.get(_GRPC_ROOTS):
        read_pem(_GRPC_ROOTS, named)
        return None
    if named := os.environ.get(_OPENSSL_ROOTS):
        return read_pem(_OPENSSL_ROOTS, named)
    file: str | None = ssl.get_default_verify_paths().cafile
    return None if file is None else read_pem("ca", file)
