"""Clusters: the servers, how they are watched and limited, and the services that hooks ask."""

from __future__ import annotations

from collections.abc import Sequence

from . import tls
from .endpoint import Endpoint
from .parts import Json, extension, seconds, typed
from .proxy import BALANCES, Breakers, Ejection, Health, Proxy, Retries, Upstream

__all__ = ["AUTHORIZATION", "RATE_LIMITS", "SERVERS", "clusters"]

SERVERS, AUTHORIZATION, RATE_LIMITS = "servers", "ext_authz", "rate_limits"

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_DNS = "envoy.extensions.clusters.dns.v3.DnsCluster"
_KEEPALIVE_TIMEOUT = 10.0  # seconds
# The system asks whether a silent server is there. Unlike HTTP/2's pings, servers do not count
# these and close connections of who asks often.
_TCP_KEEPALIVE = {"keepalive_time": 30, "keepalive_interval": 10, "keepalive_probes": 3}


def clusters(proxy: Proxy) -> list[Json]:
    """Envoy's ``config.cluster.v3.Cluster`` messages."""
    hooks, upstream = proxy.hooks, proxy.upstream
    made = [_servers(proxy)]
    if hooks.ext_authz is not None:
        endpoint = Endpoint.parse(hooks.ext_authz, "--ext-authz")
        made.append(_cluster(AUTHORIZATION, [endpoint], upstream))
    if hooks.rate_limit_service is not None:
        endpoint = Endpoint.parse(hooks.rate_limit_service, "--rate-limit-service")
        made.append(_cluster(RATE_LIMITS, [endpoint], upstream))
    return made


def _servers(proxy: Proxy) -> Json:
    upstream = proxy.upstream
    cluster = {
        **_cluster(SERVERS, upstream.endpoints, upstream),
        "lb_policy": BALANCES[upstream.balance],
        "common_lb_config": _balancing(proxy.health),
        "health_checks": [_health_check(proxy.health)],
        "outlier_detection": _outlier_detection(proxy.ejection),
        "circuit_breakers": {"thresholds": [_thresholds(proxy.breakers, proxy.retries)]},
    }
    secured = upstream.tls
    return cluster if secured is None else {**cluster, "transport_socket": tls.upstream(secured)}


def _cluster(name: str, endpoints: Sequence[Endpoint], upstream: Upstream) -> Json:
    """What all of them have: addresses, and HTTP/2."""
    hosts = [{"endpoint": {"address": endpoint.address()}} for endpoint in endpoints]
    return {
        "name": name,
        **_discovery(endpoints, upstream),
        "connect_timeout": seconds(upstream.connect_timeout),
        "upstream_connection_options": {"tcp_keepalive": _TCP_KEEPALIVE},
        "typed_extension_protocol_options": {_HTTP_OPTIONS: _http2(upstream)},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
    }


def _discovery(endpoints: Sequence[Endpoint], upstream: Upstream) -> Json:
    """Every address that DNS has for a name is a server, as with the type STRICT_DNS of old."""
    if not any(endpoint.is_name for endpoint in endpoints):
        return {"type": "STATIC"}
    fields = {
        "dns_refresh_rate": seconds(upstream.dns_refresh),
        # Servers that listen on IPv4 only are usual, and `localhost` has addresses of both kinds.
        "dns_lookup_family": "V4_PREFERRED",
    }
    return {"cluster_type": extension("envoy.clusters.dns", _DNS, fields)}


def _http2(upstream: Upstream) -> Json:
    options: Json = {}
    if upstream.upstream_keepalive:
        options["connection_keepalive"] = {
            "interval": seconds(upstream.upstream_keepalive),
            "timeout": seconds(_KEEPALIVE_TIMEOUT),
        }
    return typed(_HTTP_OPTIONS, {"explicit_http_config": {"http2_protocol_options": options}})


def _health_check(health: Health) -> Json:
    """A server is asked as often without traffic as with it, and believed at once.

    It stays as it is (no ``close_connections_on_host_health_failure``): a server that says
    NOT_SERVING because it stops has calls under way, which are to finish.
    """
    interval = seconds(health.health_interval)
    return {
        "interval": interval,
        "no_traffic_interval": interval,  # by default a minute
        "timeout": seconds(health.health_timeout),
        "unhealthy_threshold": health.health_failures,
        "healthy_threshold": 1,
        "grpc_health_check": {"service_name": health.health_service},
    }


def _balancing(health: Health) -> Json:
    """By default what health checks find reaches Envoy's threads up to a second late."""
    return {
        "healthy_panic_threshold": {"value": health.panic_threshold},
        "update_merge_window": "0s",
    }


def _outlier_detection(ejection: Ejection) -> Json:
    """Only what Envoy found out itself counts, so that no client can have a server left out."""
    never = not ejection.eject_after
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": ejection.eject_after or 5,
        "enforcing_consecutive_local_origin_failure": 0 if never else 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "base_ejection_time": seconds(ejection.eject_time),
        "max_ejection_percent": ejection.eject_percent,
    }


def _thresholds(breakers: Breakers, retries: Retries) -> Json:
    return {
        "max_connections": breakers.max_connections,
        "max_pending_requests": breakers.max_pending,
        "max_requests": breakers.max_requests,
        "retry_budget": {
            "budget_percent": {"value": retries.retry_budget},
            "min_retry_concurrency": retries.retry_concurrency,
        },
        "track_remaining": True,
    }
