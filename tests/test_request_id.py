"""The id of a call: the client's where it can be trusted in a log, else one of our own."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dynserve import App, Kind
from dynserve.identity import Identity
from dynserve.request_id import request_id_of
from tests.conftest import Serve
from tests.echo import PATHS, Item, app_with, request_for, schema

OWN = re.compile(r"[0-9a-f]{32}")


@pytest.mark.parametrize(
    "value",
    ["r", "a" * 128, "0af7651916cd43dd8448eb211c80319c", "!#$%&'()*+,-./:;<=>?@[]^_`{|}~", '"\\'],
)
def test_a_sane_id_is_taken(value: str) -> None:
    """One to 128 printable characters without a space."""
    assert request_id_of([("x-other", "no"), ("x-request-id", value)]) == value


@pytest.mark.parametrize(
    "value", ["", "a" * 129, "two words", "line\nline", "line\n", "tab\t", "\x7f", "\u00e4", b"r"]
)
def test_any_other_is_replaced(value: str | bytes) -> None:
    """By a new one, so that no peer writes lines of its own into a log."""
    found = {request_id_of([("x-request-id", value)]) for _ in range(2)}
    assert len(found) == 2
    assert all(map(OWN.fullmatch, found))


def test_the_first_sane_one_counts() -> None:
    """Whatever is beside it; without any there is a new one each time."""
    key = "x-request-id"
    assert request_id_of([(key, "not sane"), (key, "first"), (key, "second")]) == "first"
    assert OWN.fullmatch(request_id_of([]))
    assert request_id_of([]) != request_id_of([])


def handler_of(kind: Kind, world: str, seen: list[Any]) -> Any:
    """A handler that answers its call's id, asked for twice."""

    def item(context: Any) -> Any:
        seen.append(context.request_id)
        return Item(text=context.request_id)

    def stream(_request: Any, context: Any) -> Iterator[Any]:
        yield item(context)

    async def unary_async(_request: Any, context: Any) -> Any:
        return item(context)

    async def stream_async(_request: Any, context: Any) -> AsyncIterator[Any]:
        yield item(context)

    if world == "sync":
        return stream if kind.response_streaming else lambda _request, context: item(context)
    return stream_async if kind.response_streaming else unary_async


@pytest.mark.parametrize("kind", list(Kind), ids=str)
@pytest.mark.parametrize("world", ["sync", "async"])
def test_all_of_a_call_have_the_same(serve: Serve, kind: Kind, world: str) -> None:
    """Handler, middleware, authenticator and observer; that of the client, or one made here."""
    seen: list[Any] = []
    ended = threading.Semaphore(0)

    class Observer:
        def begin(self, record: Any, /) -> None:
            seen.append(record.context.request_id)

        def end(self, record: Any, _token: None, /) -> None:
            seen.append(record.context.request_id)
            ended.release()

    def middleware(context: Any) -> Iterator[None]:
        seen.append(context.request_id)
        yield
        seen.append(context.request_id)

    def authenticate(context: Any) -> Any:
        seen.append(context.request_id)
        return Identity("ada", "test")

    app = app_with(handler_of(kind, world, seen), kind)
    app.add_middleware(middleware)
    app.auth(authenticate)
    calls = []
    with serve(app, observers=[Observer()]) as client:
        for metadata in ([("x-request-id", "r-1")], [("x-request-id", "r 2")], []):
            answer = client.call(PATHS[kind], request_for(kind, 0), metadata=metadata)
            (item,) = answer if kind.response_streaming else [answer]
            assert ended.acquire(timeout=20)
            calls.append((item.text, set(seen), len(seen)))
            seen.clear()
    ids = [text for text, _, _ in calls]
    assert calls == [(text, {text}, 6) for text in ids]
    assert ids[0] == "r-1"
    assert all(map(OWN.fullmatch, ids[1:]))
    assert ids[1] != ids[2]


@pytest.mark.parametrize("world", ["sync", "async"])
def test_without_anything_around_the_handler(serve: Serve, world: str) -> None:
    """The handler alone has one too."""
    app = App(schema=schema)
    app.add(handler_of(Kind.UNARY_UNARY, world, []), PATHS[Kind.UNARY_UNARY])
    with serve(app) as client:
        texts = [
            client.call("echo.Echo/Unary", Item(), metadata=metadata).text
            for metadata in ([("x-request-id", "r-1")], [])
        ]
    assert texts[0] == "r-1"
    assert OWN.fullmatch(texts[1])
