"""What the soak calls: soak_app.py ENGINE GRACE; says its address on standard output."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc

from dynserve import App

app = App(Path(__file__).parent / "soak.proto")
M: Any = app.schema.message("soak.M")


def check(m: Any, context: Any) -> None:
    """Fail as the message says."""
    if m.how == "abort":
        context.abort(grpc.StatusCode.ABORTED, "as asked")
    if m.how == "raise":
        raise RuntimeError("as asked")


class Sync:
    """Functions and generators."""

    def One(self, m: Any, context: Any) -> Any:
        check(m, context)
        if m.how == "slow":
            time.sleep(0.02)
        return m

    def Down(self, m: Any, context: Any) -> Iterator[Any]:
        for i in range(m.n):
            if i == m.n // 2:
                check(m, context)
            yield M(n=i, data=m.data)

    def Up(self, ms: Iterator[Any], context: Any) -> Any:
        total = 0
        for m in ms:
            check(m, context)
            total += m.n
        return M(n=total)

    def Chat(self, ms: Iterator[Any], context: Any) -> Iterator[Any]:
        for m in ms:
            check(m, context)
            yield m


class Async:
    """Coroutines and async generators."""

    async def One(self, m: Any, context: Any) -> Any:
        check(m, context)
        if m.how == "slow":
            await asyncio.sleep(0.02)
        return m

    async def Down(self, m: Any, context: Any) -> AsyncIterator[Any]:
        for i in range(m.n):
            if i == m.n // 2:
                check(m, context)
            yield M(n=i, data=m.data)

    async def Up(self, ms: AsyncIterator[Any], context: Any) -> Any:
        total = 0
        async for m in ms:
            check(m, context)
            total += m.n
        return M(n=total)

    async def Chat(self, ms: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for m in ms:
            check(m, context)
            yield m


app.add_servicer(Sync(), "soak.Sync")
app.add_servicer(Async(), "soak.Async")


if __name__ == "__main__":
    server = app.server("127.0.0.1:0", engine=sys.argv[1], grace=float(sys.argv[2]))
    server.run_forever(lambda: print(server.addresses[0], flush=True))
