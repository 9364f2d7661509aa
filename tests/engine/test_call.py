"""The traps of grpc.aio's context, each against a real server and client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from dynserve.engine.call import AsyncCall
from tests.engine.test_engines import WAIT, Channel, generic, run

pytestmark = pytest.mark.usefixtures("engine")

MANY = 300


def chat(behaviour: Any) -> grpc.GenericRpcHandler:
    return generic(Chat=grpc.stream_stream_rpc_method_handler(behaviour))


def up(behaviour: Any) -> grpc.GenericRpcHandler:
    return generic(Up=grpc.stream_unary_rpc_method_handler(behaviour))


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_cancelled_stream_is_not_taken_for_complete(world: str) -> None:
    """No handler sees the end of requests which the client has not ended."""
    completed, started, over = [], threading.Semaphore(0), threading.Semaphore(0)

    def sync_up(requests: Iterator[bytes], context: Any) -> bytes:
        try:
            for number, _ in enumerate(requests):
                if number == 0:
                    started.release()
            completed.append(True)
        finally:
            over.release()
        return b""

    async def async_up(_: Any, call: Any) -> bytes:
        try:
            while await call.read() is not grpc.aio.EOF:
                started.release()
            completed.append(True)
        finally:
            over.release()
        return b""

    def client(channel: Channel) -> None:
        for _ in range(MANY):
            release = threading.Event()

            def requests(release: threading.Event = release) -> Iterator[bytes]:
                yield b"x"
                release.wait(WAIT)

            call = channel.stream_unary("/a.B/Up").future(requests(), timeout=WAIT)
            assert started.acquire(timeout=WAIT)
            call.cancel()
            release.set()
        for _ in range(MANY):
            assert over.acquire(timeout=WAIT)

    run(up(sync_up if world == "sync" else async_up), client)
    assert completed == []


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_request_that_is_too_large_does_not_end_the_stream_well(world: str) -> None:
    """Requests that break off at one over the limit are not taken for complete."""
    completed: list[int] = []
    running: set[int] = set()

    def sync_up(requests: Iterator[bytes], context: Any) -> bytes:
        running.add(id(context))
        try:
            completed.append(len(list(requests)))
        finally:
            running.discard(id(context))
        return b""

    async def async_up(_: Any, call: Any) -> bytes:
        running.add(id(call))
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
            completed.append(1)
        finally:
            running.discard(id(call))
        return b""

    def client(channel: Channel) -> None:
        for _ in range(8):
            with pytest.raises(grpc.RpcError) as caught:
                channel.stream_unary("/a.B/Up")(iter([b"x", bytes(2000), b"y"]), timeout=WAIT)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        while running:
            pass

    handlers = up(sync_up if world == "sync" else async_up)
    run(handlers, client, options=[("grpc.max_receive_message_length", 1000)])
    assert completed == []


def test_a_read_that_times_out_loses_nothing() -> None:
    """``asyncio.wait_for(call.read(), …)`` as a heartbeat: every request still arrives."""
    beat = threading.Event()

    async def heartbeat(_: Any, call: Any) -> None:
        while True:
            try:
                request = await asyncio.wait_for(call.read(), 0.02)
            except asyncio.TimeoutError:
                beat.set()
                continue
            if request is grpc.aio.EOF:
                return
            await call.write(request)

    def requests() -> Iterator[bytes]:
        for number in range(3):
            beat.clear()
            assert beat.wait(WAIT)
            yield b"%d" % number

    def client(channel: Channel) -> list[bytes]:
        return list(channel.stream_stream("/a.B/Chat")(requests(), timeout=WAIT))

    assert run(chat(heartbeat), client) == [b"0", b"1", b"2"]


def test_writes_of_several_tasks_wait_for_each_other() -> None:
    """Tasks of one handler may write at the same time."""

    async def writes(_: Any, call: Any) -> None:
        await asyncio.gather(*(call.write(b"%d" % number) for number in range(20)))

    def client(channel: Channel) -> list[bytes]:
        return list(channel.stream_stream("/a.B/Chat")(iter([]), timeout=WAIT))

    assert run(chat(writes), client) == [b"%d" % number for number in range(20)]


def test_a_status_waits_for_the_write_before_it() -> None:
    """A handler that ends with an error while a task of it writes gives the client both."""

    async def fails(_: Any, call: Any) -> None:
        writing = asyncio.ensure_future(call.write(b"last"))
        await asyncio.sleep(0)
        try:
            await call.abort(grpc.StatusCode.NOT_FOUND, "no")
        finally:
            await writing

    def client(channel: Channel) -> tuple[list[bytes], Any]:
        call = channel.stream_stream("/a.B/Chat")(iter([]), timeout=WAIT)
        got: list[bytes] = []
        with pytest.raises(grpc.RpcError):
            got.extend(call)
        return got, call.code()

    assert run(chat(fails), client)[1] == grpc.StatusCode.NOT_FOUND


def test_requests_are_read_a_bounded_number_ahead() -> None:
    """A handler that does not read holds the client back."""
    release = threading.Event()

    async def slow(_: Any, call: Any) -> bytes:
        assert await call.read() is not grpc.aio.EOF
        await asyncio.to_thread(release.wait, WAIT)
        count = 1
        while await call.read() is not grpc.aio.EOF:
            count += 1
        return b"%d" % count

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

    assert run(up(slow), client) < 1000


class Freed:
    """grpc.aio's context of a call that was freed: what is asked of the core would crash."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[[], Any]:
        return lambda: self.asked.append(name)


def test_nothing_of_a_freed_call_is_asked() -> None:
    """After the end the peer is unknown, and the core is left alone."""
    freed = Freed()
    call = AsyncCall(freed)
    call.end()
    assert not call.is_active()
    assert (call.peer(), call.auth_context()) == ("", {})
    assert (call.peer_identities(), call.peer_identity_key()) == (None, None)
    assert freed.asked == []


class Failing:
    """grpc.aio's context of a call that is over: sending fails."""

    async def write(self, message: bytes) -> None:
        raise grpc.aio.InternalError

    send_initial_metadata = abort = write

    async def read(self) -> Any:
        raise grpc.aio.UsageError


@pytest.mark.parametrize(
    "send",
    [
        lambda call: call.write(b""),
        lambda call: call.send_initial_metadata(()),
    ],
)
def test_what_cannot_be_sent_is_a_cancellation(
    send: Callable[[AsyncCall], Awaitable[None]],
) -> None:
    """A call that is over says so by CancelledError, and is no longer active."""

    async def main() -> bool:
        call = AsyncCall(Failing())
        with pytest.raises(asyncio.CancelledError):
            await send(call)
        return call.is_active()

    assert asyncio.run(main()) is False


def test_reading_a_call_that_has_a_status_is_an_end() -> None:
    """grpc.aio refuses to read then; there is nothing more to come."""

    async def main() -> Any:
        return await AsyncCall(Failing()).read()

    assert asyncio.run(main()) is grpc.aio.EOF
