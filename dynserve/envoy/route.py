"""Where calls go, how long they may take, and what is tried again."""

from __future__ import annotations

from .cluster import SERVERS
from .filters import CORS
from .parts import Json, extension, seconds, typed
from .proxy import Hooks, Proxy, Retries, Web

__all__ = ["route_configuration"]

_PREDICATE = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_SELECTION_ATTEMPTS = 16  # looks for a server that was not tried; then any will do
_BACK_OFF = {"base_interval": "0.025s", "max_interval": "0.25s"}
_CORS_AGE = "86400"  # seconds that a browser need not ask again

# What a client of gRPC-Web sends, and what it has to be let read.
_SENT = ("authorization", "content-type", "grpc-timeout", "x-grpc-web", "x-user-agent")
_READ = ("grpc-encoding", "grpc-message", "grpc-status", "grpc-status-details-bin")


def route_configuration(proxy: Proxy) -> Json:
    """Envoy's ``config.route.v3.RouteConfiguration``: every path goes to the servers.

    An unknown method too, for a server tells which one may have been meant.
    """
    route = {"match": {"prefix": "/"}, "route": _action(proxy)}
    host: Json = {"name": "dynserve", "domains": ["*"], "routes": [route]}
    if proxy.retries.retries:
        host["retry_policy"] = _retry_policy(proxy.retries)
        host["request_body_buffer_limit"] = proxy.retries.retry_buffer
    if proxy.web.cors_origin:
        host["typed_per_filter_config"] = {CORS: _cors(proxy.web)}
    return {"name": "dynserve", "virtual_hosts": [host]}


def _action(proxy: Proxy) -> Json:
    """No time limit of Envoy's own, where none was asked for.

    The grpc-timeout header goes on to the server, which ends the call with a status, as the client
    does. Envoy could count, too (``grpc_timeout_header_max``), but at the same moment: once a
    response has begun it can only reset the stream, and a client got INTERNAL, not
    DEADLINE_EXCEEDED (1.40).
    """
    action: Json = {"cluster": SERVERS, "timeout": "0s"}
    if proxy.front.max_timeout:
        longest = seconds(proxy.front.max_timeout)
        action["max_stream_duration"] = {"max_stream_duration": longest}
    if proxy.hooks.rate_limit_service is not None:
        action["rate_limits"] = _descriptors(proxy.hooks)
    return action


def _retry_policy(retries: Retries) -> Json:
    previous = extension("envoy.retry_host_predicates.previous_hosts", _PREDICATE)
    policy: Json = {
        "retry_on": retries.retry_on,
        "num_retries": retries.retries,
        "retry_host_predicate": [previous],
        "host_selection_retry_max_attempts": _SELECTION_ATTEMPTS,
        "retry_back_off": _BACK_OFF,
    }
    if retries.per_try_timeout:
        policy["per_try_timeout"] = seconds(retries.per_try_timeout)
    return policy


def _cors(web: Web) -> Json:
    origins = [
        {"safe_regex": {"regex": ".*"}} if origin == "*" else {"exact": origin}
        for origin in web.cors_origin
    ]
    policy = {
        "allow_origin_string_match": origins,
        "allow_methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
        "allow_headers": ", ".join([*_SENT, *web.cors_header]),
        "expose_headers": ", ".join(_READ),
        "max_age": _CORS_AGE,
    }
    return typed("envoy.extensions.filters.http.cors.v3.CorsPolicy", policy)


def _descriptors(hooks: Hooks) -> list[Json]:
    return [{"actions": [_limit_action(by)]} for by in hooks.rate_limit_by]


def _limit_action(by: str) -> Json:
    """What the rate limit service is told of a call, as a descriptor of one entry."""
    if by == "address":
        return {"remote_address": {}}
    if by == "path":
        return {"request_headers": {"header_name": ":path", "descriptor_key": "path"}}
    name = by.removeprefix("header:")
    return {"request_headers": {"header_name": name, "descriptor_key": name}}
