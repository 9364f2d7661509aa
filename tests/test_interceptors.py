"""Interceptors of grpcio and of grpc.aio, around handlers of either world, over real servers."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import grpc
import grpc.aio
import pytest

from dynserve import Kind, StatusError
from dynserve.interceptors import checked_interceptor, is_interceptor
from tests.conftest import Serve
from tests.echo import PATHS, Item
from tests.interceptors import (
    KINDS,
    Aio,
    Given,
    GivenAio,
    Sync,
    app_of,
    fit,
    handlers_of,
    outcome,
    plus_ten,
    returning,
    stack,
)

every_world = pytest.mark.parametrize("world", ["sync", "async"])
every_outer = pytest.mark.parametrize("outer", ["S", "A"])
STACKS = ["S", "A", "SA", "AS", "SAS", "ASAS"]


# ---- all that there are, in order


@every_world
@pytest.mark.parametrize("names", STACKS)
def test_every_combination(serve: Serve, world: str, names: str) -> None:
    """Each interceptor wraps the next, sees messages, and the client gets what the handler gave."""
    log: list[str] = []
    expected = {KINDS[0]: [11], KINDS[1]: [11], KINDS[2]: [13], KINDS[3]: [11, 12]}
    with serve(app_of(handlers_of(world, plus_ten), stack(names, log))) as client:
        for kind in KINDS:
            log.clear()
            assert outcome(client, kind) == expected[kind]
            layers = [f"{letter}{place}" for place, letter in enumerate(names)]
            assert [entry for entry in log if entry[-1] == ">"] == [f"{one}>" for one in layers]
            ends = [entry for entry in log if entry[0] == "<"]
            assert ends == [f"<{one}" for one in reversed(layers)]
            for layer in layers:
                responses = [entry for entry in log if entry.startswith(f"{layer}:")]
                assert responses == [f"{layer}:Item"] * len(expected[kind])


def test_no_interceptors_is_the_handler_itself() -> None:
    """Nothing is put around a handler where there is nothing to put."""
    assert fit(plus_ten, Kind.UNARY_UNARY, []) is plus_ten


@pytest.mark.parametrize("names", ["S", "A", "SA", "AS"])
@every_world
def test_what_a_handler_raises(
    serve: Serve, world: str, names: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Interceptors see the exception itself; the client gets the status, or an id and no text."""
    log: list[str] = []

    def fail(request: Any, context: Any) -> Any:
        match dict(context.invocation_metadata()).get("how"):
            case "status":
                raise StatusError(grpc.StatusCode.ABORTED, "no", trailing_metadata=[("a", "b")])
            case "abort":
                context.abort(grpc.StatusCode.NOT_FOUND, "gone")
            case _:
                raise LookupError("secret")

    raised = {"status": "StatusError", "abort": "AbortError", "other": "LookupError"}
    with serve(app_of(handlers_of(world, fail), stack(names, log))) as client:
        for kind in KINDS:
            for how, told in (
                ("status", (grpc.StatusCode.ABORTED, "no")),
                ("abort", (grpc.StatusCode.NOT_FOUND, "gone")),
                ("other", None),
            ):
                log.clear()
                got = outcome(client, kind, metadata=[("how", how)])
                if told is None:
                    assert got[0] is grpc.StatusCode.INTERNAL
                    assert re.fullmatch(r"internal error \(error id [0-9a-f]+\)", got[1]), got
                else:
                    assert got == told
                noted = [entry for entry in log if "!" in entry]
                layers = [f"{letter}{place}" for place, letter in enumerate(names)]
                assert noted == [f"{one}!{raised[how]}" for one in reversed(layers)]
    assert "LookupError: secret" in caplog.text


@every_outer
@every_world
def test_an_interceptor_may_answer_for_a_handler_that_failed(
    serve: Serve, outer: str, world: str
) -> None:
    """Around a call it is a plain try/except, whatever the handler is."""

    def fail(request: Any, context: Any) -> Any:
        raise LookupError("secret")

    class Kind0(Sync):
        def unary(self, inner: Any) -> Any:
            def behaviour(request: Any, context: Any) -> Any:
                try:
                    return inner(request, context)
                except LookupError:
                    return Item(number=7)

            return behaviour

    class Kind1(Aio):
        def unary(self, inner: Any) -> Any:
            async def behaviour(request: Any, context: Any) -> Any:
                try:
                    return await inner(request, context)
                except LookupError:
                    return {"number": 7}

            return behaviour

    interceptor = Kind0() if outer == "S" else Kind1()
    with serve(app_of(handlers_of(world, fail), [interceptor])) as client:
        assert outcome(client, Kind.UNARY_UNARY) == [7]
        assert outcome(client, Kind.STREAM_UNARY) == [7]


# ---- what intercept_service may do


def abort(_request: Any, context: Any) -> Any:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


async def abort_async(_request: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


@every_world
@pytest.mark.parametrize("names", ["S", "A", "AS", "SA"])
@pytest.mark.parametrize("behaviour", [abort, abort_async])
def test_a_handler_that_aborts_for_any_kind(
    serve: Serve, world: str, names: str, behaviour: Any
) -> None:
    """The terminator of gRPC's examples is a unary-unary handler, and ends calls of every kind."""
    terminator: Any = grpc.unary_unary_rpc_method_handler(behaviour)
    interceptors = [*stack(names[:-1], []), returning(names[-1], terminator)]
    if len(names) > 1:  # one outside of it that hands it on
        interceptors[0] = (
            Given(lambda continuation, details: continuation(details))
            if names[0] == "S"
            else GivenAio(lambda continuation, details: continuation(details))
        )
    with serve(app_of(handlers_of(world, plus_ten), interceptors)) as client:
        for kind in KINDS:
            assert outcome(client, kind) == (grpc.StatusCode.UNAUTHENTICATED, "who are you?")


@every_outer
def test_none_is_unimplemented(serve: Serve, outer: str) -> None:
    """As in gRPC, an interceptor that returns None has found no method."""
    with serve(app_of(handlers_of("sync", plus_ten), [returning(outer, None)])) as client:
        for kind in KINDS:
            assert outcome(client, kind) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


@every_outer
def test_what_is_no_handler(serve: Serve, outer: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log tells who returned it, and what was expected."""
    with serve(app_of(handlers_of("sync", plus_ten), [returning(outer, "junk")])) as client:
        assert outcome(client, Kind.UNARY_UNARY)[0] is grpc.StatusCode.INTERNAL
    name = "Given" if outer == "S" else "GivenAio"
    assert (
        f"TypeError: interceptor {name} returned 'junk', expected a grpc.RpcMethodHandler, such as"
        " continuation(handler_call_details) gives, or None\n"
    ) in caplog.text


@pytest.mark.parametrize("names", ["SS", "AA", "SA", "AS"])
def test_details_of_the_call(serve: Serve, names: str) -> None:
    """Those inside see changed metadata, as in gRPC; the context has what the client sent."""
    got: list[Any] = []

    def changed(details: Any) -> Any:
        got.append((details.method, dict(details.invocation_metadata).get("who")))
        return details._replace(invocation_metadata=(("who", "another"),))

    async def intercept(continuation: Any, details: Any) -> Any:
        return await continuation(changed(details))

    def who(request: Any, context: Any) -> Any:
        return {"number": 1, "text": dict(context.invocation_metadata())["who"]}

    given = {"S": lambda: Given(lambda go, details: go(changed(details)))}
    given["A"] = lambda: GivenAio(intercept)  # type: ignore[assignment,return-value]
    app = app_of(handlers_of("async", who), [given[letter]() for letter in names])
    with serve(app) as client:
        response = client.call(PATHS[Kind.UNARY_UNARY], Item(), metadata=[("who", "ada")])
    assert response.text == "ada"
    assert got == [("/echo.Echo/Unary", "ada"), ("/echo.Echo/Unary", "another")]


@every_outer
def test_details_of_another_method(
    serve: Serve, outer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A call is routed before interceptors run: sending it elsewhere is an error that says so."""

    def elsewhere(continuation: Any, details: Any) -> Any:
        return continuation(details._replace(method="/echo.Echo/Down"))

    interceptor = Given(elsewhere) if outer == "S" else GivenAio(elsewhere)
    with serve(app_of(handlers_of("sync", plus_ten), [interceptor])) as client:
        assert outcome(client, Kind.UNARY_UNARY)[0] is grpc.StatusCode.INTERNAL
    assert (
        "TypeError: an interceptor passed on '/echo.Echo/Down' in a call of '/echo.Echo/Unary';"
        " a call is routed before interceptors run, so it cannot go to another method\n"
    ) in caplog.text


# ---- what can be an interceptor


class Both(grpc.aio.ServerInterceptor, Sync):
    """Derived from both, as OpenTelemetry's is."""

    async def intercept_service(  # type: ignore[override]
        self, continuation: Any, handler_call_details: Any
    ) -> Any:
        return remade_once(self, await continuation(handler_call_details))


class AsyncByName(grpc.ServerInterceptor):
    """Derived from the sync class, but async."""

    log: list[str] = []  # noqa: RUF012 - each test has its own

    async def intercept_service(  # type: ignore[override]
        self, continuation: Any, handler_call_details: Any
    ) -> Any:
        return remade_once(self, await continuation(handler_call_details))


def remade_once(interceptor: Any, handler: Any) -> Any:
    return handler._replace(unary_unary=Aio(interceptor.log).unary(handler.unary_unary))


@every_world
@pytest.mark.parametrize("kind", [Both, AsyncByName])
def test_an_async_interceptor_is_told_by_what_it_is(serve: Serve, world: str, kind: Any) -> None:
    """One that is derived from both classes, or has an async method, is grpc.aio's."""
    interceptor = kind()
    interceptor.log = []
    with serve(app_of(handlers_of(world, plus_ten), [interceptor])) as client:
        assert outcome(client, Kind.UNARY_UNARY) == [11]
    assert interceptor.log == ["A>", "A:Item", "<A"]


def test_what_is_an_interceptor() -> None:
    """Objects of both classes are; the classes are taken for it too, and refused with a reason."""
    yes = [Sync(), Aio(), Both(), Sync, Aio, Both]
    no: list[Any] = [object(), plus_ten, None, int, grpc.UnaryUnaryClientInterceptor]
    assert [is_interceptor(one) for one in [*yes, *no]] == [True] * 6 + [False] * 5
    assert checked_interceptor(yes[0]) is yes[0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Sync, "got the class Sync as an interceptor; give an object of it: Sync()"),
        (Aio, "got the class Aio as an interceptor; give an object of it: Aio()"),
        (
            "auth",
            "got 'auth' as an interceptor, expected an object of a class that is derived from"
            " grpc.ServerInterceptor or grpc.aio.ServerInterceptor",
        ),
    ],
)
def test_what_is_no_interceptor(given: Any, told: str) -> None:
    """It is refused when the handler is made, with what to write."""
    with pytest.raises(TypeError) as caught:
        fit(plus_ten, Kind.UNARY_UNARY, [Sync(), given])
    assert str(caught.value) == told


def test_a_handler_that_does_not_fit() -> None:
    """The errors are those of a handler without interceptors."""

    def generator(request: Any) -> Any:
        yield request

    with pytest.raises(TypeError) as caught:
        fit(generator, Kind.STREAM_UNARY, [Sync()])
    assert str(caught.value) == (
        "is a generator function, but echo.Echo/Up responds with one message;"
        " return it instead of yielding"
    )


def test_the_log_names_the_handler() -> None:
    """What is made has the name of the user's function, or of the class of their object."""

    class Planner:
        def __call__(self, request: Any) -> Any:
            return request

    made = [fit(one, Kind.UNARY_UNARY, [Sync()]) for one in (plus_ten, Planner())]
    assert [(one.__module__, one.__qualname__) for one in made] == [
        ("tests.interceptors", "plus_ten"),
        (__name__, "test_the_log_names_the_handler.<locals>.Planner.__call__"),
    ]


def test_who_has_no_interceptors_does_not_import_this() -> None:
    """`import dynserve` leaves the package alone."""
    code = "import dynserve, sys; print([m for m in sys.modules if 'interceptors' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
