"""The whole configuration: what it says by default, and what each setting changes in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dynserve.envoy import (
    Breakers,
    Ejection,
    Front,
    Health,
    Hooks,
    Proxy,
    Retries,
    Transcoding,
    Upstream,
    Web,
    bootstrap,
)

_TYPE = "type.googleapis.com/"
_FILTERS = f"{_TYPE}envoy.extensions.filters.http"

ROUTER: dict[str, Any] = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{_FILTERS}.router.v3.Router"},
}
GRPC_WEB = {
    "name": "envoy.filters.http.grpc_web",
    "typed_config": {"@type": f"{_FILTERS}.grpc_web.v3.GrpcWeb"},
}
RETRY_POLICY = {
    "retry_on": "cancelled,connect-failure,refused-stream,reset,unavailable",
    "num_retries": 3,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": f"{_TYPE}envoy.extensions.retry.host.previous_hosts.v3."
                "PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 16,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
}
LOGGED = {
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
STDOUT = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
MANAGER = {
    "@type": f"{_TYPE}envoy.extensions.filters.network.http_connection_manager.v3."
    "HttpConnectionManager",
    "stat_prefix": "dynserve",
    "codec_type": "AUTO",
    "route_config": {
        "name": "dynserve",
        "virtual_hosts": [
            {
                "name": "dynserve",
                "domains": ["*"],
                "routes": [
                    {"match": {"prefix": "/"}, "route": {"cluster": "servers", "timeout": "0s"}}
                ],
                "retry_policy": RETRY_POLICY,
                "request_body_buffer_limit": 4194304,
            }
        ],
    },
    "http_filters": [GRPC_WEB, ROUTER],
    "access_log": [
        {
            "name": "envoy.access_loggers.stdout",
            "typed_config": {
                "@type": f"{_TYPE}{STDOUT}",
                "log_format": {"json_format": LOGGED},
            },
        }
    ],
    "use_remote_address": True,
    "xff_num_trusted_hops": 0,
    "normalize_path": True,
    "merge_slashes": True,
    "request_headers_timeout": "10s",
    "stream_idle_timeout": "0s",
    "drain_timeout": "5s",
    "common_http_protocol_options": {"headers_with_underscores_action": "ALLOW"},
    "http2_protocol_options": {
        "max_concurrent_streams": 1000,
        "initial_stream_window_size": 65536,
        "initial_connection_window_size": 1048576,
        "connection_keepalive": {"interval": "30s", "timeout": "10s"},
    },
}
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def place(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def cluster(name: str, host: str, port: int) -> dict[str, Any]:
    """What every cluster has."""
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "upstream_connection_options": {
            "tcp_keepalive": {
                "keepalive_time": 30,
                "keepalive_interval": 10,
                "keepalive_probes": 3,
            }
        },
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"{_TYPE}{HTTP_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": place(host, port)}}]}],
        },
    }


SERVERS = {
    **cluster("servers", "127.0.0.1", 50051),
    "lb_policy": "LEAST_REQUEST",
    "common_lb_config": {
        "healthy_panic_threshold": {"value": 0.0},
        "update_merge_window": "0s",
    },
    "health_checks": [
        {
            "interval": "1s",
            "no_traffic_interval": "1s",
            "timeout": "1s",
            "unhealthy_threshold": 2,
            "healthy_threshold": 1,
            "grpc_health_check": {"service_name": ""},
        }
    ],
    "outlier_detection": {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 5,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "base_ejection_time": "10s",
        "max_ejection_percent": 50,
    },
    "circuit_breakers": {
        "thresholds": [
            {
                "max_connections": 1024,
                "max_pending_requests": 1024,
                "max_requests": 10000,
                "retry_budget": {
                    "budget_percent": {"value": 20.0},
                    "min_retry_concurrency": 100,
                },
                "track_remaining": True,
            }
        ]
    },
}
DEFAULT = {
    "admin": {"address": place("127.0.0.1", 9901)},
    "static_resources": {
        "listeners": [
            {
                "name": "dynserve",
                "address": place("127.0.0.1", 8080),
                "per_connection_buffer_limit_bytes": 1048576,
                "filter_chains": [
                    {
                        "filters": [
                            {
                                "name": "envoy.filters.network.http_connection_manager",
                                "typed_config": MANAGER,
                            }
                        ]
                    }
                ],
            }
        ],
        "clusters": [SERVERS],
    },
    "overload_manager": {
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.resource_monitors.downstream_connections."
                    "v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": 50000,
                },
            }
        ]
    },
}


def test_the_default() -> None:
    """All of it; a server that stops keeps its connections (no close_connections_on_…)."""
    assert bootstrap(Proxy()) == DEFAULT


# Where things are, as the table below has them.
_LISTENER = "static_resources.listeners.0"
_CHAIN = f"{_LISTENER}.filter_chains.0"
_MANAGER = f"{_CHAIN}.filters.0.typed_config"
_HOST = f"{_MANAGER}.route_config.virtual_hosts.0"
_ACTION = f"{_HOST}.routes.0.route"
_SERVERS = "static_resources.clusters.0"
_GONE = "gone"
_TLS = f"{_TYPE}envoy.extensions.transport_sockets.tls.v3"


def _socket(message: str, protocols: list[str], **fields: Any) -> dict[str, Any]:
    common = {
        "alpn_protocols": protocols,
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}.{message}",
            "common_tls_context": {**common, **fields.pop("common")},
            **fields,
        },
    }


def _shown(cert: str, key: str) -> dict[str, Any]:
    files = {"certificate_chain": {"filename": cert}, "private_key": {"filename": key}}
    return {"tls_certificates": [files]}


CHANGES: dict[str, tuple[Proxy, dict[str, Any]]] = {
    "listen": (
        Proxy(front=Front(listen="[::]:443", admin="unix:/a")),
        {
            f"{_LISTENER}.address": place("::", 443),
            "admin.address": {"pipe": {"path": "/a"}},
        },
    ),
    "no admin": (Proxy(front=Front(admin="")), {"admin": _GONE}),
    "tls": (
        Proxy(front=Front(tls_cert="c", tls_key="k")),
        {
            f"{_CHAIN}.transport_socket": _socket(
                "DownstreamTlsContext", ["h2", "http/1.1"], common=_shown("c", "k")
            )
        },
    ),
    "mutual tls": (
        Proxy(front=Front(tls_cert="c", tls_key="k", tls_client_ca="a")),
        {
            f"{_CHAIN}.transport_socket": _socket(
                "DownstreamTlsContext",
                ["h2", "http/1.1"],
                common={
                    **_shown("c", "k"),
                    "validation_context": {"trusted_ca": {"filename": "a"}},
                },
                require_client_certificate=True,
            )
        },
    ),
    "limits of clients": (
        Proxy(
            front=Front(
                access_log="off",
                trusted_hops=1,
                max_timeout=60,
                stream_idle_timeout=0.5,
                client_keepalive=0,
                client_streams=10,
                client_connections=20,
                client_connection_age=3600,
                drain_timeout=1,
            )
        ),
        {
            f"{_MANAGER}.access_log": _GONE,
            f"{_MANAGER}.xff_num_trusted_hops": 1,
            f"{_MANAGER}.stream_idle_timeout": "0.5s",
            f"{_MANAGER}.drain_timeout": "1s",
            f"{_MANAGER}.http2_protocol_options.connection_keepalive": _GONE,
            f"{_MANAGER}.http2_protocol_options.max_concurrent_streams": 10,
            f"{_MANAGER}.common_http_protocol_options.max_connection_duration": "3600s",
            f"{_ACTION}.max_stream_duration": {"max_stream_duration": "60s"},
            "overload_manager.resource_monitors.0.typed_config"
            ".max_active_downstream_connections": 20,
        },
    ),
    "text log": (
        Proxy(front=Front(access_log="text")),
        {f"{_MANAGER}.access_log.0.typed_config.log_format": _GONE},
    ),
    "servers": (
        Proxy(
            upstream=Upstream(
                upstream=("10.0.0.1:1", "10.0.0.2:2"),
                balance="round-robin",
                connect_timeout=0.25,
                upstream_keepalive=300,
            )
        ),
        {
            f"{_SERVERS}.load_assignment.endpoints.0.lb_endpoints": [
                {"endpoint": {"address": place("10.0.0.1", 1)}},
                {"endpoint": {"address": place("10.0.0.2", 2)}},
            ],
            f"{_SERVERS}.lb_policy": "ROUND_ROBIN",
            f"{_SERVERS}.connect_timeout": "0.25s",
            f"{_SERVERS}.typed_extension_protocol_options.{HTTP_OPTIONS}.explicit_http_config"
            ".http2_protocol_options": {
                "connection_keepalive": {"interval": "300s", "timeout": "10s"}
            },
        },
    ),
    "a name": (
        Proxy(upstream=Upstream(upstream=("shop:1",), dns_refresh=2)),
        {
            f"{_SERVERS}.load_assignment.endpoints.0.lb_endpoints.0.endpoint.address": place(
                "shop", 1
            ),
            f"{_SERVERS}.type": _GONE,
            f"{_SERVERS}.cluster_type": {
                "name": "envoy.clusters.dns",
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.clusters.dns.v3.DnsCluster",
                    "dns_refresh_rate": "2s",
                    "dns_lookup_family": "V4_PREFERRED",
                },
            },
        },
    ),
    "tls to servers": (
        Proxy(
            upstream=Upstream(
                upstream_ca="a", upstream_cert="c", upstream_key="k", upstream_name="shop"
            )
        ),
        {
            f"{_SERVERS}.transport_socket": _socket(
                "UpstreamTlsContext",
                ["h2"],
                common={
                    **_shown("c", "k"),
                    "validation_context": {
                        "trusted_ca": {"filename": "a"},
                        "match_typed_subject_alt_names": [
                            {"san_type": "DNS", "matcher": {"exact": "shop"}}
                        ],
                    },
                },
                sni="shop",
            )
        },
    ),
    "health": (
        Proxy(
            health=Health(
                health_interval=0.5,
                health_timeout=0.25,
                health_failures=3,
                health_service="shop.Shop",
                panic_threshold=50,
            )
        ),
        {
            f"{_SERVERS}.health_checks": [
                {
                    "interval": "0.5s",
                    "no_traffic_interval": "0.5s",
                    "timeout": "0.25s",
                    "unhealthy_threshold": 3,
                    "healthy_threshold": 1,
                    "grpc_health_check": {"service_name": "shop.Shop"},
                }
            ],
            f"{_SERVERS}.common_lb_config.healthy_panic_threshold": {"value": 50},
        },
    ),
    "ejection": (
        Proxy(ejection=Ejection(eject_after=2, eject_time=30, eject_percent=10)),
        {
            f"{_SERVERS}.outlier_detection.consecutive_local_origin_failure": 2,
            f"{_SERVERS}.outlier_detection.base_ejection_time": "30s",
            f"{_SERVERS}.outlier_detection.max_ejection_percent": 10,
        },
    ),
    "no ejection": (
        Proxy(ejection=Ejection(eject_after=0)),
        {f"{_SERVERS}.outlier_detection.enforcing_consecutive_local_origin_failure": 0},
    ),
    "no retries": (
        Proxy(retries=Retries(retries=0)),
        {f"{_HOST}.retry_policy": _GONE, f"{_HOST}.request_body_buffer_limit": _GONE},
    ),
    "retries": (
        Proxy(
            retries=Retries(
                retry_on="unavailable",
                retries=1,
                per_try_timeout=2,
                retry_budget=50,
                retry_concurrency=0,
                retry_buffer=0,
            )
        ),
        {
            f"{_HOST}.retry_policy": {
                **RETRY_POLICY,
                "retry_on": "unavailable",
                "num_retries": 1,
                "per_try_timeout": "2s",
            },
            f"{_HOST}.request_body_buffer_limit": 0,
            f"{_SERVERS}.circuit_breakers.thresholds.0.retry_budget": {
                "budget_percent": {"value": 50},
                "min_retry_concurrency": 0,
            },
        },
    ),
    "breakers": (
        Proxy(breakers=Breakers(max_connections=1, max_pending=2, max_requests=3)),
        {
            f"{_SERVERS}.circuit_breakers.thresholds.0.max_connections": 1,
            f"{_SERVERS}.circuit_breakers.thresholds.0.max_pending_requests": 2,
            f"{_SERVERS}.circuit_breakers.thresholds.0.max_requests": 3,
        },
    ),
}


def steps(path: str) -> list[str]:
    """The keys on the way; a message's full name is one."""
    marked = path.replace(HTTP_OPTIONS, "HTTP")
    return [HTTP_OPTIONS if step == "HTTP" else step for step in marked.split(".")]


def differences(one: Any, other: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where two configurations differ, as far down as they are alike in form."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key, _GONE), other.get(key, _GONE), (*way, key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from differences(first, second, (*way, str(index)))
    elif one != other:
        yield way


def found_at(config: Any, way: list[str]) -> Any:
    for step in way:
        config = config[int(step)] if isinstance(config, list) else config.get(step, _GONE)
        if config == _GONE:
            return _GONE
    return config


@pytest.mark.parametrize(("proxy", "changes"), CHANGES.values(), ids=CHANGES)
def test_a_setting_changes_this_and_nothing_else(proxy: Proxy, changes: dict[str, Any]) -> None:
    """What stands at the places of the table is as it says; all else is the default."""
    made = bootstrap(proxy)
    ways = [steps(path) for path in changes]
    assert {path: found_at(made, way) for path, way in zip(changes, ways, strict=True)} == changes
    for place_of_difference in differences(DEFAULT, made):
        assert any(list(place_of_difference[: len(way)]) == way for way in ways)


def filters_of(proxy: Proxy) -> list[Any]:
    return list(found_at(bootstrap(proxy), [*steps(_MANAGER), "http_filters"]))


def test_no_grpc_web() -> None:
    """Without it the router is all that is left."""
    assert filters_of(Proxy(web=Web(grpc_web=False))) == [ROUTER]


def test_browsers() -> None:
    """The policy is the route's, the filter applies it; any origin is a pattern of Envoy's."""
    made = bootstrap(
        Proxy(web=Web(cors_origin=("https://a.example", "*"), cors_header=("x-user",)))
    )
    cors = {
        "name": "envoy.filters.http.cors",
        "typed_config": {"@type": f"{_FILTERS}.cors.v3.Cors"},
    }
    assert found_at(made, [*steps(_MANAGER), "http_filters"]) == [cors, GRPC_WEB, ROUTER]
    assert found_at(made, [*steps(_HOST), "typed_per_filter_config"]) == {
        "envoy.filters.http.cors": {
            "@type": f"{_FILTERS}.cors.v3.CorsPolicy",
            "allow_origin_string_match": [
                {"exact": "https://a.example"},
                {"safe_regex": {"regex": ".*"}},
            ],
            "allow_methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
            "allow_headers": "authorization, content-type, grpc-timeout, x-grpc-web, x-user-agent,"
            " x-user",
            "expose_headers": "grpc-encoding, grpc-message, grpc-status, grpc-status-details-bin",
            "max_age": "86400",
        }
    }


def test_json() -> None:
    """The set is in the configuration, so that it is one file."""
    transcoding = Transcoding(b"\1\2", ("a.B",), auto_mapping=True, json_defaults=True)
    assert filters_of(Proxy(transcoding=transcoding)) == [
        GRPC_WEB,
        {
            "name": "envoy.filters.http.grpc_json_transcoder",
            "typed_config": {
                "@type": f"{_FILTERS}.grpc_json_transcoder.v3.GrpcJsonTranscoder",
                "proto_descriptor_bin": "AQI=",
                "services": ["a.B"],
                "auto_mapping": True,
                "convert_grpc_status": True,
                "print_options": {
                    "preserve_proto_field_names": False,
                    "always_print_primitive_fields": True,
                },
                "request_validation_options": {
                    "reject_unknown_method": True,
                    "reject_unknown_query_parameters": True,
                },
                "max_request_body_size": 16777216,
                "max_response_body_size": 16777216,
            },
        },
        ROUTER,
    ]


def test_hooks() -> None:
    """The cheapest comes first; each service has a cluster, and a deadline."""
    hooks = Hooks(
        ext_authz="10.0.0.1:1",
        rate_limit_service="10.0.0.2:2",
        rate_limit_by=("address", "path", "header:x-user"),
        local_rate_limit=5,
    )
    made = bootstrap(Proxy(hooks=hooks))
    everything = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    assert filters_of(Proxy(hooks=hooks)) == [
        {
            "name": "envoy.filters.http.local_ratelimit",
            "typed_config": {
                "@type": f"{_FILTERS}.local_ratelimit.v3.LocalRateLimit",
                "stat_prefix": "dynserve",
                "token_bucket": {
                    "max_tokens": 5,
                    "tokens_per_fill": 5,
                    "fill_interval": "1s",
                },
                "filter_enabled": everything,
                "filter_enforced": everything,
                "rate_limited_as_resource_exhausted": True,
                "local_rate_limit_per_downstream_connection": False,
            },
        },
        {
            "name": "envoy.filters.http.ratelimit",
            "typed_config": {
                "@type": f"{_FILTERS}.ratelimit.v3.RateLimit",
                "domain": "dynserve",
                "timeout": "0.1s",
                "failure_mode_deny": False,
                "rate_limited_as_resource_exhausted": True,
                "rate_limit_service": {
                    "grpc_service": {
                        "envoy_grpc": {"cluster_name": "rate_limits"},
                        "timeout": "0.1s",
                    },
                    "transport_api_version": "V3",
                },
            },
        },
        {
            "name": "envoy.filters.http.ext_authz",
            "typed_config": {
                "@type": f"{_FILTERS}.ext_authz.v3.ExtAuthz",
                "grpc_service": {
                    "envoy_grpc": {"cluster_name": "ext_authz"},
                    "timeout": "1s",
                },
                "transport_api_version": "V3",
                "failure_mode_allow": False,
                "status_on_error": {"code": 503},
                "include_peer_certificate": True,
            },
        },
        GRPC_WEB,
        ROUTER,
    ]
    assert found_at(made, [*steps(_ACTION), "rate_limits"]) == [
        {"actions": [{"remote_address": {}}]},
        {"actions": [{"request_headers": {"header_name": ":path", "descriptor_key": "path"}}]},
        {"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "x-user"}}]},
    ]
    assert made["static_resources"]["clusters"] == [
        SERVERS,
        cluster("ext_authz", "10.0.0.1", 1),
        cluster("rate_limits", "10.0.0.2", 2),
    ]


def test_a_burst() -> None:
    """More at once than a second may have, where that is asked for."""
    hooks = Hooks(
        local_rate_limit=5, local_rate_limit_burst=9, local_rate_limit_per_connection=True
    )
    limit = filters_of(Proxy(hooks=hooks))[0]["typed_config"]
    assert limit["token_bucket"] == {
        "max_tokens": 9,
        "tokens_per_fill": 5,
        "fill_interval": "1s",
    }
    assert limit["local_rate_limit_per_downstream_connection"] is True
