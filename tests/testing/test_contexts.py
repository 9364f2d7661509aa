"""Handlers called without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from dynserve import App, AsyncContext, Context, StatusError
from dynserve.testing import FakeAsyncContext, FakeContext, serve
from tests.echo import ECHO, Item

AUTH = {"x509_common_name": [b"me"], "transport_security_type": [b"ssl"]}
ASKED: dict[str, Any] = {
    "metadata": {"user": "ada", "key-bin": b"\xff"},
    "time_remaining": 2.5,
    "peer": "unix:",
    "auth": AUTH,
}


def say(context: Any) -> None:
    """All that a handler can say without waiting."""
    context.set_trailing_metadata([("end", "e")])
    context.set_code(grpc.StatusCode.ABORTED)
    context.set_details("said")
    context.set_compression(grpc.Compression.Gzip)
    context.disable_next_message_compression()


def asked(context: Any) -> list[Any]:
    """All that a handler can ask."""
    return [
        context.invocation_metadata(),
        context.time_remaining(),
        context.peer(),
        context.peer_identity_key(),
        context.peer_identities(),
        context.auth_context(),
    ]


ANSWERS = [
    (("user", "ada"), ("key-bin", b"\xff")),
    2.5,
    "unix:",
    "x509_common_name",
    [b"me"],
    AUTH,
]


def test_a_sync_handler_is_called_as_the_function_that_it_is() -> None:
    """Decorators return it unchanged; what it asks is as was said, what it says can be asked."""
    app = App(ECHO)

    @app.rpc
    def unary(request: Any, context: Context) -> Any:
        assert asked(context) == ANSWERS
        context.send_initial_metadata([("start", "s")])
        say(context)
        return Item(number=request.number + 1)

    method = app.schema.method("echo.Echo/Unary")
    context = FakeContext(method, **ASKED)
    assert unary(Item(number=1), context).number == 2
    assert (context.method, context.initial_metadata) == (method, (("start", "s"),))
    assert (context.code(), context.details()) == (grpc.StatusCode.ABORTED, "said")
    assert context.trailing_metadata() == (("end", "e"),)


def test_streams_are_iterators() -> None:
    """A handler of streams takes any iterable and gives what it yields."""
    app = App(ECHO)

    @app.rpc
    def chat(requests: Iterator[Any], context: Context) -> Iterator[Any]:
        for request in requests:
            if context.is_active():
                yield request
                context.cancel()

    context = FakeContext()
    assert [item.number for item in chat(iter([Item(number=1), Item()]), context)] == [1]


def test_an_abort_is_raised() -> None:
    """As the status that the peer would get."""
    context = FakeContext()
    with pytest.raises(StatusError) as caught:
        context.abort(grpc.StatusCode.NOT_FOUND, "none")
    assert str(caught.value) == "NOT_FOUND: none"
    assert (context.code(), context.details()) == (grpc.StatusCode.NOT_FOUND, "none")


def test_what_was_not_said_is_as_without_it() -> None:
    """No metadata, no deadline, nobody known, nothing sent."""
    context = FakeContext()
    assert asked(context) == [(), None, "ipv4:127.0.0.1:50000", None, None, {}]
    assert (context.code(), context.details(), context.trailing_metadata()) == (None, "", ())
    assert context.initial_metadata is None


def test_the_end_of_a_call_is_told() -> None:
    """Callbacks are called once, and none is taken afterwards."""
    context, told = FakeContext(), []
    assert context.add_callback(lambda: told.append(1))
    assert (context.is_active(), context.cancel(), context.is_active()) == (True, True, False)
    assert (context.cancel(), context.add_callback(lambda: told.append(2)), told) == (
        False,
        False,
        [1],
    )
    assert context.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("make", [FakeContext, FakeAsyncContext])
def test_a_callback_that_fails_keeps_no_other_from_being_called(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As where there is a call: what it raises is logged."""
    context = make()
    told = []

    def fail(*_: Any) -> None:
        told.append("fails")
        raise KeyError("mine")

    add = context.add_callback if make is FakeContext else context.add_done_callback
    add(fail)
    add(lambda *_: told.append("other"))
    assert (context.cancel(), told) == (True, ["fails", "other"])
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("dynserve.testing", "a callback at the end of a call failed")
    ]


def test_a_call_past_its_deadline_is_over() -> None:
    """As where there is a call: it is not active, and cannot be cancelled."""
    context, told = FakeContext(time_remaining=0.0), []
    assert not context.add_callback(lambda: told.append(1))
    assert (context.is_active(), context.cancel(), context.code(), told) == (
        False,
        False,
        None,
        [],
    )
    on_loop = FakeAsyncContext(time_remaining=0.0)
    assert (on_loop.done(), on_loop.cancelled(), on_loop.cancel()) == (True, True, False)


def test_what_grpc_refuses_is_refused() -> None:
    """Metadata that cannot be sent, and initial metadata that comes a second time."""
    with pytest.raises(ValueError, match="characters other than"):
        FakeContext(metadata={"Bad Key": "x"})
    context = FakeContext()
    context.send_initial_metadata([])
    with pytest.raises(ValueError, match="no longer allowed"):
        context.send_initial_metadata([])


def test_an_async_handler_is_called_as_the_function_that_it_is() -> None:
    """It reads the requests, and what it writes is kept, beside what it says and asks."""
    app = App(ECHO)

    @app.rpc
    async def chat(_: Any, context: AsyncContext) -> None:
        assert asked(context) == ANSWERS
        await context.send_initial_metadata([("start", "s")])
        say(context)
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write({"number": request.number})

    context = FakeAsyncContext(requests=[Item(number=1), Item(number=2)], **ASKED)
    asyncio.run(chat(None, context))
    assert context.written == [{"number": 1}, {"number": 2}]
    assert context.initial_metadata == (("start", "s"),)
    assert context.trailing_metadata() == (("end", "e"),)


def test_an_async_call_can_be_cancelled() -> None:
    """Callbacks get the context; an abort is raised there, too."""
    context = FakeAsyncContext()
    told: list[Any] = []
    context.add_done_callback(told.append)
    assert (context.done(), context.cancelled(), context.cancel()) == (False, False, True)
    assert (context.done(), context.cancelled(), told) == (True, True, [context])
    with pytest.raises(StatusError, match="NOT_FOUND: none"):
        context.abort(grpc.StatusCode.NOT_FOUND, "none")


@pytest.mark.parametrize("is_late", [False, True], ids=["cancelled", "past its deadline"])
def test_an_async_call_that_is_over_is_cancelled(is_late: bool) -> None:
    """What it awaits raises, as where there is a call; a callback is told at once."""
    context = FakeAsyncContext(requests=[Item()], time_remaining=0.0 if is_late else 1.0)
    if not is_late:
        context.cancel()

    async def main() -> None:
        for awaited in (context.read(), context.write(Item()), context.send_initial_metadata([])):
            with pytest.raises(asyncio.CancelledError):
                await awaited

    asyncio.run(main())
    told: list[Any] = []
    context.add_done_callback(told.append)
    assert (context.written, context.initial_metadata, told) == ([], None, [context])


def test_what_a_real_call_does_at_its_end_is_the_same(engine: str) -> None:
    """A handler that goes on after its call was cancelled finds what the fake context has."""

    async def ended(context: AsyncContext, told: asyncio.Queue[Any]) -> list[Any]:
        found: list[Any] = []
        for awaited in (context.write(Item()), context.send_initial_metadata([])):
            try:
                await awaited
            except BaseException as error:
                found.append(type(error))
        context.add_done_callback(told.put_nowait)
        return found

    async def real() -> list[Any]:
        told: asyncio.Queue[Any] = asyncio.Queue()
        begun = asyncio.Event()
        found: list[Any] = []

        async def down(_: Any, context: AsyncContext) -> AsyncIterator[Any]:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                found.extend(await ended(context, told))
                found.append(context)
                raise
            yield Item()

        app = App(ECHO)
        app.rpc(down)
        async with serve(app) as client:
            call = (await client.method("echo.Echo/Down"))({})
            await asyncio.wait_for(begun.wait(), 20)
            call.cancel()
            is_told = await asyncio.wait_for(told.get(), 20) is found.pop()
        return [*found, is_told]

    async def fake() -> list[Any]:
        told: asyncio.Queue[Any] = asyncio.Queue()
        context = FakeAsyncContext()
        context.cancel()
        return [*await ended(context, told), told.get_nowait() is context]

    assert asyncio.run(fake()) == asyncio.run(real()) == [asyncio.CancelledError] * 2 + [True]


def test_async_streams_are_async_iterators() -> None:
    """As for sync handlers."""
    app = App(ECHO)

    @app.rpc
    async def chat(requests: AsyncIterator[Any], context: AsyncContext) -> AsyncIterator[Any]:
        async for request in requests:
            yield request

    async def given() -> AsyncIterator[Any]:
        yield Item(number=1)

    async def main() -> list[int]:
        return [item.number async for item in chat(given(), FakeAsyncContext())]

    assert asyncio.run(main()) == [1]
