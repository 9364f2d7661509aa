"""Servers for hostile peers: each test runs on both engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wire.honest import Honest
from tests.wire.served import make_app


@pytest.fixture(scope="module", params=["queue", "aio"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engine by its name; that of ``tests/conftest.py`` varies the loop too."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def address(engine: str) -> Iterator[str]:
    """A server with nothing but its defaults, for all tests of a file."""
    with make_app().server("127.0.0.1:0", engine=engine).in_thread() as server:
        yield server.addresses[0]


@pytest.fixture
def honest(address: str) -> Iterator[Honest]:
    """A client with a connection from before the test."""
    with Honest(address) as client:
        yield client
