"""What a call goes through before it is sent to a server, in this order.

CORS first: a browser's preflight carries no credentials. Then what may refuse the call, the
cheapest first. Then what translates: the hooks see the path that the client sent.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

from .cluster import AUTHORIZATION, RATE_LIMITS
from .parts import Json, extension, seconds
from .proxy import Hooks, Proxy, Transcoding

__all__ = ["CORS", "filters"]

CORS = "envoy.filters.http.cors"
_HTTP = "envoy.extensions.filters.http"
_JSON_BUFFER = 16 << 20  # bytes that may wait to be translated; messages of gRPC have 4 MiB
_UNAVAILABLE = 503  # what gRPC reads as UNAVAILABLE
_ALL = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}


def filters(proxy: Proxy) -> list[Json]:
    """Envoy's ``HttpFilter`` messages."""
    return list(_filters(proxy))


def _filters(proxy: Proxy) -> Iterator[Json]:
    web, hooks = proxy.web, proxy.hooks
    if web.cors_origin:
        yield extension(CORS, f"{_HTTP}.cors.v3.Cors")
    if hooks.local_rate_limit:
        yield _local_rate_limit(hooks)
    if hooks.rate_limit_service is not None:
        yield _rate_limit(hooks)
    if hooks.ext_authz is not None:
        yield _ext_authz(hooks)
    if web.grpc_web:
        yield extension("envoy.filters.http.grpc_web", f"{_HTTP}.grpc_web.v3.GrpcWeb")
    if proxy.transcoding is not None:
        yield _transcoder(proxy.transcoding)
    yield extension("envoy.filters.http.router", f"{_HTTP}.router.v3.Router")


def _local_rate_limit(hooks: Hooks) -> Json:
    """A bucket of tokens that is filled every second; RESOURCE_EXHAUSTED is not retried."""
    rate = hooks.local_rate_limit
    fields = {
        "stat_prefix": "dynserve",
        "token_bucket": {
            "max_tokens": hooks.local_rate_limit_burst or rate,
            "tokens_per_fill": rate,
            "fill_interval": "1s",
        },
        "filter_enabled": _ALL,
        "filter_enforced": _ALL,
        "rate_limited_as_resource_exhausted": True,
        "local_rate_limit_per_downstream_connection": hooks.local_rate_limit_per_connection,
    }
    name = "envoy.filters.http.local_ratelimit"
    return extension(name, f"{_HTTP}.local_ratelimit.v3.LocalRateLimit", fields)


def _rate_limit(hooks: Hooks) -> Json:
    service = {"grpc_service": _service(RATE_LIMITS, hooks.rate_limit_timeout)}
    fields = {
        "domain": hooks.rate_limit_domain,
        "timeout": seconds(hooks.rate_limit_timeout),
        "failure_mode_deny": hooks.rate_limit_fail_closed,
        "rate_limited_as_resource_exhausted": True,
        "rate_limit_service": {**service, "transport_api_version": "V3"},
    }
    return extension("envoy.filters.http.ratelimit", f"{_HTTP}.ratelimit.v3.RateLimit", fields)


def _ext_authz(hooks: Hooks) -> Json:
    """Where nobody answers, a call is UNAVAILABLE: PERMISSION_DENIED would not be tried again."""
    fields = {
        "grpc_service": _service(AUTHORIZATION, hooks.ext_authz_timeout),
        "transport_api_version": "V3",
        "failure_mode_allow": hooks.ext_authz_fail_open,
        "status_on_error": {"code": _UNAVAILABLE},
        "include_peer_certificate": True,
    }
    return extension("envoy.filters.http.ext_authz", f"{_HTTP}.ext_authz.v3.ExtAuthz", fields)


def _service(cluster: str, timeout: float) -> Json:
    return {"envoy_grpc": {"cluster_name": cluster}, "timeout": seconds(timeout)}


def _transcoder(transcoding: Transcoding) -> Json:
    """JSON by plain HTTP; what is gRPC already goes through untouched.

    What is neither, and no method by its path, is refused here: servers speak nothing but gRPC.
    """
    fields = {
        "proto_descriptor_bin": base64.b64encode(transcoding.descriptor_set).decode(),
        "services": list(transcoding.services),
        "auto_mapping": transcoding.auto_mapping,
        "convert_grpc_status": True,
        "print_options": {
            "preserve_proto_field_names": transcoding.json_proto_names,
            "always_print_primitive_fields": transcoding.json_defaults,
        },
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
        },
        "max_request_body_size": _JSON_BUFFER,
        "max_response_body_size": _JSON_BUFFER,
    }
    name = "envoy.filters.http.grpc_json_transcoder"
    return extension(name, f"{_HTTP}.grpc_json_transcoder.v3.GrpcJsonTranscoder", fields)
