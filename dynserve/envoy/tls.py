"""Transport sockets: TLS 1.2 or later, on either side of Envoy."""

from __future__ import annotations

from .parts import Json, extension
from .proxy import TLS

__all__ = ["downstream", "upstream"]

_TLS = "envoy.extensions.transport_sockets.tls.v3"
_MINIMUM = {"tls_minimum_protocol_version": "TLSv1_2"}


def downstream(tls: TLS) -> Json:
    """For connections of clients: HTTP/2, or HTTP/1.1 for JSON and gRPC-Web.

    With authorities, a client has to show a certificate of one of them.
    """
    common = _common(tls, ["h2", "http/1.1"])
    required = {} if tls.ca is None else {"require_client_certificate": True}
    return _socket("DownstreamTlsContext", {"common_tls_context": common, **required})


def upstream(tls: TLS) -> Json:
    """For connections to servers: the certificate's authority and its name are verified."""
    common = _common(tls, ["h2"])
    return _socket("UpstreamTlsContext", {"common_tls_context": common, "sni": tls.name})


def _common(tls: TLS, protocols: list[str]) -> Json:
    common: Json = {"alpn_protocols": protocols, "tls_params": _MINIMUM}
    if tls.cert is not None:
        files = {
            "certificate_chain": {"filename": tls.cert},
            "private_key": {"filename": tls.key},
        }
        common["tls_certificates"] = [files]
    if tls.ca is not None:
        context: Json = {"trusted_ca": {"filename": tls.ca}}
        if tls.name is not None:
            matcher = {"san_type": "DNS", "matcher": {"exact": tls.name}}
            context["match_typed_subject_alt_names"] = [matcher]
        common["validation_context"] = context
    return common


def _socket(message: str, fields: Json) -> Json:
    return extension("envoy.transport_sockets.tls", f"{_TLS}.{message}", fields)
