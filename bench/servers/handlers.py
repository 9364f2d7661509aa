"""The handlers that every Python variant serves: written once, so that only what is around differs.

They take the message classes as arguments: generated code and dynserve each bring their own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

WAIT_SECONDS = 0.005


class SyncEcho:
    """`bench.Echo` in plain functions and generators."""

    def __init__(self, reply: Any, item: Any) -> None:
        self._reply = reply
        self._item = item

    def Say(self, request: Any, context: Any) -> Any:
        return self._reply(message=request.name)

    def Wait(self, request: Any, context: Any) -> Any:
        time.sleep(WAIT_SECONDS)
        return self._reply(message=request.name)

    def Down(self, request: Any, context: Any) -> Iterator[Any]:
        payload = request.payload
        for i in range(request.count):
            yield self._item(count=i, payload=payload)

    def Up(self, requests: Iterator[Any], context: Any) -> Any:
        total = 0
        for item in requests:
            total += item.count
        return self._item(count=total)

    def Chat(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        yield from requests


class AsyncEcho:
    """`bench.Echo` in coroutines and async generators."""

    def __init__(self, reply: Any, item: Any) -> None:
        self._reply = reply
        self._item = item

    async def Say(self, request: Any, context: Any) -> Any:
        return self._reply(message=request.name)

    async def Wait(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(WAIT_SECONDS)
        return self._reply(message=request.name)

    async def Down(self, request: Any, context: Any) -> AsyncIterator[Any]:
        payload = request.payload
        for i in range(request.count):
            yield self._item(count=i, payload=payload)

    async def Up(self, requests: AsyncIterator[Any], context: Any) -> Any:
        total = 0
        async for item in requests:
            total += item.count
        return self._item(count=total)

    async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for item in requests:
            yield item
