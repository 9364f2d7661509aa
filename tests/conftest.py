"""Fixtures that every test may use."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest

from dynserve import App
from tests.authority import Authority

ROOT = Path(__file__).parents[1]

Serve: TypeAlias = Callable[..., AbstractContextManager["Client"]]


class Client:
    """Calls an app that is served, by path, with messages of the app's schema."""

    def __init__(self, app: App, channel: grpc.Channel, address: str) -> None:
        self.app = app
        self.channel = channel
        self.address = address

    def method(self, path: str) -> Any:
        """The multicallable for ``pkg.Service/Method``, of the method's kind."""
        method = self.app.schema.method(path)
        make = getattr(self.channel, method.kind.name.lower())
        return make(
            method.path,
            request_serializer=lambda value: self.app.schema.convert(
                value, method.request
            ).SerializeToString(),
            response_deserializer=method.response.FromString,
        )

    def call(self, path: str, request: Any, **options: Any) -> Any:
        """Call a method: one request or a list of them, one response or a list of them."""
        method = self.app.schema.method(path)
        options.setdefault("timeout", 20)
        requests = iter(request) if method.kind.request_streaming else request
        response = self.method(path)(requests, **options)
        return list(response) if method.kind.response_streaming else response


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A compiler cache of the test run's own, so that no test sees the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNSERVE_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module", params=["queue", "loop", "uvloop", "aio"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """A test that asks for this runs on both engines; so do the processes that it starts.

    "loop" is the queue engine whose loop leads from the first async call on, "uvloop" is the queue
    engine on that loop; "aio" is on asyncio's own.
    """
    name: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNSERVE_ENGINE", "aio" if name == "aio" else "queue")
        if name == "uvloop":
            if sys.platform == "win32":
                pytest.skip("there is no uvloop for Windows")
            patch.setattr("dynserve.engine.queue.loop.QueueLoop.is_possible", lambda: False)
        if name == "aio":
            patch.setitem(sys.modules, "uvloop", None)
        if name == "loop":
            patch.setattr("dynserve.engine.queue.poller._PATIENCE", 1)
            patch.setattr("dynserve.engine.queue.poller._MOST_PATIENCE", 1)
        yield name


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> list[Authority]:
    """Two authorities that do not know each other."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("authorities")
    return [Authority(folder / name) for name in ("first", "second")]


@pytest.fixture
def serve(engine: str) -> Serve:
    """``with serve(app) as client``: the app on a port of its own, and a client for it."""

    @contextmanager
    def serving(app: App, **options: Any) -> Iterator[Client]:
        with app.server("127.0.0.1:0", **options).in_thread() as server:
            address = server.addresses[0]
            with grpc.insecure_channel(address) as channel:
                yield Client(app, channel, address)

    return serving


@pytest.fixture
def tool() -> Callable[[str], str]:
    """The path of an external tool; skips the test where it is missing, but fails it in CI."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            reason = f"{name} is not installed (.ci/run installs it)"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find
