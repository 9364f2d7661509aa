"""The same test with the sync client and with the one of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from dynserve import App
from dynserve.testing import serve

__all__ = ["Call", "World", "every_world", "in_world"]

World: TypeAlias = str
Call: TypeAlias = Callable[..., Any]

every_world = pytest.mark.parametrize("world", ["sync", "async"])


def in_world(world: World, app: App, path: str, *request: Any, **options: Any) -> Any:
    """Call a method of the app: the response, or the list of the responses.

    ``client`` and ``server`` are arguments of the two; all others are those of the call.
    """
    client, server = options.pop("client", {}), options.pop("server", {})
    serving = serve(app, client=client, **server)
    options.setdefault("timeout", 20)
    if world == "sync":
        with serving as connected:
            answer = connected.method(path)(*request, **options)
            return list(answer) if hasattr(answer, "__next__") else answer

    async def main() -> Any:
        async with serving as connected:
            call = (await connected.method(path))(*request, **options)
            if call.info.kind.response_streaming:
                return [response async for response in call]
            return await call

    return asyncio.run(main())
