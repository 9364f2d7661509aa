"""Endpoint: an address as a person writes it, and as Envoy reads it."""

from __future__ import annotations

from typing import Any

import pytest

from dynserve.envoy import Endpoint, ProxyError


@pytest.mark.parametrize(
    ("text", "endpoint", "is_name", "is_on_loopback", "address"),
    [
        (
            "127.0.0.1:80",
            Endpoint("127.0.0.1", 80),
            False,
            True,
            {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
        ),
        (
            "10.0.0.1:65535",
            Endpoint("10.0.0.1", 65535),
            False,
            False,
            {"socket_address": {"address": "10.0.0.1", "port_value": 65535}},
        ),
        (
            "[::1]:80",
            Endpoint("::1", 80),
            False,
            True,
            {"socket_address": {"address": "::1", "port_value": 80}},
        ),
        (
            "shop.default.svc:80",
            Endpoint("shop.default.svc", 80),
            True,
            False,
            {"socket_address": {"address": "shop.default.svc", "port_value": 80}},
        ),
        ("unix:/a/b", Endpoint("/a/b", None), False, True, {"pipe": {"path": "/a/b"}}),
        ("unix:///a/b", Endpoint("/a/b", None), False, True, {"pipe": {"path": "/a/b"}}),
    ],
)
def test_what_is_one(
    text: str, endpoint: Endpoint, is_name: bool, is_on_loopback: bool, address: dict[str, Any]
) -> None:
    """A host and a port, or a path; only a name needs DNS."""
    found = Endpoint.parse(text, "--upstream")
    assert found == endpoint
    assert (found.is_name, found.is_on_loopback) == (is_name, is_on_loopback)
    assert found.address() == address


_EXPECTED = "expected HOST:PORT, [IPV6]:PORT or unix:PATH"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", f"got '', {_EXPECTED}"),
        ("host", f"got 'host', {_EXPECTED}"),
        ("http://host:80", f"got 'http://host:80', {_EXPECTED}"),
        ("host:http", f"got 'host:http', {_EXPECTED}"),
        ("8080", f"got '8080', {_EXPECTED}; did you mean 127.0.0.1:8080?"),
        (":8080", f"got ':8080', {_EXPECTED}; did you mean 127.0.0.1:8080?"),
        ("::1:80", f"got '::1:80', {_EXPECTED}; did you mean [::1]:80?"),
        ("a:b:80", f"got 'a:b:80', {_EXPECTED}"),
        ("[host]:80", "got '[host]:80', expected an IPv6 address in the brackets"),
        ("host:0", "got 'host:0', expected a port from 1 to 65535"),
        ("host:65536", "got 'host:65536', expected a port from 1 to 65535"),
        ("unix:", "got 'unix:', expected a path after unix:"),
    ],
)
def test_what_is_none(text: str, problem: str) -> None:
    """The error names the option, and what is meant where that can be told."""
    with pytest.raises(ProxyError) as caught:
        Endpoint.parse(text, "--upstream")
    assert str(caught.value) == f"--upstream: {problem}"
    assert (caught.value.setting, caught.value.problem) == ("--upstream", problem)
    assert caught.value.exit_code == 2


def test_the_system_may_choose_a_port() -> None:
    """Port 0 is one only where Envoy listens itself."""
    assert Endpoint.parse("127.0.0.1:0", "--listen", lowest_port=0) == ("127.0.0.1", 0)
    with pytest.raises(ProxyError) as caught:
        Endpoint.parse("127.0.0.1:65536", "--listen", lowest_port=0)
    assert str(caught.value) == ("--listen: got '127.0.0.1:65536', expected a port from 0 to 65535")
