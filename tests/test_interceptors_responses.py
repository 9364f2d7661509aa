"""What handlers return, the user's and those of interceptors, and the bytes of it."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest

from dynserve import Kind
from tests.conftest import Serve
from tests.echo import Item
from tests.interceptors import (
    KINDS,
    Given,
    GivenAio,
    app_of,
    handlers_of,
    outcome,
    plus_ten,
    returning,
    stack,
)

every_world = pytest.mark.parametrize("world", ["sync", "async"])
every_outer = pytest.mark.parametrize("outer", ["S", "A"])
STACKS = ["S", "A", "SA", "AS", "SAS", "ASAS"]


# ---- handlers that interceptors return


@every_outer
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_handler_of_another_kind(serve: Serve, outer: str, kind: Kind) -> None:
    """A method handler over bytes that is stream-stream serves every method, as in gRPC."""

    def chat(requests: Any, context: Any) -> Any:
        for request in requests:
            yield Item(number=Item.FromString(request).number + 20).SerializeToString()

    async def chat_async(requests: Any, context: Any) -> Any:
        async for request in requests:
            yield Item(number=Item.FromString(request).number + 20).SerializeToString()

    behaviour = chat if outer == "S" else chat_async
    handler: Any = grpc.stream_stream_rpc_method_handler(behaviour)
    expected = {
        Kind.UNARY_UNARY: [21],
        Kind.UNARY_STREAM: [21],
        Kind.STREAM_UNARY: (grpc.StatusCode.INTERNAL, None),
        Kind.STREAM_STREAM: [21, 22],
    }
    with serve(app_of(handlers_of("sync", plus_ten), [returning(outer, handler)])) as client:
        got = outcome(client, kind)
    assert (got if isinstance(got, list) else (got[0], None)) == expected[kind]


@pytest.mark.parametrize("count", ["none", "more than one"])
@every_outer
def test_not_one_response(
    serve: Serve, outer: str, count: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A method with one response needs one, whatever kind of handler an interceptor returns."""
    responses = [Item()] * (0 if count == "none" else 2)

    def down(request: Any, context: Any) -> Any:
        yield from responses

    async def down_async(request: Any, context: Any) -> Any:
        for response in responses:
            yield response

    def serialize(item: Any) -> bytes:
        data: bytes = item.SerializeToString()
        return data

    behaviour = down if outer == "S" else down_async
    handler: Any = grpc.unary_stream_rpc_method_handler(behaviour, None, serialize)
    with serve(app_of(handlers_of("sync", plus_ten), [returning(outer, handler)])) as client:
        assert outcome(client, Kind.UNARY_UNARY)[0] is grpc.StatusCode.INTERNAL
    told = f"TypeError: echo.Echo/Unary has one response, its interceptors gave {count}\n"
    assert told in caplog.text


@every_outer
def test_serializers_of_an_interceptor(serve: Serve, outer: str) -> None:
    """Deserializer and serializer may be wrapped: they get the bytes of each message."""
    sizes: list[tuple[str, int]] = []

    def measured(handler: Any) -> Any:
        def deserialize(data: bytes) -> Any:
            sizes.append(("in", len(data)))
            return handler.request_deserializer(data)

        def serialize(message: Any) -> Any:
            data = handler.response_serializer(message)
            sizes.append(("out", len(data)))
            return data

        return handler._replace(request_deserializer=deserialize, response_serializer=serialize)

    async def intercept(continuation: Any, details: Any) -> Any:
        return measured(await continuation(details))

    given = Given(lambda go, details: measured(go(details)))
    interceptor = given if outer == "S" else GivenAio(intercept)
    with serve(app_of(handlers_of("async", plus_ten), [interceptor])) as client:
        for kind in KINDS:
            assert isinstance(outcome(client, kind), list)
    one, many = [("in", 2), ("out", 2)], [("in", 2), ("in", 2), ("out", 2)]
    assert sorted(sizes[:4]) == sorted([*one, *one])
    assert sizes[4:7] == many
    assert sorted(sizes[7:]) == [("in", 2), ("in", 2), ("out", 2), ("out", 2)]


# ---- what handlers may return


def listed(request: Any) -> Any:
    return [{"number": 1}, Item(number=2)]


async def listed_async(request: Any) -> Any:
    return [{"number": 1}, Item(number=2)]


async def written(request: Any, context: Any) -> None:
    await context.write({"number": 1})
    await context.write(Item(number=2))


async def written_and_yielded(request: Any, context: Any) -> Any:
    await context.write({"number": 1})
    yield {"number": 2}


async def sent(request: Any) -> Any:
    yield {"number": 1}
    yield {"number": 2}


@pytest.mark.parametrize("names", ["S", "A", "SA", "AS"])
@pytest.mark.parametrize(
    "handler",
    [
        listed,
        listed_async,
        written,
        written_and_yielded,
        lambda request: sent(request),  # noqa: PLW0108 - not async itself
        lambda request: listed_async(request),  # noqa: PLW0108 - as above
    ],
)
def test_a_stream_of_responses_in_any_form(serve: Serve, names: str, handler: Any) -> None:
    """Interceptors iterate over messages, however the handler gives them."""
    log: list[str] = []
    with serve(app_of({Kind.UNARY_STREAM: handler}, stack(names, log))) as client:
        assert outcome(client, Kind.UNARY_STREAM) == [1, 2]


@pytest.mark.parametrize("names", ["S", "A", "SA", "AS"])
def test_a_function_that_returns_a_coroutine(serve: Serve, names: str) -> None:
    """A lambda over an async function is awaited, and interceptors see its message."""

    async def late(request: Any) -> Any:
        return {"number": request.number + 1}

    log: list[str] = []
    handler: Any = lambda request: late(request)  # noqa: E731, PLW0108 - not async itself
    with serve(app_of({Kind.UNARY_UNARY: handler}, stack(names, log))) as client:
        assert outcome(client, Kind.UNARY_UNARY) == [2]
    assert f"{names[0]}0:Item" in log


@pytest.mark.parametrize("names", ["S", "A"])
@pytest.mark.parametrize("world", ["sync", "async"])
def test_no_stream(serve: Serve, names: str, world: str, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be iterated is an error of the handler's, and interceptors see it."""

    async def no_stream(request: Any) -> Any:
        return {"number": 1}

    handler = no_stream if world == "async" else lambda request: {"number": 1}
    log: list[str] = []
    with serve(app_of({Kind.UNARY_STREAM: handler}, stack(names, log))) as client:
        assert outcome(client, Kind.UNARY_STREAM)[0] is grpc.StatusCode.INTERNAL
    assert log[1] == f"{names}0!TypeError"
    assert (
        "TypeError: echo.Echo/Down responds with a stream, but its handler returned dict;"
        " yield the messages, or return a list of them\n"
    ) in caplog.text
