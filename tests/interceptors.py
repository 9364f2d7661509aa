"""Interceptors that note what they see, and handlers of all kinds: what tests of them share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio

from dynserve import App, Kind
from dynserve.interceptors import intercepted
from tests.conftest import Client
from tests.echo import PATHS, Item, numbers_of, request_for, schema

KINDS = list(Kind)


def remade(handler: Any, wrap: Callable[[Any], Any]) -> Any:
    """The method handler with its behaviour wrapped."""
    name = Kind((handler.request_streaming, handler.response_streaming)).name.lower()
    return handler._replace(**{name: wrap(getattr(handler, name))})


class Sync(grpc.ServerInterceptor):
    """Notes what it sees; ``around`` may do more. Modelled on what is found on PyPI."""

    def __init__(self, log: list[str] | None = None, name: str = "S") -> None:
        self.log = [] if log is None else log
        self.name = name

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        wrap = self.stream if handler.response_streaming else self.unary
        return remade(handler, wrap)

    def unary(self, inner: Any) -> Any:
        def behaviour(request: Any, context: Any) -> Any:
            self.log.append(f"{self.name}>")
            try:
                response = inner(request, context)
                self.log.append(f"{self.name}:{type(response).__name__}")
                return response
            except Exception as error:
                self.log.append(f"{self.name}!{type(error).__name__}")
                raise
            finally:
                self.log.append(f"<{self.name}")

        return behaviour

    def stream(self, inner: Any) -> Any:
        def behaviour(request: Any, context: Any) -> Iterator[Any]:
            self.log.append(f"{self.name}>")
            try:
                for response in inner(request, context):
                    self.log.append(f"{self.name}:{type(response).__name__}")
                    yield response
            except Exception as error:
                self.log.append(f"{self.name}!{type(error).__name__}")
                raise
            finally:
                self.log.append(f"<{self.name}")

        return behaviour


class Aio(grpc.aio.ServerInterceptor):
    """The same for grpc.aio."""

    def __init__(self, log: list[str] | None = None, name: str = "A") -> None:
        self.log = [] if log is None else log
        self.name = name

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        wrap = self.stream if handler.response_streaming else self.unary
        return remade(handler, wrap)

    def unary(self, inner: Any) -> Any:
        async def behaviour(request: Any, context: Any) -> Any:
            self.log.append(f"{self.name}>")
            try:
                response = await inner(request, context)
                self.log.append(f"{self.name}:{type(response).__name__}")
                return response
            except Exception as error:
                self.log.append(f"{self.name}!{type(error).__name__}")
                raise
            finally:
                self.log.append(f"<{self.name}")

        return behaviour

    def stream(self, inner: Any) -> Any:
        async def behaviour(request: Any, context: Any) -> AsyncIterator[Any]:
            self.log.append(f"{self.name}>")
            try:
                async for response in inner(request, context):
                    self.log.append(f"{self.name}:{type(response).__name__}")
                    yield response
            except Exception as error:
                self.log.append(f"{self.name}!{type(error).__name__}")
                raise
            finally:
                self.log.append(f"<{self.name}")

        return behaviour


class Given(grpc.ServerInterceptor):
    """Runs ``intercept_service`` as a function that is given."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return self.function(continuation, handler_call_details)


class GivenAio(grpc.aio.ServerInterceptor):
    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return await self.function(continuation, handler_call_details)


def returning(outer: str, handler: Any) -> Any:
    """An interceptor that returns this, and asks nobody."""

    async def intercept(_continuation: Any, _details: Any) -> Any:
        return handler

    return Given(lambda _continuation, _details: handler) if outer == "S" else GivenAio(intercept)


def stack(names: str, log: list[str]) -> list[Any]:
    kinds: dict[str, Any] = {"S": Sync, "A": Aio}
    return [kinds[letter](log, f"{letter}{place}") for place, letter in enumerate(names)]


def handlers_of(world: str, do: Callable[[Any, Any], Any]) -> dict[Kind, Any]:
    """A handler of each kind that answers each request, or their sum, by what ``do`` returns."""

    def unary(request: Any, context: Any) -> Any:
        return do(request, context)

    def down(request: Any, context: Any) -> Iterator[Any]:
        yield do(request, context)

    def up(requests: Any, context: Any) -> Any:
        return do(Item(number=sum(request.number for request in requests)), context)

    def chat(requests: Any, context: Any) -> Iterator[Any]:
        for request in requests:
            yield do(request, context)

    async def unary_async(request: Any, context: Any) -> Any:
        return do(request, context)

    async def down_async(request: Any, context: Any) -> AsyncIterator[Any]:
        yield do(request, context)

    async def up_async(requests: Any, context: Any) -> Any:
        return do(Item(number=sum([request.number async for request in requests])), context)

    async def chat_async(requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield do(request, context)

    if world == "sync":
        return dict(zip(KINDS, (unary, down, up, chat), strict=True))
    return dict(zip(KINDS, (unary_async, down_async, up_async, chat_async), strict=True))


def plus_ten(request: Any, _context: Any) -> dict[str, int]:
    return {"number": request.number + 10}


def fit(handler: Any, kind: Kind, interceptors: Sequence[Any], **options: Any) -> Any:
    method = schema.method(PATHS[kind])

    def coerce(response: object) -> Any:
        return schema.convert(response, method.response)

    return intercepted(handler, method, interceptors, coerce, **options)


def app_of(handlers: dict[Kind, Any], interceptors: Sequence[Any], **options: Any) -> App:
    app = App(schema=schema)
    for kind, handler in handlers.items():
        app.add(fit(handler, kind, interceptors, **options), PATHS[kind])
    return app


def outcome(client: Client, kind: Kind, **options: Any) -> Any:
    """The numbers that a client gets, or the code and text."""
    try:
        return numbers_of(client.call(PATHS[kind], request_for(kind, 1, 2), **options))
    except grpc.RpcError as error:
        return error.code(), error.details()
