"""What only the portable engine does."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tests.engine.test_engines import WAIT, Channel, generic, run


@pytest.fixture(autouse=True)
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The portable engine."""
    monkeypatch.setenv("DYNSERVE_ENGINE", "aio")


def test_a_sync_context_on_the_loop_is_an_error_not_a_deadlock() -> None:
    """What waits for the loop refuses to do so on the loop."""

    def one(request: bytes, context: Any) -> bytes:
        async def use() -> str:
            try:
                context.send_initial_metadata(())
            except RuntimeError as error:
                return str(error)
            return ""

        future = asyncio.run_coroutine_threadsafe(use(), context.event_loop)
        return future.result(WAIT).encode()

    def client(channel: Channel) -> Any:
        return channel.unary_unary("/a.B/One")(b"", timeout=WAIT)

    assert run(generic(One=grpc.unary_unary_rpc_method_handler(one)), client) == (
        b"a sync handler's context was used on the event loop; declare the handler with 'async def'"
    )
