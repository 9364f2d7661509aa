"""App: what a user composes and runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dynserve import App, Schema, Service, SourceError, StatusError
from dynserve.app import Defaults, defaults

from .conftest import Serve

pytestmark = pytest.mark.usefixtures("engine")

ITEM = """
syntax = "proto3";
package shop;
message Item { string name = 1; }
service Items { rpc Get(Item) returns (Item); }
"""
# The same file name, package and message type as above: another field, another service.
OTHER_ITEM = """
syntax = "proto3";
package shop;
message Item { int64 number = 7; }
service Numbers { rpc Next(Item) returns (Item); }
"""
schema = Schema.load(ITEM, cache=False)


def get(request: Any) -> Any:
    return {"name": request.name.upper()}


def test_the_schema_is_loaded_when_it_is_needed(tmp_path: Path) -> None:
    """An app can be made before its sources exist; its schema is then one and the same."""
    app = App(tmp_path / "item.proto")
    (tmp_path / "item.proto").write_text(ITEM)
    assert app.schema.declared_services == ("shop.Items",)
    assert app.schema is app.schema


def test_a_schema_can_be_given() -> None:
    """A schema that is there is taken as it is, but not together with sources."""
    assert App(schema=schema).schema is schema
    with pytest.raises(TypeError) as caught:
        App(ITEM, schema=schema)
    assert str(caught.value) == "give either sources or a schema, not both"


def test_a_service_is_one_object() -> None:
    """The same service is given every time, so that its handlers add up."""
    app = App(schema=schema)
    service = app.service("shop.Items")
    assert isinstance(service, Service)
    assert app.service("shop.Items") is service


def test_add_servicer_is_that_of_the_service() -> None:
    """A servicer is registered for the service that is named beside it."""
    app = App(schema=schema)
    servicer = object()
    app.add_servicer(servicer, "shop.Items")
    assert app.service("shop.Items").servicers == [servicer]


# ---- mounting


def test_apps_with_clashing_files_packages_and_types_are_served_together(
    tmp_path: Path, serve: Serve
) -> None:
    """Each app keeps its own schema: both are called in one server, each with its own types."""
    for name, text in (("one", ITEM), ("two", OTHER_ITEM)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "item.proto").write_text(text)
    one, two = App(tmp_path / "one"), App(tmp_path / "two")
    one.add(get, "shop.Items/Get")

    @two.rpc
    async def next(request: Any) -> Any:
        return {"number": request.number + 1}

    one.mount(two)
    with serve(one) as client:
        assert client.call("shop.Items/Get", {"name": "a"}).name == "A"
        client.app = two
        assert client.call("shop.Numbers/Next", {"number": 4}).number == 5


def test_mounting_comes_before_or_after_registering() -> None:
    """An app is bound as it is when the server is made, not as it was when it was mounted."""
    root, app = App(), App(schema=schema)
    root.mount(app)
    app.add(get)
    assert root.server().routes.holes == []
    assert "shop.Items" in root.server().routes.services


def test_the_tree_has_every_app_once() -> None:
    """An app that is mounted in two places is served once."""
    root, left, right, leaf = App(), App(), App(), App(schema=schema)
    for parent, child in ((root, left), (root, right), (left, leaf), (right, leaf)):
        parent.mount(child)
    assert root.tree() == [root, left, leaf, right]
    assert [unit.schema for unit in root.units()] == [schema]


def test_an_app_cannot_hold_itself() -> None:
    """Neither at once nor by way of others; nothing is mounted by the attempt."""
    one, two = App(), App()
    one.mount(two)
    for other in (one, two):
        with pytest.raises(ValueError, match="mounted") as caught:
            other.mount(one)
        assert str(caught.value) == "an app cannot be mounted in itself"
    assert (one.tree(), two.tree()) == ([one, two], [two])


def test_only_an_app_can_be_mounted() -> None:
    """Something else is refused when it is mounted, not when the server starts."""
    with pytest.raises(TypeError) as caught:
        App().mount(Service("a.B"))  # type: ignore[arg-type]
    assert str(caught.value) == ("got <Service a.B: 0 handlers> to mount, expected an App")


# ---- exceptions


def test_exception_handlers_map_exceptions_to_statuses(serve: Serve) -> None:
    """The handler of the nearest class is asked, for sync and async alike; each app has its own."""
    app, other = App(schema=schema), App(OTHER_ITEM)

    @app.exception_handler(LookupError)
    def not_found(error: Exception) -> StatusError:
        return StatusError(grpc.StatusCode.NOT_FOUND, f"no {error.args[0]}")

    assert not_found(KeyError("x")).details() == "no x"

    @other.exception_handler(Exception)
    def unavailable(error: Exception) -> StatusError:
        return StatusError(grpc.StatusCode.UNAVAILABLE, "later")

    @app.rpc("Get")
    def find(request: Any) -> Any:
        raise KeyError(request.name)

    @other.rpc("Next")
    async def fail(request: Any) -> Any:
        raise KeyError(request.number)

    app.mount(other)
    got = []
    with serve(app) as client:
        for client.app, path in ((app, "shop.Items/Get"), (other, "shop.Numbers/Next")):
            with pytest.raises(grpc.RpcError) as caught:
                client.call(path, {"name": "it"} if client.app is app else {"number": 1})
            got.append((caught.value.code(), caught.value.details()))
    assert got == [(grpc.StatusCode.NOT_FOUND, "no it"), (grpc.StatusCode.UNAVAILABLE, "later")]


def test_an_exception_handler_may_be_for_its_very_class(serve: Serve) -> None:
    """A type checker takes a function of the class that it is registered for."""

    class Missing(LookupError):
        name = "it"

    app = App(schema=schema)

    @app.exception_handler(Missing)
    def missing(error: Missing) -> StatusError:
        return StatusError(grpc.StatusCode.NOT_FOUND, error.name)

    @app.rpc("Get")
    def find(request: Any) -> Any:
        raise Missing

    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call("shop.Items/Get", {})
    assert caught.value.details() == "it"


def test_an_exception_class_has_one_handler() -> None:
    """A second handler for a class is refused, and so is one for no exception class."""
    app = App()

    def rule(error: Exception) -> StatusError:
        return StatusError(grpc.StatusCode.ABORTED, str(error))

    assert app.exception_handler(KeyError)(rule) is rule
    with pytest.raises(ValueError, match="KeyError") as caught:
        app.exception_handler(KeyError)(rule)
    assert str(caught.value) == f"KeyError has an exception handler: {rule!r}"
    with pytest.raises(TypeError) as wrong:
        app.exception_handler(KeyboardInterrupt)(rule)  # type: ignore[type-var, arg-type]
    assert str(wrong.value) == ("got <class 'KeyboardInterrupt'>, expected an exception class")


# ---- defaults of plugins


def test_apps_made_by_a_plugin_get_its_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources for apps that name none, roots for all, and a place to find relative sources."""
    (tmp_path / "common.proto").write_text(ITEM)
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "mine.proto").write_text('syntax = "proto3"; import "common.proto";')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with defaults(Defaults((ITEM,), (tmp_path, "../search"), (tmp_path / "search",))):
        bare, own, given = App(), App("mine.proto"), App(schema=schema)
    assert [app.takes_default_sources for app in (bare, own, given)] == [True, False, False]
    assert bare.schema.declared_services == ("shop.Items",)
    assert own.schema.services == ("shop.Items",)
    after = App("mine.proto")
    with pytest.raises(SourceError) as caught:
        _ = after.schema
    assert str(caught.value) == f"mine.proto: no such file or folder (looked in {Path.cwd()})"


# ---- running


@pytest.fixture
def stopper(tmp_path: Path) -> Iterator[tuple[str, list[Any]]]:
    """An address, and what a call of shop.Items/Get there gave; the call is followed by Ctrl-C."""
    address, got = f"unix:{tmp_path}/s", []

    def call_and_stop() -> None:
        soon = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50)]
        with grpc.insecure_channel(address, soon) as channel:
            call: Any = channel.unary_unary("/shop.Items/Get")
            got.append(call(b"\n\x01a", timeout=20, wait_for_ready=True))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=call_and_stop)
    thread.start()
    yield address, got
    thread.join()


def test_run_serves_until_a_signal(
    stopper: tuple[str, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """``app.run()`` says where it listens, serves, and returns when it is interrupted."""
    address, got = stopper
    app = App(schema=schema)
    app.add(get)
    app.run(address, grace=5)
    assert got == [b"\n\x01A"]
    assert capsys.readouterr() == ("", f"Listening on {address}\n")


def test_run_while_a_plugin_is_loaded_is_refused() -> None:
    """``dynserve run`` serves the app itself; the module would be served twice."""
    app = App(schema=schema)
    with defaults(Defaults()), pytest.raises(RuntimeError) as caught:
        app.run("127.0.0.1:0")
    assert str(caught.value) == (
        "app.run() in a module that is loaded as a plugin would serve it twice; put it under:"
        " if __name__ == '__main__':"
    )


def test_nothing_to_serve_is_an_error() -> None:
    """Neither a source nor a handler, not even in what is mounted."""
    app = App()
    app.mount(App())
    assert app.is_empty()
    with pytest.raises(SourceError) as caught:
        app.server()
    assert str(caught.value) == (
        "App(): has no source and no handler; write App('my.proto'), or give --proto"
    )
    app.mount(App(schema=schema))
    assert list(app.server(reflection=False, health=False).routes.services) == ["shop.Items"]
