"""Behaviours of method handlers: a user's handler as one, and one as the other world sees it.

Behaviours of messages, as grpcio and grpc.aio have them: a function that returns a response, or a
generator function, or else a coroutine function or an async generator function.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message

from dynserve.callables import shape_of
from dynserve.method import Kind, MethodInfo
from dynserve.on_loop import close, close_async

from .crossing import Flow
from .views import (
    AsyncRequests,
    SyncRequests,
    async_requests,
    async_view,
    sync_requests,
    sync_view,
)

__all__ = ["Base", "Worlds", "behaviour_of", "each", "each_async", "settled"]

Coerce: TypeAlias = Callable[[object], Message]
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_MAKERS: dict[tuple[bool, bool], Callable[..., MethodHandler]] = {
    Kind.UNARY_UNARY.value: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM.value: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY.value: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM.value: grpc.stream_stream_rpc_method_handler,
}


def behaviour_of(handler: Any) -> Any:
    """The one behaviour that a method handler has."""
    return getattr(
        handler, Kind((handler.request_streaming, handler.response_streaming)).name.lower()
    )


def _is_async(behaviour: Any) -> bool:
    functions = (behaviour, getattr(behaviour, "__call__", None))  # noqa: B004 - not whether
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in functions)


# ---- what behaviours return


def settled(flow: Flow, response: Any) -> Any:
    """The response of a sync behaviour: what turns out to be awaitable is awaited on the loop."""
    if isinstance(response, Message) or not inspect.isawaitable(response):
        return response
    try:
        flow.loop  # noqa: B018 - raises where there is none
    except TypeError:
        close(response)
        raise

    async def wait() -> Any:
        return await response

    return flow.wait(wait)


def each(flow: Flow, method: MethodInfo, responses: Any) -> Iterator[Any]:
    """The responses of a sync behaviour, on its thread."""
    responses = settled(flow, responses)
    if isinstance(responses, AsyncIterable):

        async def send_all(send: Callable[[Any], Awaitable[None]]) -> None:
            await _send_all(each_async(method, responses), send)

        yield from flow.iterate(send_all)
    else:
        yield from _iterable(method, responses)


async def each_async(method: MethodInfo, responses: Any) -> AsyncIterator[Any]:
    """The responses of an async behaviour; none where it wrote through its context."""
    try:
        if inspect.isawaitable(responses):
            responses = await responses
        if isinstance(responses, AsyncIterable):
            async for response in responses:
                yield response
        elif responses is not None:
            for response in _iterable(method, responses):
                yield response
    finally:
        await close_async(responses)


async def _send_all(responses: AsyncIterator[Any], send: Callable[[Any], Awaitable[None]]) -> None:
    try:
        async for response in responses:
            await send(response)
    finally:
        await close_async(responses)


def _iterable(method: MethodInfo, responses: Any) -> Iterable[Any]:
    if isinstance(responses, Iterable) and not isinstance(responses, (Message, dict, str)):
        return responses
    got = type(responses).__name__
    raise TypeError(
        f"{method} responds with a stream, but its handler returned {got};"
        " yield the messages, or return a list of them"
    )


# ---- the user's handler


class Base:
    """A user's handler as the method handler that the innermost interceptor gets.

    Args:
        handler: as it is registered.
        method: what it serves.
        coerce: makes a response message of what it returns.

    Raises:
        TypeError: it cannot serve the method; the text goes on from the handler's name.
    """

    def __init__(self, handler: Callable[..., Any], method: MethodInfo, coerce: Coerce) -> None:
        shape = shape_of(handler)
        if shape.is_generator and not method.kind.response_streaming:
            raise TypeError(
                f"is a generator function, but {method} responds with one message;"
                " return it instead of yielding"
            )
        self._handler = handler
        self._takes_context = shape.takes_context
        self._method = method
        self._response = method.response
        self._coerce = coerce
        self.parse = method.request.FromString
        self.serialize = method.response.SerializeToString
        makers = {
            (False, False): self._unary,
            (False, True): self._stream,
            (True, False): self._unary_async,
            (True, True): self._stream_async,
        }
        self._behaviour = makers[shape.is_async, method.kind.response_streaming]

    def method_handler(self, flow: Flow) -> MethodHandler:
        """The method handler for one call."""
        behaviour = self._behaviour(flow)
        return _MAKERS[self._method.kind.value](behaviour, self.parse, self.serialize)

    def _invoke(self, request: Any, context: Any) -> Any:
        return self._handler(request, context) if self._takes_context else self._handler(request)

    def _coerced(self, response: Any) -> Any:
        return response if type(response) is self._response else self._coerce(response)

    def _unary(self, flow: Flow) -> Any:
        def unary(request: Any, context: Any) -> Any:
            return self._coerced(settled(flow, self._invoke(request, context)))

        return unary

    def _stream(self, flow: Flow) -> Any:
        def stream(request: Any, context: Any) -> Iterator[Any]:
            for response in each(flow, self._method, self._invoke(request, context)):
                yield self._coerced(response)

        return stream

    def _unary_async(self, _flow: Flow) -> Any:
        async def unary(request: Any, context: Any) -> Any:
            return self._coerced(await self._invoke(request, context))

        return unary

    def _stream_async(self, _flow: Flow) -> Any:
        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            responses = each_async(self._method, self._invoke(request, context))
            async with contextlib.aclosing(responses):  # type: ignore[type-var]
                async for response in responses:
                    yield self._coerced(response)

        return stream


# ---- the other world


class Worlds:
    """Makes method handlers of one world into such of the other, for the calls of one method."""

    def __init__(self, method: MethodInfo, coerce: Coerce) -> None:
        self._method = method
        self._coerce = coerce

    def as_sync(self, flow: Flow, handler: Any) -> Any:
        """The same with a sync behaviour, which runs an async one on the loop."""
        behaviour = behaviour_of(handler)
        if not _is_async(behaviour):
            return handler
        streams_in, method = handler.request_streaming, self._method

        async def invoked(request: Any, context: Any, send: Any) -> Any:
            argument = async_requests(flow, request) if streams_in else request
            requests = argument if streams_in else None
            view = async_view(flow, context, method, self._coerce, requests, send)
            with _stopping(argument):
                if send is None:
                    return await behaviour(argument, view)
                return await _send_all(each_async(method, behaviour(argument, view)), send)

        def unary(request: Any, context: Any) -> Any:
            return flow.wait(lambda: invoked(request, context, None))

        def stream(request: Any, context: Any) -> Iterator[Any]:
            yield from flow.iterate(lambda send: invoked(request, context, send))

        return _remade(handler, stream if handler.response_streaming else unary)

    def as_async(self, flow: Flow, handler: Any) -> Any:
        """The same with an async behaviour, which runs a sync one on a thread."""
        behaviour = behaviour_of(handler)
        if _is_async(behaviour):
            return handler
        streams_in, method = handler.request_streaming, self._method

        async def unary(request: Any, context: Any) -> Any:
            def work(fail: Any) -> Any:
                argument = sync_requests(flow, request) if streams_in else request
                with _stopping(argument):
                    return settled(
                        flow, behaviour(argument, sync_view(flow, context, method, fail))
                    )

            return await flow.on_thread(work)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            def work(fail: Any) -> Iterator[Any]:
                argument = sync_requests(flow, request) if streams_in else request
                with _stopping(argument):
                    view = sync_view(flow, context, method, fail)
                    yield from each(flow, method, behaviour(argument, view))

            responses = flow.iterate_thread(work)
            async with contextlib.aclosing(responses):  # type: ignore[type-var]
                async for response in responses:
                    yield response

        return _remade(handler, stream if handler.response_streaming else unary)


@contextlib.contextmanager
def _stopping(argument: Any) -> Iterator[None]:
    """Have no more requests brought over at the end."""
    try:
        yield
    finally:
        if isinstance(argument, (AsyncRequests, SyncRequests)):
            argument.stop()


def _remade(handler: Any, behaviour: Any) -> MethodHandler:
    make = _MAKERS[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)
