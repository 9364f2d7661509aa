"""The listener, and how HTTP is spoken on it."""

from __future__ import annotations

from . import tls
from .filters import filters
from .parts import Json, extension, seconds
from .proxy import TLS, Front, Proxy
from .route import route_configuration

__all__ = ["listener"]

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_LOGGERS = "envoy.extensions.access_loggers"
_KIB = 1 << 10

# Of what a client may have Envoy keep for it; Envoy's own advice for what is exposed.
_STREAM_WINDOW = 64 * _KIB
_CONNECTION_WINDOW = 1024 * _KIB
_HEADERS_TIMEOUT = 10.0  # seconds that a client may take to send the headers of a request
_KEEPALIVE_TIMEOUT = 10.0

# By the name in a line of JSON: https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log
_LOGGED = {
    "time": "%START_TIME%",
    "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "received_bytes": "%BYTES_RECEIVED%",
    "sent_bytes": "%BYTES_SENT%",
    "milliseconds": "%DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "upstream": "%UPSTREAM_HOST%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}


def listener(proxy: Proxy) -> Json:
    """Envoy's ``config.listener.v3.Listener``."""
    front = proxy.front
    manager = extension("envoy.filters.network.http_connection_manager", _MANAGER, _manager(proxy))
    chain: Json = {"filters": [manager]}
    if front.tls_cert is not None:
        secured = TLS(front.tls_cert, front.tls_key, front.tls_client_ca)
        chain["transport_socket"] = tls.downstream(secured)
    return {
        "name": "dynserve",
        "address": front.listen_at.address(),
        "per_connection_buffer_limit_bytes": _CONNECTION_WINDOW,
        "filter_chains": [chain],
    }


def _manager(proxy: Proxy) -> Json:
    front = proxy.front
    return {
        "stat_prefix": "dynserve",
        "codec_type": "AUTO",
        "route_config": route_configuration(proxy),
        "http_filters": filters(proxy),
        **_access_log(front),
        # Envoy is the edge: what a client says of itself in x-forwarded-for is not believed.
        "use_remote_address": True,
        "xff_num_trusted_hops": front.trusted_hops,
        "normalize_path": True,
        "merge_slashes": True,
        "request_headers_timeout": seconds(_HEADERS_TIMEOUT),
        "stream_idle_timeout": seconds(front.stream_idle_timeout),
        "drain_timeout": seconds(front.drain_timeout),
        "common_http_protocol_options": _http(front),
        "http2_protocol_options": _http2(front),
    }


def _http(front: Front) -> Json:
    """Metadata may have underscores in its names, so headers with them stay allowed."""
    if not front.client_connection_age:
        return {"headers_with_underscores_action": "ALLOW"}
    return {
        "headers_with_underscores_action": "ALLOW",
        "max_connection_duration": seconds(front.client_connection_age),
    }


def _http2(front: Front) -> Json:
    options: Json = {
        "max_concurrent_streams": front.client_streams,
        "initial_stream_window_size": _STREAM_WINDOW,
        "initial_connection_window_size": _CONNECTION_WINDOW,
    }
    if front.client_keepalive:
        options["connection_keepalive"] = {
            "interval": seconds(front.client_keepalive),
            "timeout": seconds(_KEEPALIVE_TIMEOUT),
        }
    return options


def _access_log(front: Front) -> Json:
    if front.access_log == "off":
        return {}
    fields: Json = {}
    if front.access_log == "json":
        fields = {"log_format": {"json_format": _LOGGED}}
    message = f"{_LOGGERS}.stream.v3.StdoutAccessLog"
    return {"access_log": [extension("envoy.access_loggers.stdout", message, fields)]}
