"""What engines grant calls: a place among those that run, and time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from dynserve.engine.limits import CallLimits
from tests.engine.test_engines import WAIT, Channel, generic, run

pytestmark = pytest.mark.usefixtures("engine")

DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
GRANTED = "the time that this server grants a call is over"


class Handlers:
    """Handlers of one kind and world that wait until they are cancelled, or released."""

    def __init__(self, streams_in: bool, streams_out: bool, world: str) -> None:
        self.release = threading.Event()
        self.ended = threading.Event()
        self.remaining: list[float | None] = []
        name = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
        make = getattr(grpc, f"{name}_rpc_method_handler")
        self.name = name
        chosen: Any = self._sync_stream if streams_out else self._sync
        if world == "async":
            chosen = self._async_stream if streams_out else self._async
        self.generic = generic(Wait=make(chosen), Exempt=make(chosen))

    def call(self, channel: Channel, method: str = "Wait", timeout: float | None = None) -> Any:
        """Call it; what it answers, or the error."""
        request = iter([b"x"]) if self.name.startswith("stream") else b"x"
        try:
            answer = getattr(channel, self.name)(f"/a.B/{method}")(request, timeout=timeout)
            return answer if isinstance(answer, bytes) else list(answer)
        except grpc.RpcError as error:
            return error

    def _sync(self, _request: Any, context: Any) -> bytes:
        self.remaining.append(context.time_remaining())
        while context.is_active() and not self.release.wait(0.005):
            pass
        self.ended.set()
        return b"late"

    def _sync_stream(self, request: Any, context: Any) -> Iterator[bytes]:
        yield self._sync(request, context)

    async def _async(self, _request: Any, context: Any) -> bytes:
        self.remaining.append(context.time_remaining())
        try:
            while not self.release.is_set():  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0.005)
        finally:
            self.ended.set()
        return b"late"

    async def _async_stream(self, request: Any, context: Any) -> None:
        await context.write(await self._async(request, context))


KINDS = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize(("streams_in", "streams_out"), KINDS)
@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(
    ("limits", "timeout"),
    [
        (CallLimits(default_timeout=0.1), None),
        (CallLimits(max_timeout=0.1), None),
        (CallLimits(max_timeout=0.1), WAIT),
        (CallLimits(default_timeout=WAIT, max_timeout=0.1), None),
        (CallLimits(default_timeout=0.1, max_timeout=WAIT), None),
    ],
)
def test_a_call_ends_when_its_time_is_over(
    streams_in: bool, streams_out: bool, world: str, limits: CallLimits, timeout: float | None
) -> None:
    """A call without a deadline gets the default, a longer one is shortened; the handler is told
    and, where it is async, cancelled."""
    handlers = Handlers(streams_in, streams_out, world)

    def client(channel: Channel) -> Any:
        error = handlers.call(channel, timeout=timeout)
        while not handlers.remaining:  # its time was over before it began, on a busy machine
            error = handlers.call(channel, timeout=timeout)
        return error, handlers.ended.wait(WAIT)

    error, ended = run(handlers.generic, client, limits=limits)
    remaining = handlers.remaining[0]
    assert remaining is not None
    assert (error.code(), error.details(), ended, 0 < remaining < 1) == (
        DEADLINE,
        GRANTED,
        True,
        True,
    )


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_deadline_within_the_limit_is_the_clients(world: str) -> None:
    """It stays as it is, and what is exempt has none."""
    handlers = Handlers(False, False, world)
    limits = CallLimits(
        default_timeout=0.05, max_timeout=WAIT, is_exempt=lambda path: path == "/a.B/Exempt"
    )

    def client(channel: Channel) -> Any:
        error = handlers.call(channel, timeout=0.3)
        assert handlers.ended.wait(WAIT)
        threading.Timer(0.3, handlers.release.set).start()
        return error, handlers.call(channel, "Exempt")

    error, answer = run(handlers.generic, client, limits=limits)
    [first, second] = handlers.remaining
    assert (error.code(), answer, second) == (DEADLINE, b"late", None)
    assert first is not None
    assert 0.05 < first < 1


@pytest.mark.parametrize("world", ["sync", "async"])
def test_calls_that_end_in_time_are_not_touched(world: str) -> None:
    """Hundreds of calls, one after the other and at the same time, each with its own end."""

    def answer(request: bytes, _context: Any) -> bytes:
        return request

    async def answer_async(request: bytes, _context: Any) -> bytes:
        await asyncio.sleep(0)
        return request

    def client(channel: Channel) -> Any:
        method = channel.unary_unary("/a.B/One")
        calls = [method.future(b"%d" % number, timeout=WAIT) for number in range(200)]
        return [call.result() for call in calls] + [method(b"%d" % n) for n in range(50)]

    chosen: Any = answer if world == "sync" else answer_async
    handlers = generic(One=grpc.unary_unary_rpc_method_handler(chosen))
    limits = CallLimits(default_timeout=10.0, max_timeout=10.0)
    expected = [b"%d" % number for number in [*range(200), *range(50)]]
    assert run(handlers, client, limits=limits) == expected


@pytest.mark.parametrize(("streams_in", "streams_out"), KINDS)
@pytest.mark.parametrize("world", ["sync", "async"])
def test_what_is_exempt_does_not_count(streams_in: bool, streams_out: bool, world: str) -> None:
    """Neither do such calls take a place, nor are they refused where there is none."""
    handlers = Handlers(streams_in, streams_out, world)
    limits = CallLimits(1, is_exempt=lambda path: path == "/a.B/Exempt")

    def client(channel: Channel) -> Any:
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda m=method: answers.append(handlers.call(channel, m)))
            for method in ("Exempt", "Exempt", "Wait", "Exempt")
        ]
        for thread in threads:
            thread.start()
        _until(lambda: len(handlers.remaining) == len(threads))
        refused = handlers.call(channel, timeout=WAIT)
        handlers.release.set()
        for thread in threads:
            thread.join(WAIT)
        return refused, answers

    refused, answers = run(handlers.generic, client, limits=limits)
    assert (refused.code(), refused.details()) == (
        EXHAUSTED,
        "too many calls are open on this server",
    )
    assert answers == [[b"late"] if streams_out else b"late"] * 4


def _until(is_true: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(int(WAIT * 200)):
        if is_true():
            return
        waited.wait(0.005)
    raise AssertionError("it did not come about")


def test_a_place_is_free_again() -> None:
    """After a call has ended, whatever its end, the next one takes its place."""

    async def one(request: bytes, context: Any) -> bytes:
        if request == b"fail":
            raise ValueError
        if request == b"abort":
            await context.abort(grpc.StatusCode.ABORTED, "so")
        if request == b"wait":
            await asyncio.sleep(WAIT)
        return request

    def client(channel: Channel) -> Any:
        codes = []
        method = channel.unary_unary("/a.B/One")
        for request, timeout in [(b"fail", WAIT), (b"abort", WAIT), (b"wait", 0.1)] * 3:
            try:
                method(request, timeout=timeout)
            except grpc.RpcError as error:
                codes.append(error.code())
            _until(lambda: _answers(method))
        return codes

    handlers = generic(One=grpc.unary_unary_rpc_method_handler(one))
    codes = run(handlers, client, limits=CallLimits(1))
    assert codes == [grpc.StatusCode.UNKNOWN, grpc.StatusCode.ABORTED, DEADLINE] * 3


def _answers(method: Any) -> bool:
    try:
        return bool(method(b"x", timeout=WAIT) == b"x")
    except grpc.RpcError as error:
        if error.code() is not EXHAUSTED:
            raise
        return False


def test_a_unary_call_waits_for_a_thread_for_so_long() -> None:
    """Then it is refused, without having run; who waits less gets its thread."""
    release = threading.Event()
    ran: list[bytes] = []

    def one(request: bytes, _context: Any) -> bytes:
        ran.append(request)
        if request == b"first":
            release.wait(WAIT)
        return request

    def client(channel: Channel) -> Any:
        method = channel.unary_unary("/a.B/One")
        first = method.future(b"first", timeout=WAIT)
        _until(lambda: ran == [b"first"])
        with pytest.raises(grpc.RpcError) as caught:
            method(b"second", timeout=WAIT)
        release.set()
        return caught.value, first.result(), method(b"third", timeout=WAIT)

    handlers = generic(One=grpc.unary_unary_rpc_method_handler(one))
    error, first, third = run(handlers, client, limits=CallLimits(max_queue_wait=0.1), threads=1)
    assert (error.code(), error.details(), first, third, ran) == (
        EXHAUSTED,
        "the call waited too long for a thread",
        b"first",
        b"third",
        [b"first", b"third"],
    )


def test_a_call_whose_deadline_passes_in_the_queue_never_runs() -> None:
    """Neither by the client's deadline nor by the server's."""
    release = threading.Event()
    ran: list[bytes] = []

    def one(request: bytes, _context: Any) -> bytes:
        ran.append(request)
        if request == b"first":
            release.wait(WAIT)
        return request

    def client(channel: Channel) -> Any:
        method = channel.unary_unary("/a.B/One")
        first = method.future(b"first", timeout=WAIT)
        _until(lambda: ran == [b"first"])
        codes = []
        for timeout in (0.05, None):
            with pytest.raises(grpc.RpcError) as caught:
                method(b"second", timeout=timeout)
            codes.append(caught.value.code())
        release.set()
        first.cancel()
        return codes, method(b"third", timeout=0.4)

    handlers = generic(One=grpc.unary_unary_rpc_method_handler(one))
    limits = CallLimits(default_timeout=0.3)
    codes, third = run(handlers, client, limits=limits, threads=1)
    assert (codes, third, ran) == ([DEADLINE, DEADLINE], b"third", [b"first", b"third"])


@pytest.mark.parametrize(
    ("limits", "remaining", "expected"),
    [
        (CallLimits(), None, None),
        (CallLimits(), 5.0, None),
        (CallLimits(default_timeout=3.0), None, 3.0),
        (CallLimits(default_timeout=3.0), 5.0, None),
        (CallLimits(max_timeout=2.0), None, 2.0),
        (CallLimits(max_timeout=2.0), 1.0, None),
        (CallLimits(max_timeout=2.0), 5.0, 2.0),
        (CallLimits(default_timeout=3.0, max_timeout=2.0), None, 2.0),
        (CallLimits(default_timeout=1.0, max_timeout=2.0), None, 1.0),
        (CallLimits(default_timeout=1.0, max_timeout=2.0), 1.5, None),
    ],
)
def test_the_time_that_is_granted(
    limits: CallLimits, remaining: float | None, expected: float | None
) -> None:
    """The default where there is no deadline, the longest where it is later."""
    assert limits.timeout(remaining) == expected
