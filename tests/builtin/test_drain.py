"""The server's own idle streams are let go when it stops."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from dynserve import StatusError
from dynserve.builtin.drain import Drain

UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "the server is shutting down")


async def _soon(value: str) -> str:
    await asyncio.sleep(0)
    return value


async def _never(cancelled: asyncio.Event) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()


def _status(error: StatusError) -> tuple[grpc.StatusCode, str]:
    return error.code(), error.details()


def test_what_is_waited_for_is_returned() -> None:
    """While the server does not drain, waiting gives what was waited for."""

    async def main() -> str:
        return await Drain().wait_for(_soon("a request"))

    assert asyncio.run(main()) == "a request"


def test_what_is_waited_for_is_raised() -> None:
    """An exception of what is waited for comes through as it is."""

    async def fail() -> None:
        raise KeyError("broken")

    async def main() -> None:
        await Drain().wait_for(fail())

    with pytest.raises(KeyError, match=r"^'broken'$"):
        asyncio.run(main())


def test_waiting_ends_when_the_drain_starts() -> None:
    """Everything that waits when the drain starts gets UNAVAILABLE, and is cancelled itself."""

    async def main() -> None:
        drain, events = Drain(), [asyncio.Event() for _ in range(3)]
        waiting = [asyncio.ensure_future(drain.wait_for(_never(event))) for event in events]
        await asyncio.sleep(0)  # the waiting begins
        drain.start()
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [_status(e) for e in errors if isinstance(e, StatusError)] == [UNAVAILABLE] * 3
        assert not drain._waiting

    asyncio.run(main())


def test_nothing_waits_once_the_drain_has_started() -> None:
    """A stream that starts late, or finishes an answer, does not wait for a further request."""

    async def main() -> None:
        drain = Drain()
        drain.start()
        with pytest.raises(StatusError) as caught:
            await drain.wait_for(asyncio.Event().wait())
        assert _status(caught.value) == UNAVAILABLE

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_result_that_is_there_is_not_lost() -> None:
    """What was waited for and has come before the drain starts is still returned."""

    async def main() -> str:
        drain = Drain()
        result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(drain.wait_for(result))
        await asyncio.sleep(0)  # the waiting begins
        result.set_result("the last request")
        drain.start()
        return await waiting

    assert asyncio.run(main()) == "the last request"


def test_a_cancelled_call_is_cancelled() -> None:
    """The cancellation of a call stays one, drain or not, and ends what the call waited for."""

    async def main(draining: bool) -> None:
        drain, cancelled = Drain(), asyncio.Event()
        call = asyncio.ensure_future(drain.wait_for(_never(cancelled)))
        await asyncio.sleep(0)  # the call waits
        await asyncio.sleep(0)  # and what it waits for has begun
        call.cancel()
        if draining:
            drain.start()
        with pytest.raises(asyncio.CancelledError):
            await call
        await cancelled.wait()
        assert not drain._waiting

    for draining in (False, True):
        asyncio.run(asyncio.wait_for(main(draining), 10))


def test_a_cancellation_of_other_origin_comes_through() -> None:
    """Without a drain, what cancels itself is no sign of a shutdown."""

    async def main() -> None:
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lost.cancel()
        await Drain().wait_for(lost)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
