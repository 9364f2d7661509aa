"""Proxy: settings that do not go together are refused, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dynserve.envoy import TLS, Front, Hooks, Proxy, ProxyError, Upstream, Web


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: Front(listen="8080"),
            "--listen: got '8080', expected HOST:PORT, [IPV6]:PORT or unix:PATH;"
            " did you mean 127.0.0.1:8080?",
        ),
        (
            lambda: Front(listen="localhost:8080"),
            "--listen: got 'localhost:8080', expected an IP address: 127.0.0.1 is this machine,"
            " 0.0.0.0 all",
        ),
        (
            lambda: Front(admin="localhost:9901"),
            "--admin: got 'localhost:9901', expected an IP address: 127.0.0.1 is this machine,"
            " 0.0.0.0 all",
        ),
        (lambda: Front(tls_cert="a"), "--tls-cert: needs --tls-key, too"),
        (lambda: Front(tls_key="a"), "--tls-key: needs --tls-cert, too"),
        (
            lambda: Front(tls_client_ca="a"),
            "--tls-client-ca: is for TLS; give --tls-cert and --tls-key, too",
        ),
        (
            lambda: Upstream(upstream=()),
            "--upstream: got none, expected the HOST:PORT of a server",
        ),
        (
            lambda: Upstream(upstream=("a:1", "b:2", "a:1")),
            "--upstream: got 'a:1' twice; name each server once",
        ),
        (
            lambda: Upstream(upstream=("a:1", "unix:/b")),
            "--upstream: unix sockets and DNS names do not go together; write IP addresses",
        ),
        (lambda: Upstream(upstream_cert="a"), "--upstream-cert: needs --upstream-key, too"),
        (lambda: Upstream(upstream_key="a"), "--upstream-key: needs --upstream-cert, too"),
        (
            lambda: Upstream(upstream_cert="a", upstream_key="b"),
            "--upstream-cert: is for TLS; give --upstream-ca, too",
        ),
        (
            lambda: Upstream(upstream_name="a"),
            "--upstream-name: is for TLS; give --upstream-ca, too",
        ),
        (
            lambda: Upstream(upstream_ca="a").tls,
            "--upstream-ca: which name do the servers' certificates carry?"
            " give --upstream-name NAME, too",
        ),
        (
            lambda: Upstream(upstream=("a:1", "b:1"), upstream_ca="a").tls,
            "--upstream-ca: which name do the servers' certificates carry?"
            " give --upstream-name NAME, too",
        ),
        (
            lambda: Hooks(ext_authz="auth"),
            "--ext-authz: got 'auth', expected HOST:PORT, [IPV6]:PORT or unix:PATH",
        ),
        (
            lambda: Hooks(rate_limit_service="limits"),
            "--rate-limit-service: got 'limits', expected HOST:PORT, [IPV6]:PORT or unix:PATH",
        ),
        (
            lambda: Hooks(rate_limit_by=("address", "user")),
            "--rate-limit-by: got 'user', expected address, path or header:NAME",
        ),
        (
            lambda: Hooks(rate_limit_by=("header:",)),
            "--rate-limit-by: got 'header:', expected address, path or header:NAME",
        ),
        (
            lambda: Hooks(local_rate_limit=10, local_rate_limit_burst=5),
            "--local-rate-limit-burst: got 5, expected at least --local-rate-limit, 10",
        ),
        (
            lambda: Web(cors_origin=("example.org",)),
            "--cors-origin: got 'example.org', expected one such as https://example.org, or *",
        ),
        (
            lambda: Web(cors_origin=("https://example.org/",)),
            "--cors-origin: got 'https://example.org/', expected one such as"
            " https://example.org, or *",
        ),
    ],
)
def test_what_is_refused(make: Callable[[], object], text: str) -> None:
    """The error names the option and says what to write."""
    with pytest.raises(ProxyError) as caught:
        make()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("upstream", "tls"),
    [
        (Upstream(), None),
        (Upstream(upstream_ca="ca", upstream_name="shop"), TLS(ca="ca", name="shop")),
        (
            Upstream(upstream=("a:1", "a:2", "127.0.0.1:3"), upstream_ca="ca"),
            TLS(ca="ca", name="a"),
        ),
        (
            Upstream(upstream=("a:1",), upstream_ca="ca", upstream_name="b"),
            TLS(ca="ca", name="b"),
        ),
        (
            Upstream(
                upstream_cert="cert", upstream_key="key", upstream_ca="ca", upstream_name="shop"
            ),
            TLS("cert", "key", "ca", "shop"),
        ),
    ],
)
def test_tls_to_servers(upstream: Upstream, tls: TLS | None) -> None:
    """With authorities it is TLS; the name is the one that is said, or the one that there is."""
    assert upstream.tls == tls


def test_a_proxy_is_equal_to_one_that_says_the_same() -> None:
    """Settings are values, and no admin is none."""
    assert Proxy() == Proxy(front=Front(), web=Web())
    assert Front(admin="").admin_at is None
