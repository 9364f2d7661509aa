"""Fixtures for pytest, wherever dynserve is installed; nothing is imported before one is used.

A test that takes ``dynserve_client`` says what to serve by a fixture of its own::

    @pytest.fixture
    def dynserve_app() -> App:
        return app


    def test_greeting(dynserve_client: Client) -> None:
        assert dynserve_client.service("helloworld.Greeter").SayHello(name="you").message
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dynserve.app import App
    from dynserve.client.sync import Client

__all__ = ["dynserve_app", "dynserve_client", "dynserve_serve"]


@pytest.fixture
def dynserve_app() -> App:
    """What ``dynserve_client`` serves; to be defined anew by who uses that."""
    pytest.fail("dynserve_client needs a fixture dynserve_app that returns the App to serve")


@pytest.fixture
def dynserve_client(dynserve_app: App) -> Iterator[Client]:
    """A client of ``dynserve_app``, which is served while the test runs."""
    from dynserve.testing import serve

    with serve(dynserve_app) as client:
        yield client


@pytest.fixture
def dynserve_serve() -> Iterator[Callable[..., Client]]:
    """Serves an app until the test ends, and returns a client: :func:`dynserve.testing.serve`."""
    from dynserve.testing import serve

    with contextlib.ExitStack() as exits:

        def serving(app: App, **options: Any) -> Client:
            return exits.enter_context(serve(app, **options))

        yield serving
