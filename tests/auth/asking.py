"""What tests of authenticators share: to ask one, as a sync and as an async handler's call does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

import grpc
import pytest

from dynserve import StatusError
from dynserve.testing import FakeAsyncContext, FakeContext

__all__ = ["WORLDS", "Answer", "answer", "ask", "bearer", "refusal"]

WORLDS = ("sync", "async")

Answer: TypeAlias = "tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]"


def ask(
    authenticate: Callable[[Any], Any],
    world: str = "sync",
    metadata: Iterable[tuple[str, str]] = (),
    auth: Mapping[str, Iterable[bytes]] | None = None,
) -> Any:
    """What an authenticator says of a call, asked as a handler of that world has it asked."""
    if world == "sync":
        found = authenticate(FakeContext(metadata=metadata, auth=auth))
        return asyncio.run(_awaited(found)) if inspect.isawaitable(found) else found
    later = getattr(authenticate, "authenticate_async", authenticate)

    async def asked() -> Any:
        found = later(FakeAsyncContext(metadata=metadata, auth=auth))
        return await found if inspect.isawaitable(found) else found

    return asyncio.run(asked())


async def _awaited(found: Awaitable[Any]) -> Any:
    return await found


def refusal(authenticate: Callable[[Any], Any], *arguments: Any, **options: Any) -> Answer:
    """The whole of a refusal: code, text and trailing metadata."""
    with pytest.raises(StatusError) as raised:
        ask(authenticate, *arguments, **options)
    error = raised.value
    return error.code(), error.details(), error.trailing_metadata()


def answer(authenticate: Callable[[Any], Any], *arguments: Any, **options: Any) -> Any:
    """The identity, or the text of the refusal."""
    try:
        return ask(authenticate, *arguments, **options)
    except StatusError as error:
        return error.details()


def bearer(token: str) -> list[tuple[str, str]]:
    """The metadata with a token in it."""
    return [("authorization", f"Bearer {token}")]
