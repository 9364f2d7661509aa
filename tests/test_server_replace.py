"""Replacing what a server serves: its settings, who may call, and what lifespans have started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dynserve import App, Identity, Kind, UnhandledMethodsError
from tests.echo import PATHS, Item, app_with, schema

pytestmark = pytest.mark.usefixtures("engine")

UNARY = f"/{PATHS[Kind.UNARY_UNARY]}"
OTHER = 'syntax = "proto3"; package other; message M {} service S { rpc Do(M) returns (M); }'


async def code_of(channel: Any, path: str) -> str:
    """What a call without credentials ends with."""
    try:
        await channel.unary_unary(path)(b"", timeout=20)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


async def echo(request: Any) -> Any:
    return request


def test_authentication_by_settings_stays(tmp_path: Path) -> None:
    """What the server was told holds for the next app, too."""
    tokens = tmp_path / "tokens"
    tokens.write_text("ada:0123456789abcdef0123456789abcdef\n")
    tokens.chmod(0o600)

    async def main() -> list[str]:
        app = app_with(echo, Kind.UNARY_UNARY)
        async with (
            app.server("127.0.0.1:0", auth_tokens=tokens) as server,
            grpc.aio.insecure_channel(server.addresses[0]) as channel,
        ):
            before = await code_of(channel, UNARY)
            await server.replace(app)
            return [before, await code_of(channel, UNARY)]

    [before, after] = asyncio.run(main())
    assert before.startswith("UNAUTHENTICATED: ")
    assert after == before


def test_an_app_with_authentication_guards_all(tmp_path: Path) -> None:
    """Reflection and methods that are not there, as if it had been there from the start."""

    def nobody(_context: Any) -> Identity | None:
        return None

    async def main() -> list[str]:
        old, new = app_with(echo, Kind.UNARY_UNARY), app_with(echo, Kind.UNARY_UNARY)
        new.auth(nobody)
        async with (
            old.server("127.0.0.1:0") as server,
            grpc.aio.insecure_channel(server.addresses[0]) as channel,
        ):
            await server.replace(new)
            return [
                await code_of(channel, path)
                for path in (
                    UNARY,
                    "/echo.Echo/Unry",
                    "/grpc.channelz.v1.Channelz/GetServers",
                    "/grpc.health.v1.Health/Check",
                )
            ]

    refused = "UNAUTHENTICATED: the call is not authenticated"
    assert asyncio.run(main()) == [refused, refused, refused, "OK"]


@pytest.mark.parametrize("mine", ["sync", "async"])
def test_a_lifespan_that_fails_replaces_nothing(mine: str) -> None:
    """It is started again at the next try, and what was started beside it has ended."""
    log: list[str] = []
    fails = True

    def lifespan(name: str, may_fail: bool) -> Any:
        def sync() -> Iterator[str]:
            if may_fail and fails:
                raise ConnectionError("no database")
            log.append(f"{name} starts")
            yield name
            log.append(f"{name} ends")

        async def on_loop() -> AsyncIterator[str]:
            for value in sync():
                yield value

        return sync if mine == "sync" else on_loop

    async def state(_request: Any, context: Any) -> Any:
        return Item(text=context.state)

    old, new, inner = (app_with(echo, Kind.UNARY_UNARY) for _ in range(3))
    new, inner = App(schema=schema), App(OTHER)
    new.add(state, PATHS[Kind.UNARY_UNARY])
    new.mount(inner)
    new.lifespan(lifespan("new", False))
    inner.lifespan(lifespan("inner", True))

    async def main() -> Any:
        nonlocal fails
        async with (
            old.server("127.0.0.1:0") as server,
            grpc.aio.insecure_channel(server.addresses[0]) as channel,
        ):
            with pytest.raises(ConnectionError, match="no database"):
                await server.replace(new)
            kept = await code_of(channel, UNARY)
            fails = False
            await server.replace(new)
            method: Any = channel.unary_unary(UNARY)
            return kept, Item.FromString(await method(b"", timeout=20)).text

    assert asyncio.run(main()) == ("OK", "new")
    assert log == ["new starts", "new ends", "new starts", "inner starts", "inner ends", "new ends"]


def test_what_is_strict_is_checked_before_anything_starts() -> None:
    """Nothing is replaced, and no lifespan has run."""
    log: list[str] = []
    new = App(OTHER)

    @new.lifespan
    def lifespan() -> Iterator[None]:
        log.append("starts")
        yield

    async def main() -> None:
        old = App(schema=schema)
        old.fallback(lambda request: [])
        async with old.server("127.0.0.1:0", strict=True) as server:
            with pytest.raises(UnhandledMethodsError):
                await server.replace(new)

    asyncio.run(main())
    assert log == []


def test_apps_that_share_a_lifespan_function_have_a_run_each() -> None:
    """A lifespan is an app's own, whoever wrote the function."""
    runs: list[object] = []

    def lifespan() -> Iterator[object]:
        runs.append(object())
        yield runs[-1]

    one, two = app_with(echo, Kind.UNARY_UNARY), App(OTHER)
    one.lifespan(lifespan)
    two.lifespan(lifespan)
    one.mount(two)
    with one.server("127.0.0.1:0").in_thread():
        pass
    assert len(runs) == 2


def test_an_app_that_only_mounts_others_hands_down_what_it_has() -> None:
    """Its lifespan runs, and its rules for options apply."""
    log: list[str] = []
    inner = App(
        'syntax = "proto3"; package shop; import "google/protobuf/descriptor.proto";'
        " extend google.protobuf.MethodOptions { string role = 50001; }"
        ' message M {} service S { rpc Do(M) returns (M) { option (role) = "admin"; } }'
    )
    inner.add(echo, "shop.S/Do")
    root = App()
    root.mount(inner)

    @root.lifespan
    def lifespan() -> Iterator[None]:
        log.append("starts")
        yield
        log.append("ends")

    @root.on_option("shop.role")
    def authorize(context: Any, role: str) -> Iterator[None]:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, f"only for {role}")
        yield

    served = root.server("127.0.0.1:0").in_thread()
    with served as server, grpc.insecure_channel(server.addresses[0]) as channel:
        method: Any = channel.unary_unary("/shop.S/Do")
        with pytest.raises(grpc.RpcError) as caught:
            method(b"", timeout=20)
    assert (caught.value.details(), log) == ("only for admin", ["starts", "ends"])


def test_handlers_clean_up_before_what_they_use_ends() -> None:
    """The server's end cancels them; the lifespan ends when they have."""
    log: list[str] = []
    app = App(schema=schema)

    @app.lifespan
    def lifespan() -> Iterator[None]:
        yield
        log.append("lifespan ends")

    async def main() -> None:
        running = asyncio.Event()

        async def wait(_request: Any) -> Any:
            try:
                running.set()
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.05)
                log.append("handler ends")

        app.add(wait, PATHS[Kind.UNARY_UNARY])
        async with (
            app.server("127.0.0.1:0") as server,
            grpc.aio.insecure_channel(server.addresses[0]) as channel,
        ):
            method: Any = channel.unary_unary(UNARY)
            ended = asyncio.ensure_future(method(b"").code())
            await running.wait()
            await server.stop(None)
            await ended

    asyncio.run(main())
    assert log == ["handler ends", "lifespan ends"]


def test_a_stop_waits_for_the_start() -> None:
    """Who stops a server that is about to start finds it stopped afterwards."""
    log: list[str] = []
    app = app_with(echo, Kind.UNARY_UNARY)
    go_on = asyncio.Event()

    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        await go_on.wait()
        yield
        log.append("ends")

    async def main() -> None:
        server = app.server("127.0.0.1:0")
        starting = asyncio.ensure_future(server.start())
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(server.stop(None))
        await asyncio.sleep(0)
        go_on.set()
        await stopping
        await starting
        await server.wait_for_termination()

    asyncio.run(main())
    assert log == ["ends"]
