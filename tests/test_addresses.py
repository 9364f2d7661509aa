"""Addresses: what they look like, and why one cannot be had."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from dynserve import AddressError
from dynserve.addresses import add_port
from dynserve.engine.base import Engine
from dynserve.engines import engine_maker

pytestmark = pytest.mark.usefixtures("engine")

EXPECTED = "expected HOST:PORT, [IPV6]:PORT or unix:PATH"
RANGE = "a port is a number from 0 to 65535"


def listened_on(address: str) -> str:
    """What is said to be listened on, where that works."""

    async def main() -> str:
        engine: Engine = engine_maker(os.environ["DYNSERVE_ENGINE"])([])
        try:
            return add_port(engine, address, None)
        finally:
            await engine.start()
            await engine.stop(None)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("localhost", EXPECTED),
        ("localhost:http", EXPECTED),
        ("127.0.0.1:0\n", EXPECTED),
        ("127.0.0.1:\u0663", EXPECTED),
        ("::1:0", EXPECTED),
        ("", EXPECTED),
        (":", EXPECTED),
        (
            ":8080",
            f"{EXPECTED}; did you mean 127.0.0.1:8080 (this machine) or 0.0.0.0:8080"
            " (every network)?",
        ),
        (
            "50051",
            f"{EXPECTED}; did you mean 127.0.0.1:50051 (this machine) or 0.0.0.0:50051"
            " (every network)?",
        ),
        ("99999", EXPECTED),
        ("9" * 500, EXPECTED),
        ("localhost:65536", RANGE),
        (f"localhost:{'9' * 5000}", RANGE),
    ],
)
def test_what_is_no_address_is_a_wrong_word(address: str, problem: str) -> None:
    """The error says what to write; the exit code is that of a wrong command."""
    with pytest.raises(AddressError) as caught:
        listened_on(address)
    assert (caught.value.problem, caught.value.exit_code) == (problem, 2)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("unix:/no/such/folder/socket", "no folder '/no/such/folder'"),
        ("unix:", "expected a path after unix:"),
        (f"unix:/tmp/{'x' * 200}", "the path of a unix socket has at most 107 bytes"),
        ("192.0.2.1:0", "Cannot assign requested address"),
    ],
)
def test_an_address_that_cannot_be_had_says_why(address: str, problem: str) -> None:
    """The system's own reason, in words."""
    with pytest.raises(AddressError) as caught:
        listened_on(address)
    assert (caught.value.problem, caught.value.exit_code) == (problem, 1)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64, "\u00e9..x"])
def test_a_host_that_is_not_known_says_so(host: str) -> None:
    """A name that does not resolve, or is none, is told from a port that is taken."""
    with pytest.raises(AddressError) as caught:
        listened_on(f"{host}:80")
    assert caught.value.problem.startswith("the host is not known: ")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:00000", "[::1]:0"])
def test_the_port_that_the_system_chose_is_reported(address: str) -> None:
    """However the zero was written."""
    host, _, port = listened_on(address).rpartition(":")
    assert host == address.rpartition(":")[0]
    assert 0 < int(port) <= 65535


def test_a_path_is_reported_as_it_is(tmp_path: Path) -> None:
    """A path that ends like a port is a path."""
    address = f"unix:{tmp_path}/s:0"
    assert listened_on(address) == address
