"""Proxy: what a configuration is to say, in groups, each with the defaults of a careful engineer.

The command line has an option for every field, by its name. Times are in seconds, sizes in bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .endpoint import Endpoint
from .errors import ProxyError

__all__ = [
    "ACCESS_LOGS",
    "BALANCES",
    "TLS",
    "Breakers",
    "Ejection",
    "Front",
    "Health",
    "Hooks",
    "Proxy",
    "Retries",
    "Transcoding",
    "Upstream",
    "Web",
]

BALANCES = {"least-request": "LEAST_REQUEST", "round-robin": "ROUND_ROBIN"}
ACCESS_LOGS = ("json", "text", "off")
_HEADER = re.compile(r"header:[a-z0-9_.-]+")  # as metadata is named, in lower case
_MIB = 1 << 20


@dataclass(frozen=True)
class TLS:
    """What secures a connection; paths are those of the machine that Envoy runs on.

    Args:
        cert: the file with the certificate that is shown, and ``key`` its private key.
        ca: the file with the authorities that the other side's certificate has to be of.
        name: the name that it has to carry.
    """

    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Front:
    """Where clients come in.

    Args:
        listen: HOST:PORT, ``[IPV6]:PORT`` or ``unix:PATH``.
        tls_cert: the certificate of Envoy, and ``tls_key`` its private key.
        tls_client_ca: the authorities of client certificates, which are then required.
        admin: where Envoy tells of itself; empty for nowhere. Who reaches it can stop Envoy.
        access_log: ``json`` or ``text``, a line a call on standard output, or ``off``.
        trusted_hops: how many proxies in front of Envoy are believed what they say of the client.
        max_timeout: after that long a call is cut off, a stream that has begun with INTERNAL; 0 for
            never. A server's own limit ends it with DEADLINE_EXCEEDED.
        stream_idle_timeout: how long a stream may carry nothing; 0 for no limit.
        client_keepalive: how often a silent client is asked whether it is there; 0 for never.
        client_streams: concurrent streams of one connection of a client; as many as a server's own
            default. A client of gRPC makes what is more wait, and says nothing.
        client_connections: connections of clients; more are refused.
        client_connection_age: after that long a connection is drained; 0 for never.
        drain_timeout: how long a connection that is drained may begin streams.
    """

    listen: str = "127.0.0.1:8080"
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    admin: str = "127.0.0.1:9901"
    access_log: str = "json"
    trusted_hops: int = 0
    max_timeout: float = 0.0
    stream_idle_timeout: float = 0.0
    client_keepalive: float = 30.0
    client_streams: int = 1000
    client_connections: int = 50_000
    client_connection_age: float = 0.0
    drain_timeout: float = 5.0

    def __post_init__(self) -> None:
        _ = self.listen_at, self.admin_at
        _check_pair("--tls-cert", self.tls_cert, "--tls-key", self.tls_key)
        if self.tls_client_ca and not self.tls_cert:
            raise ProxyError("--tls-client-ca", "is for TLS; give --tls-cert and --tls-key, too")

    @property
    def listen_at(self) -> Endpoint:
        """``listen``, read; it is an IP address, for Envoy does not look up its own."""
        return _own(self.listen, "--listen")

    @property
    def admin_at(self) -> Endpoint | None:
        """``admin``, read; None where it is empty."""
        return _own(self.admin, "--admin") if self.admin else None


@dataclass(frozen=True)
class Upstream:
    """The servers.

    Args:
        upstream: their addresses; a DNS name stands for every address that it has.
        balance: ``least-request`` or ``round-robin``.
        connect_timeout: how long connecting may take.
        dns_refresh: how often names are looked up.
        upstream_ca: the authorities of the servers' certificates; with it connections are TLS.
        upstream_cert: the certificate that Envoy shows them, and ``upstream_key`` its private key.
        upstream_name: the name in their certificates; by default the one DNS name among them.
        upstream_keepalive: how often a silent server is asked whether it is there; 0 for never. Not
            more often than the servers allow (C-core: 5 minutes), or they close the connection.
    """

    upstream: tuple[str, ...] = ("127.0.0.1:50051",)
    balance: str = "least-request"
    connect_timeout: float = 2.0
    dns_refresh: float = 5.0
    upstream_ca: str | None = None
    upstream_cert: str | None = None
    upstream_key: str | None = None
    upstream_name: str | None = None
    upstream_keepalive: float = 0.0

    def __post_init__(self) -> None:
        if not self.upstream:
            raise ProxyError("--upstream", "got none, expected the HOST:PORT of a server")
        endpoints = self.endpoints
        if len(set(endpoints)) < len(endpoints):
            again = next(text for text in self.upstream if self.upstream.count(text) > 1)
            raise ProxyError("--upstream", f"got {again!r} twice; name each server once")
        if len({endpoint.port is None for endpoint in endpoints}) > 1 and self.has_names:
            raise ProxyError(
                "--upstream", "unix sockets and DNS names do not go together; write IP addresses"
            )
        _check_pair("--upstream-cert", self.upstream_cert, "--upstream-key", self.upstream_key)
        for option in ("upstream_cert", "upstream_name"):
            if getattr(self, option) and not self.upstream_ca:
                shown = f"--{option.replace('_', '-')}"
                raise ProxyError(shown, "is for TLS; give --upstream-ca, too")

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The addresses of the servers."""
        return tuple(Endpoint.parse(text, "--upstream") for text in self.upstream)

    @property
    def has_names(self) -> bool:
        """Whether DNS is asked."""
        return any(endpoint.is_name for endpoint in self.endpoints)

    @property
    def tls(self) -> TLS | None:
        """What secures connections to the servers; None where nothing does.

        Raises:
            ProxyError: nobody said what name their certificates carry.
        """
        if self.upstream_ca is None:
            return None
        name = self.upstream_name
        names = {endpoint.host for endpoint in self.endpoints if endpoint.is_name}
        if name is None and len(names) == 1:
            (name,) = names
        if name is None:
            raise ProxyError(
                "--upstream-ca",
                "which name do the servers' certificates carry? give --upstream-name NAME, too",
            )
        return TLS(self.upstream_cert, self.upstream_key, self.upstream_ca, name)


@dataclass(frozen=True)
class Health:
    """How Envoy asks servers whether they serve, by grpc.health.v1.

    A server that says NOT_SERVING gets no new calls at once. One that does not answer gets none
    after ``health_failures`` checks: it may only be slow.

    Args:
        health_interval: between two checks of a server.
        health_timeout: how long an answer may take.
        health_failures: how many checks without an answer make a server unhealthy.
        health_service: the service that is asked for; empty for the server as a whole.
        panic_threshold: with fewer healthy servers than this percentage, all of them get calls;
            0 for never.
    """

    health_interval: float = 1.0
    health_timeout: float = 1.0
    health_failures: int = 2
    health_service: str = ""
    panic_threshold: float = 0.0


@dataclass(frozen=True)
class Retries:
    """What Envoy tries again, on another server.

    Args:
        retry_on: Envoy's conditions. ``reset`` may run a handler twice: a server may have begun.
            ``cancelled`` is what gRPC's core answers to a call that comes just as it stops (1.85).
        retries: how often at most; 0 for never.
        per_try_timeout: how long the first answer of a server may take; 0 for no limit.
        retry_budget: how many of the calls under way may be retries, in percent.
        retry_concurrency: how many retries are allowed however few calls there are.
        retry_buffer: of a request that is longer than that, nothing is kept to try it again.
    """

    retry_on: str = "cancelled,connect-failure,refused-stream,reset,unavailable"
    retries: int = 3
    per_try_timeout: float = 0.0
    retry_budget: float = 20.0
    retry_concurrency: int = 100
    retry_buffer: int = 4 * _MIB


@dataclass(frozen=True)
class Breakers:
    """What is more than this Envoy refuses at once, with UNAVAILABLE.

    Args:
        max_connections: to all servers together.
        max_pending: calls that wait for a connection.
        max_requests: calls under way to all servers together, streams too.
    """

    max_connections: int = 1024
    max_pending: int = 1024
    max_requests: int = 10_000


@dataclass(frozen=True)
class Ejection:
    """Which servers are left out for what connecting to them showed.

    Statuses that servers answer with do not count: a client could call for them.

    Args:
        eject_after: failures in a row, of connecting or of a connection; 0 for never.
        eject_time: how long at first; a successful health check ends it.
        eject_percent: how many of the servers may be left out at a time.
    """

    eject_after: int = 5
    eject_time: float = 10.0
    eject_percent: int = 50


@dataclass(frozen=True)
class Hooks:
    """Services that are asked before a call goes on, and limits.

    Args:
        ext_authz: the address of an ``envoy.service.auth.v3.Authorization``.
        ext_authz_timeout: how long its answer may take.
        ext_authz_fail_open: let calls pass that it does not answer for.
        rate_limit_service: the address of an ``envoy.service.ratelimit.v3.RateLimitService``.
        rate_limit_domain: what its limits go by.
        rate_limit_by: what it is told of a call: ``address``, ``path``, ``header:NAME``; each is a
            descriptor of its own, so that a limit can be set for each.
        rate_limit_timeout: how long its answer may take.
        rate_limit_fail_closed: refuse calls that it does not answer for.
        local_rate_limit: calls a second, for each Envoy; 0 for no limit.
        local_rate_limit_burst: calls at once; by default as many as a second may have.
        local_rate_limit_per_connection: count for each connection of a client, not all together.
    """

    ext_authz: str | None = None
    ext_authz_timeout: float = 1.0
    ext_authz_fail_open: bool = False
    rate_limit_service: str | None = None
    rate_limit_domain: str = "dynserve"
    rate_limit_by: tuple[str, ...] = ("address", "path")
    rate_limit_timeout: float = 0.1
    rate_limit_fail_closed: bool = False
    local_rate_limit: int = 0
    local_rate_limit_burst: int | None = None
    local_rate_limit_per_connection: bool = False

    def __post_init__(self) -> None:
        for setting, text in (
            ("--ext-authz", self.ext_authz),
            ("--rate-limit-service", self.rate_limit_service),
        ):
            if text is not None:
                Endpoint.parse(text, setting)
        for by in self.rate_limit_by:
            if by not in ("address", "path") and not _HEADER.fullmatch(by):
                problem = f"got {by!r}, expected address, path or header:NAME"
                raise ProxyError("--rate-limit-by", problem)
        burst = self.local_rate_limit_burst
        if burst is not None and burst < self.local_rate_limit:
            problem = f"got {burst}, expected at least --local-rate-limit, {self.local_rate_limit}"
            raise ProxyError("--local-rate-limit-burst", problem)


@dataclass(frozen=True)
class Web:
    """What browsers need.

    Args:
        grpc_web: translate gRPC-Web.
        cors_origin: origins whose pages may call; ``*`` for all.
        cors_header: headers that they may send beside those of gRPC-Web and ``authorization``.
    """

    grpc_web: bool = True
    cors_origin: tuple[str, ...] = ()
    cors_header: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for origin in self.cors_origin:
            scheme, separator, host = origin.partition("://")
            if origin != "*" and not (scheme and separator and host and "/" not in host):
                problem = f"got {origin!r}, expected one such as https://example.org, or *"
                raise ProxyError("--cors-origin", problem)


@dataclass(frozen=True)
class Transcoding:
    """Calls by plain HTTP and JSON, by ``google.api.http``.

    Args:
        descriptor_set: a serialised ``FileDescriptorSet`` with all that the services need.
        services: their full names.
        auto_mapping: also ``POST /pkg.Service/Method`` for methods that have no rule.
        json_proto_names: fields by their names in the .proto, not in lowerCamelCase.
        json_defaults: print fields that are not set, too.
    """

    descriptor_set: bytes
    services: tuple[str, ...]
    auto_mapping: bool = False
    json_proto_names: bool = False
    json_defaults: bool = False


@dataclass(frozen=True)
class Proxy:
    """All of it; without ``transcoding`` there is none."""

    front: Front = field(default_factory=Front)
    upstream: Upstream = field(default_factory=Upstream)
    health: Health = field(default_factory=Health)
    retries: Retries = field(default_factory=Retries)
    breakers: Breakers = field(default_factory=Breakers)
    ejection: Ejection = field(default_factory=Ejection)
    hooks: Hooks = field(default_factory=Hooks)
    web: Web = field(default_factory=Web)
    transcoding: Transcoding | None = None


def _own(text: str, setting: str) -> Endpoint:
    """Where Envoy is to listen."""
    endpoint = Endpoint.parse(text, setting, lowest_port=0)
    if endpoint.is_name:
        problem = f"got {text!r}, expected an IP address: 127.0.0.1 is this machine, 0.0.0.0 all"
        raise ProxyError(setting, problem)
    return endpoint


def _check_pair(first: str, one: str | None, second: str, other: str | None) -> None:
    """A certificate needs its key, and the other way round."""
    if (one is None) != (other is None):
        given, missing = (first, second) if other is None else (second, first)
        raise ProxyError(given, f"needs {missing}, too")
