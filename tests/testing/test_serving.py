"""An app served for a test: what is served, what is raised, and when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

import dynserve
from dynserve import App, Kind, StatusError
from dynserve.testing import serve
from tests.client.worlds import World, every_world, in_world
from tests.echo import PATHS, Item, app_with, request_for, schema

every_kind = pytest.mark.parametrize("kind", list(Kind), ids=str)
INTERNAL = grpc.StatusCode.INTERNAL


class MistakeError(Exception):
    pass


def mistaken(kind: Kind, is_async: bool) -> Any:
    """A handler of the kind that raises what nobody foresaw."""

    def unary(_: Any) -> Any:
        raise MistakeError("oh") from KeyError("why")

    def stream(_: Any) -> Iterator[Any]:
        yield Item()
        unary(_)

    async def async_unary(_: Any) -> Any:
        unary(_)

    async def async_stream(_: Any) -> AsyncIterator[Any]:
        yield Item()
        unary(_)

    if is_async:
        return async_stream if kind.response_streaming else async_unary
    return stream if kind.response_streaming else unary


@every_kind
@every_world
@pytest.mark.parametrize("is_async", [False, True], ids=["sync handler", "async handler"])
def test_what_a_handler_raises_is_raised_by_the_call(
    kind: Kind, world: World, is_async: bool, engine: str
) -> None:
    """The exception itself, with its cause; nothing is left for the end."""
    app = app_with(mistaken(kind, is_async), kind)
    with pytest.raises(MistakeError) as caught:
        in_world(world, app, PATHS[kind], request_for(kind, 1))
    assert str(caught.value) == "oh"
    assert isinstance(caught.value.__cause__, KeyError)


@every_world
def test_what_a_peer_sees_can_be_seen(world: World) -> None:
    """INTERNAL with an error id, and nothing at the end."""
    app = app_with(mistaken(Kind.UNARY_UNARY, False), Kind.UNARY_UNARY)
    with pytest.raises(StatusError) as caught:
        in_world(world, app, "echo.Echo/Unary", server={"raise_server_exceptions": False})
    assert caught.value.code() is INTERNAL
    assert caught.value.details().startswith("internal error (error id ")


@every_world
def test_a_status_is_no_mistake(world: World) -> None:
    """What a handler says by a StatusError, abort or an exception handler stays a status."""

    def handler(_: Any) -> Any:
        raise StatusError(grpc.StatusCode.NOT_FOUND, "none")

    with pytest.raises(StatusError) as caught:
        in_world(world, app_with(handler, Kind.UNARY_UNARY), "echo.Echo/Unary")
    assert str(caught.value) == "NOT_FOUND: none"


def left_behind(count: int) -> tuple[App, Any]:
    """An app whose calls nobody waits for, and a function that has so many of them fail."""
    done = threading.Semaphore(0)

    def handler(_: Any) -> Iterator[Any]:
        try:
            yield Item()
            raise MistakeError("unseen")
        finally:
            done.release()

    def fail(client: Any) -> None:
        for _ in range(count):
            responses = client.method("echo.Echo/Down")({})
            next(responses)
            assert done.acquire(timeout=20)
            kept.append(responses)  # dropping it would cancel the call

    kept: list[Any] = []
    return app_with(handler, Kind.UNARY_STREAM), fail


def test_what_no_call_raised_is_raised_at_the_end() -> None:
    """Once the server has stopped."""
    app, fail = left_behind(1)
    with pytest.raises(MistakeError) as caught, serve(app) as client:
        fail(client)
    assert str(caught.value) == "unseen"


def test_several_are_raised_together() -> None:
    """As a group where Python has such, else the first."""
    app, fail = left_behind(2)
    with pytest.raises(Exception) as caught, serve(app) as client:  # noqa: PT011 - which, below
        fail(client)
    errors = getattr(caught.value, "exceptions", [caught.value] * 2)
    assert [str(error) for error in errors] == ["unseen", "unseen"]


def test_a_test_that_fails_keeps_its_own_error() -> None:
    """What the server raised does not hide it."""
    app, fail = left_behind(1)
    with pytest.raises(ZeroDivisionError), serve(app) as client:
        print(fail(client) or 1 // 0)


def test_what_is_left_on_the_loop_is_raised_too() -> None:
    """By the async with, as by the with."""

    async def handler(_: Any) -> Any:
        raise MistakeError("unseen")

    async def main() -> None:
        async with serve(app_with(handler, Kind.UNARY_UNARY)) as client:
            call = (await client.method("echo.Echo/Unary"))({})
            await call.code()

    with pytest.raises(MistakeError, match="unseen"):
        asyncio.run(main())


@every_world
def test_the_end_cancels_what_is_under_way(world: World) -> None:
    """A call that nobody ended is cancelled, and its handler has ended when the block has."""
    ended = []

    def handler(_: Any, context: Any) -> Iterator[Any]:
        over = threading.Event()
        context.add_callback(over.set)
        yield Item()
        ended.append(over.wait(20))

    app = app_with(handler, Kind.UNARY_STREAM)
    if world == "sync":
        with serve(app) as client:
            responses = client.method("echo.Echo/Down")({})
            next(responses)
    else:

        async def main() -> None:
            async with serve(app) as on_loop:
                call = (await on_loop.method("echo.Echo/Down"))({})
                await call.read()

        asyncio.run(main())
    assert ended == [True]


@every_world
def test_it_is_served_on_a_unix_socket(world: World) -> None:
    """In a folder that is gone afterwards."""
    targets = []

    def handler(_: Any, context: Any) -> Any:
        return Item(text=context.peer())

    app = app_with(handler, Kind.UNARY_UNARY)
    if world == "sync":
        with serve(app, unix=True) as client:
            targets.append(client.target)
            text = client.method("echo.Echo/Unary")().text
    else:

        async def main() -> str:
            async with serve(app, unix=True) as on_loop:
                targets.append(on_loop.target)
                return str((await (await on_loop.method("echo.Echo/Unary"))()).text)

        text = asyncio.run(main())
    path = targets[0].removeprefix("unix:")
    assert (text[:5], targets[0][:6], os.path.exists(os.path.dirname(path))) == (
        "unix:",
        "unix:/",
        False,
    )


def test_mounted_apps_are_told_by_reflection() -> None:
    """Each has its schema; the client finds the services of all, and what they raise."""
    inner = App('syntax="proto3"; package in; message M {} service S { rpc Do(M) returns (M); }')

    @inner.rpc("in.S/Do")
    def do(_: Any) -> Any:
        raise MistakeError("inner")

    outer = app_with(lambda request: request, Kind.UNARY_UNARY)
    outer.mount(inner)
    with serve(outer) as client:
        assert "in.S" in client.services()
        assert client.service("echo.Echo").Unary(number=3).number == 3
        with pytest.raises(MistakeError, match="inner"):
            client.service("in.S").Do()


def test_what_cannot_be_served_is_told_when_the_block_is_entered() -> None:
    """And nothing is left running, nobody told of what handlers raise."""
    app = App(schema=schema)
    app.rpc("echo.Echo/Nope")(lambda request: request)
    with pytest.raises(dynserve.BindError), serve(app):
        pass

    app = app_with(lambda request: request, Kind.UNARY_UNARY)
    serving = serve(app, client={"tls": "/none.pem"})
    with pytest.raises(dynserve.CredentialsError), serving:
        pass
    assert [unit.rules.witnesses for unit in app.units()] == [()]

    async def main() -> None:
        async with serve(app, client={"token": "in the clear"}):
            pass

    with pytest.raises(dynserve.CredentialsError):
        asyncio.run(main())
    assert [unit.rules.witnesses for unit in app.units()] == [()]


def test_an_exception_keeps_its_own_context(engine: str) -> None:
    """What the handler was handling when it failed, not what gRPC raised in the client."""
    caught: list[Any] = []

    def handler(_: Any) -> Any:
        try:
            raise KeyError("first")
        except KeyError:
            raise MistakeError("then")  # noqa: B904 - the context is what this is about

    app = app_with(handler, Kind.UNARY_UNARY)
    for world in ("sync", "async"):
        with pytest.raises(MistakeError) as error:
            in_world(world, app, "echo.Echo/Unary")
        frames = [entry.name for entry in error.traceback]
        context, cause = error.value.__context__, error.value.__cause__
        caught.append((repr(context), cause, error.value.__suppress_context__, frames[-1]))
    assert caught == [("KeyError('first')", None, False, "handler")] * 2


def fails(client: Any) -> bool:
    """Whether the call raises what the handler raised."""
    with pytest.raises(MistakeError):
        client.method("echo.Echo/Unary")()
    return True


def test_an_app_can_be_served_twice_at_a_time() -> None:
    """Each is told, whichever the other's end is; what a call raised is not raised again."""
    app = app_with(mistaken(Kind.UNARY_UNARY, False), Kind.UNARY_UNARY)
    with serve(app) as outer:
        with serve(app) as inner:
            assert (fails(outer), fails(inner)) == (True, True)
        assert fails(outer)
    assert [unit.rules.witnesses for unit in app.units()] == [()]

    first, second = serve(app), serve(app)
    one, two = first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    assert fails(two)
    second.__exit__(None, None, None)
    assert (one.target == two.target, [u.rules.witnesses for u in app.units()]) == (False, [()])


def test_what_is_left_is_raised_once() -> None:
    """By the end that comes first, of an app that is served twice."""
    app, fail = left_behind(1)
    with serve(app), pytest.raises(MistakeError, match="unseen"), serve(app) as inner:
        fail(inner)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "a handler raised SystemExit: 3"),
        (GeneratorExit(), "a handler raised GeneratorExit"),
        (asyncio.CancelledError(), "a handler raised CancelledError"),
        (KeyboardInterrupt(), "a handler raised KeyboardInterrupt"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_would_end_the_test_run_is_raised_as_an_error(error: BaseException, text: str) -> None:
    """By the call, or at the end; where it is from can be seen."""

    def handler(_: Any) -> Any:
        raise error

    app = app_with(handler, Kind.UNARY_UNARY)
    with pytest.raises(RuntimeError) as by_call, serve(app) as client:
        client.method("echo.Echo/Unary")()
    with pytest.raises(RuntimeError) as at_end, serve(app) as client:
        assert client.method("echo.Echo/Unary").future().code() is INTERNAL
    assert [(str(one.value), one.value.__cause__) for one in (by_call, at_end)] == [
        (text, error),
        (text, error),
    ]


@every_world
def test_it_is_entered_once(world: World) -> None:
    """A second server would take the place of the first, which nobody could stop any more."""
    serving = serve(app_with(lambda request: request, Kind.UNARY_UNARY))

    async def twice_on_loop() -> None:
        async with serving, serving:
            pass

    def twice() -> None:
        with serving, serving:
            pass

    with pytest.raises(RuntimeError) as caught:
        twice() if world == "sync" else asyncio.run(twice_on_loop())
    assert str(caught.value) == "a Serving is entered once; call serve() again for another"


def test_a_server_has_its_options() -> None:
    """And the client its own."""

    def handler(_: Any, context: Any) -> Any:
        return Item(text=dict(context.invocation_metadata())["who"])

    app = app_with(handler, Kind.UNARY_UNARY)
    with contextlib.ExitStack() as exits:
        client = exits.enter_context(
            serve(app, client={"metadata": {"who": "me"}}, reflection=False, health=False)
        )
        assert client.service("echo.Echo").Unary().text == "me"
