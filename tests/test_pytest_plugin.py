"""The fixtures, as a project that has dynserve installed sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dynserve import App, Client, Kind
from tests.echo import Item, app_with

TESTS = """
import sys

LOADED = "dynserve.testing" in sys.modules or "grpc" in sys.modules

import pytest
import dynserve

ECHO = '''
    syntax = "proto3"; package t;
    message M { int32 n = 1; }
    service S { rpc Do(M) returns (M); }
'''

def app_with(handler):
    app = dynserve.App(ECHO)
    app.rpc("t.S/Do")(handler)
    return app


def test_nothing_is_imported_before_it_is_used():
    assert not LOADED


class TestClient:
    @pytest.fixture
    def dynserve_app(self):
        return app_with(lambda request: {"n": request.n + 1})

    def test_a_client_is_there(self, dynserve_client):
        assert dynserve_client.service("t.S").Do(n=1).n == 2


def test_an_app_is_served(dynserve_serve):
    first = dynserve_serve(app_with(lambda request: {"n": 1}))
    second = dynserve_serve(app_with(lambda request: {"n": 2}), unix=True)
    assert [client.service("t.S").Do().n for client in (first, second)] == [1, 2]


def test_what_a_handler_raises_is_raised(dynserve_serve):
    def handler(request):
        raise KeyError("x")

    with pytest.raises(KeyError):
        dynserve_serve(app_with(handler)).service("t.S").Do()


def test_without_an_app(dynserve_client):
    pass
"""


def test_fixtures_are_there_wherever_dynserve_is_installed(tmp_path: Path) -> None:
    """By the entry point, without a word in a conftest; a missing app says what to write."""
    (tmp_path / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "4 passed, 1 error" in done.stdout, done.stdout + done.stderr
    text = "dynserve_client needs a fixture dynserve_app that returns the App to serve"
    assert f"Failed: {text}" in done.stdout


@pytest.fixture
def dynserve_app() -> App:
    """What is served here."""
    return app_with(lambda request: request, Kind.UNARY_UNARY)


def test_a_client_of_an_app(dynserve_client: Client, dynserve_serve: Callable[..., Client]) -> None:
    """The fixtures are those of this project's own tests, too."""
    other = dynserve_serve(app_with(lambda request: Item(number=7), Kind.UNARY_UNARY))
    numbers = [client.service("echo.Echo").Unary().number for client in (dynserve_client, other)]
    assert numbers == [0, 7]
