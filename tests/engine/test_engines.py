"""Both engines, with plain grpcio handlers: nothing of dynserve but the engine."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest

from dynserve.engine.base import Engine
from dynserve.engine.limits import CallLimits
from dynserve.engines import engine_maker, new_event_loop

pytestmark = pytest.mark.usefixtures("engine")

WAIT = 20.0
Channel: TypeAlias = Any  # the stubs want serializers with every call; these tests send bytes


def generic(**methods: grpc.RpcMethodHandler[Any, Any]) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler("a.B", methods)


def on_loop(main: Awaitable[Any]) -> Any:
    """What the coroutine returns, on a loop as servers have it."""
    loop = new_event_loop(os.environ["DYNSERVE_ENGINE"])
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def run(
    handlers: grpc.GenericRpcHandler,
    client: Callable[[Channel], Any],
    **options: Any,
) -> Any:
    """Serve the handlers and run the client on a thread."""

    async def main() -> Any:
        engine: Engine = engine_maker(os.environ["DYNSERVE_ENGINE"])([handlers], **options)
        port = engine.add_port("127.0.0.1:0")
        await engine.start()
        try:
            return await asyncio.get_running_loop().run_in_executor(None, call, port)
        finally:
            await engine.stop(0)
            await engine.wait_for_termination()

    def call(port: int) -> Any:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            return client(channel)

    return on_loop(asyncio.wait_for(main(), WAIT * 2))


def test_an_unknown_method_is_unimplemented() -> None:
    """A generic handler that has no handler for a path leaves it to gRPC."""

    def client(channel: Channel) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/a.B/Nothing")(b"", timeout=WAIT)
        return caught.value

    assert run(generic(), client).code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("streams", [2, 30])
def test_long_streams_of_sync_handlers_do_not_starve_unary_calls(streams: int) -> None:
    """With every stream open and both unary threads few, unary calls are answered."""

    def chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    def client(channel: Channel) -> list[bytes]:
        release = threading.Event()

        def requests() -> Iterator[bytes]:
            yield b"first"
            release.wait(WAIT)

        open_calls = [
            channel.stream_stream("/a.B/Chat")(requests(), timeout=WAIT) for _ in range(streams)
        ]
        assert [next(call) for call in open_calls] == [b"first"] * streams
        answers = [channel.unary_unary("/a.B/One")(b"%d" % n, timeout=WAIT) for n in range(50)]
        release.set()
        assert [list(call) for call in open_calls] == [[]] * streams
        return answers

    handlers = generic(
        Chat=grpc.stream_stream_rpc_method_handler(chat),
        One=grpc.unary_unary_rpc_method_handler(lambda request, context: request),
    )
    assert run(handlers, client, threads=2) == [b"%d" % number for number in range(50)]


def test_a_blocking_sync_handler_does_not_block_the_loop() -> None:
    """While sync handlers of every kind block, an async one answers."""
    release = threading.Event()

    def block(request: Any, context: Any) -> bytes:
        release.wait(WAIT)
        return b"late"

    async def quick(request: bytes, context: Any) -> bytes:
        return b"quick"

    def client(channel: Channel) -> list[bytes]:
        blocked = [channel.unary_unary("/a.B/Block").future(b"", timeout=WAIT) for _ in range(4)]
        got = [channel.unary_unary("/a.B/Quick")(b"", timeout=WAIT) for _ in range(10)]
        release.set()
        return [*got, *(call.result() for call in blocked)]

    handlers = generic(
        Block=grpc.unary_unary_rpc_method_handler(block),
        Quick=grpc.unary_unary_rpc_method_handler(quick),
    )
    assert run(handlers, client, threads=2) == [b"quick"] * 10 + [b"late"] * 4


def test_a_stream_past_the_limit_is_refused() -> None:
    """One stream more than there are threads gets RESOURCE_EXHAUSTED at once."""

    def chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    def client(channel: Channel) -> Any:
        release = threading.Event()

        def requests() -> Iterator[bytes]:
            yield b"x"
            release.wait(WAIT)

        first = channel.stream_stream("/a.B/Chat")(requests(), timeout=WAIT)
        next(first)
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.stream_stream("/a.B/Chat")(iter([b"x"]), timeout=WAIT))
        release.set()
        assert list(first) == []
        return caught.value

    handlers = generic(Chat=grpc.stream_stream_rpc_method_handler(chat))
    error = run(handlers, client, stream_threads=1)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "too many streams are open on this server"


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(("size", "ahead"), [(1000, 20_000), (100_000, 1000)])
def test_a_slow_reader_holds_a_generator_back(world: str, size: int, ahead: int) -> None:
    """A generator does not run far ahead of a client that does not read, whatever it sends."""
    produced = 0
    stopped = threading.Event()

    def down(request: bytes, context: Any) -> Iterator[bytes]:
        nonlocal produced
        try:
            while True:
                produced += 1
                yield bytes(size)
        finally:
            stopped.set()

    async def down_async(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for message in down(request, context):
            yield message

    def client(channel: Channel) -> None:
        call = channel.unary_stream("/a.B/Down")(b"", timeout=WAIT)
        next(call)
        last = -1
        while last != produced:  # until flow control has stopped it
            last = produced
            threading.Event().wait(0.2)
        call.cancel()
        assert stopped.wait(WAIT)

    handler = down if world == "sync" else down_async
    run(generic(Down=grpc.unary_stream_rpc_method_handler(handler)), client)
    assert produced < ahead  # HTTP/2 windows grow to 16 MiB, and the pipe holds one more


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_slow_handler_holds_the_client_back(world: str) -> None:
    """Requests are not piled up in the server ahead of the handler that takes them."""
    release = threading.Event()

    def up(requests: Iterator[bytes], context: Any) -> bytes:
        next(requests)
        release.wait(WAIT)
        return b"%d" % (1 + sum(1 for _ in requests))

    async def up_async(requests: AsyncIterator[bytes], context: Any) -> bytes:
        await anext(requests)
        await asyncio.to_thread(release.wait, WAIT)
        return b"%d" % (1 + len([None async for _ in requests]))

    def client(channel: Channel) -> int:
        sent = 0

        def requests() -> Iterator[bytes]:
            nonlocal sent
            for _ in range(2000):
                sent += 1
                yield bytes(100_000)

        call = channel.stream_unary("/a.B/Up").future(requests(), timeout=WAIT)
        last = -1
        while last != sent:  # until flow control has stopped it
            last = sent
            threading.Event().wait(0.2)
        ahead = sent
        release.set()
        assert call.result() == b"2000"
        return ahead

    handler = up if world == "sync" else up_async
    assert run(generic(Up=grpc.stream_unary_rpc_method_handler(handler)), client) < 1000


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_sync_streams_keep_order(count: int) -> None:
    """Every message of a long stream arrives once and in order, both ways."""
    sent = [b"%d" % number for number in range(count)]

    def chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    def client(channel: Channel) -> list[bytes]:
        return list(channel.stream_stream("/a.B/Chat")(iter(sent), timeout=WAIT))

    assert run(generic(Chat=grpc.stream_stream_rpc_method_handler(chat)), client) == sent


def test_serializers_of_a_handler_are_used() -> None:
    """The engine serves any grpcio handler, with its own serializers."""
    handler: Any = grpc.unary_unary_rpc_method_handler(
        lambda request, context: request + 1,
        request_deserializer=int,
        response_serializer=lambda number: b"%d" % number,
    )

    def client(channel: Channel) -> Any:
        return channel.unary_unary("/a.B/One")(b"41", timeout=WAIT)

    assert run(generic(One=handler), client) == b"42"


class Asked:
    """What a sync behaviour learns from its context."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        self.context: Any = None

    def one(self, request: bytes, context: Any) -> bytes:
        self.context = context
        self.said = {
            "metadata": dict(context.invocation_metadata())["x-a"],
            "peer": context.peer().partition(":")[0],
            "identities": context.peer_identities(),
            "identity key": context.peer_identity_key(),
            "security": context.auth_context()["transport_security_type"],
            "time": 0 < context.time_remaining() < WAIT + 9,
            "active": context.is_active(),
            "loop": context.event_loop.is_running(),
        }
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        context.send_initial_metadata((("x-initial", "1"),))
        context.set_trailing_metadata((("x-trailing", "2"),))
        context.set_code(grpc.StatusCode.OK)
        context.set_details("fine")
        self.said["set"] = (context.code(), context.details(), context.trailing_metadata())
        return b"done"


def test_the_context_of_a_sync_handler_is_complete() -> None:
    """All of grpc.ServicerContext, over grpc.aio."""
    asked = Asked()

    def client(channel: Channel) -> Any:
        response, call = channel.unary_unary("/a.B/One").with_call(
            b"", timeout=WAIT, metadata=(("x-a", "b"),)
        )
        return response, call.initial_metadata(), call.trailing_metadata()

    handlers = generic(One=grpc.unary_unary_rpc_method_handler(asked.one))
    response, initial, trailing = run(handlers, client)
    assert response == b"done"
    assert dict(initial)["x-initial"] == "1"
    assert dict(trailing) == {"x-trailing": "2"}
    assert asked.said == {
        "metadata": "b",
        "peer": "ipv4",
        "identities": None,
        "identity key": None,
        "security": [b"insecure"],
        "time": True,
        "active": True,
        "loop": True,
        "set": (grpc.StatusCode.OK, "fine", (("x-trailing", "2"),)),
    }


def test_a_context_can_be_asked_after_its_call() -> None:
    """A handler that keeps its context gets plain answers, not a crash in the core."""
    asked = Asked()

    def client(channel: Channel) -> Any:
        return channel.unary_unary("/a.B/One")(b"", timeout=WAIT, metadata=(("x-a", "b"),))

    run(generic(One=grpc.unary_unary_rpc_method_handler(asked.one)), client)
    context = asked.context
    assert not context.is_active()
    assert not context.cancel()
    assert not context.add_callback(lambda: None)
    assert (context.peer(), context.time_remaining(), context.auth_context()) == ("", 0.0, {})
    assert (context.peer_identities(), context.peer_identity_key()) == (None, None)
    context.set_code(grpc.StatusCode.OK)


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_abort_of_a_plain_sync_handler(kind: str) -> None:
    """context.abort() and abort_with_status() end a call of any kind."""

    class Made(grpc.Status):
        code = grpc.StatusCode.NOT_FOUND
        details = "no"
        trailing_metadata = (("x-a", "b"),)

    def abort(request: Any, context: Any) -> Any:
        context.abort_with_status(Made())

    def client(channel: Channel) -> Any:
        request = iter([b""]) if kind.startswith("stream") else b""
        collect = list if kind.endswith("stream") else bytes
        with pytest.raises(grpc.RpcError) as caught:
            collect(getattr(channel, kind)("/a.B/One")(request, timeout=WAIT))
        return caught.value

    handler = getattr(grpc, f"{kind}_rpc_method_handler")(abort)
    error = run(generic(One=handler), client)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no")
    assert dict(error.trailing_metadata()) == {"x-a": "b"}


def test_a_call_cancelled_while_it_waits_for_a_thread_never_runs() -> None:
    """A unary call that ended in the queue is not handed to its handler."""
    release, started = threading.Event(), threading.Event()
    ran: list[bytes] = []

    def one(request: bytes, context: Any) -> bytes:
        ran.append(request)
        started.set()
        release.wait(WAIT)
        return request

    async def ping(request: bytes, context: Any) -> bytes:
        return request

    def client(channel: Channel) -> None:
        call = channel.unary_unary("/a.B/One")
        first = call.future(b"first", timeout=WAIT)
        assert started.wait(WAIT)
        call.future(b"second", timeout=WAIT).cancel()
        for _ in range(3):  # on the same connection, so behind the cancellation
            channel.unary_unary("/a.B/Ping")(b"", timeout=WAIT)
        release.set()
        assert first.result() == b"first"
        assert call(b"third", timeout=WAIT) == b"third"

    handlers = generic(
        One=grpc.unary_unary_rpc_method_handler(one),
        Ping=grpc.unary_unary_rpc_method_handler(ping),
    )
    run(handlers, client, threads=1)
    assert ran == [b"first", b"third"]


def test_a_failing_callback_is_logged_and_the_others_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Callbacks at the end of a call do not depend on each other."""
    called = threading.Event()

    def one(request: bytes, context: Any) -> bytes:
        context.add_callback(lambda: 1 / 0)
        context.add_callback(called.set)
        return request

    def client(channel: Channel) -> None:
        channel.unary_unary("/a.B/One")(b"", timeout=WAIT)
        assert called.wait(WAIT)

    run(generic(One=grpc.unary_unary_rpc_method_handler(one)), client)
    assert [r.getMessage() for r in caplog.records] == ["a callback at the end of a call failed"]


def test_async_generators_of_plain_grpcio_are_left_alone() -> None:
    """What grpc.aio serves by itself is not touched."""

    async def down(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield request
        yield request

    def client(channel: Channel) -> Any:
        return list(channel.unary_stream("/a.B/Down")(b"x", timeout=WAIT))

    assert run(generic(Down=grpc.unary_stream_rpc_method_handler(down)), client) == [b"x", b"x"]


def test_concurrent_calls_past_the_limit_are_refused() -> None:
    """maximum_concurrent_rpcs refuses with RESOURCE_EXHAUSTED rather than queue."""
    started, release = threading.Event(), threading.Event()

    def one(request: bytes, context: Any) -> bytes:
        started.set()
        release.wait(WAIT)
        return request

    def client(channel: Channel) -> Any:
        first = channel.unary_unary("/a.B/One").future(b"", timeout=WAIT)
        assert started.wait(WAIT)
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/a.B/One")(b"", timeout=WAIT)
        release.set()
        first.result()
        return caught.value

    handlers = generic(One=grpc.unary_unary_rpc_method_handler(one))
    error = run(handlers, client, limits=CallLimits(1))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("error", [StopIteration(), SystemExit(), ValueError("x")])
def test_no_exception_of_a_handler_ends_the_server(error: BaseException) -> None:
    """Whatever a plain sync handler raises, the next call is served."""

    def one(request: bytes, context: Any) -> bytes:
        if request == b"bad":
            raise error
        return request

    def down(request: bytes, context: Any) -> Iterator[bytes]:
        yield one(request, context)

    def client(channel: Channel) -> Any:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/a.B/One")(b"bad", timeout=WAIT)
        with pytest.raises(grpc.RpcError):
            list(channel.unary_stream("/a.B/Down")(b"bad", timeout=WAIT))
        return channel.unary_unary("/a.B/One")(b"good", timeout=WAIT)

    handlers = generic(
        One=grpc.unary_unary_rpc_method_handler(one),
        Down=grpc.unary_stream_rpc_method_handler(down),
    )
    assert run(handlers, client) == b"good"


def test_a_handler_that_outlives_the_server_is_harmless() -> None:
    """A thread that still blocks when the loop is closed ends without an error."""
    release, ended = threading.Event(), threading.Event()

    def one(request: bytes, context: Any) -> bytes:
        release.wait(WAIT)
        context.cancel()
        ended.set()
        return request

    def client(channel: Channel) -> None:
        channel.unary_unary("/a.B/One").future(b"", timeout=WAIT)
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/a.B/One")(b"", timeout=0.2)

    run(generic(One=grpc.unary_unary_rpc_method_handler(one)), client)
    release.set()
    assert ended.wait(WAIT)


def test_a_port_that_cannot_be_bound_is_a_runtime_error() -> None:
    """The engine tells what grpc.aio tells."""

    async def main() -> Awaitable[None] | None:
        engine: Engine = engine_maker(os.environ["DYNSERVE_ENGINE"])([generic()])
        try:
            with pytest.raises(RuntimeError):
                engine.add_port("256.0.0.1:0")
        finally:
            await engine.stop(0)
        return None

    asyncio.run(main())
