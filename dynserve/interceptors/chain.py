"""Runs a call through interceptors, as grpcio and grpc.aio do, around a user's handler.

Each interceptor asks the next for its method handler, and may return another; the last gets one
over messages of the schema. What it asks, and the behaviour it gets, is of its own world: a sync
interceptor sees functions that return or yield messages, a grpc.aio one coroutine functions and
async generators. Where its neighbour is of the other world, behaviours cross over
(:mod:`.crossing`). The world of the outermost is that of the whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import itertools
from collections import namedtuple
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import Message

from dynserve.callables import function_of
from dynserve.method import MethodInfo
from dynserve.status import StatusError

from .behaviours import Base, Coerce, Worlds, behaviour_of, each, each_async, settled
from .crossing import Flow
from .threads import Threads

__all__ = ["checked_interceptor", "intercepted", "is_interceptor"]

Interceptor: TypeAlias = "grpc.ServerInterceptor | grpc.aio.ServerInterceptor"

_CLASSES = (grpc.ServerInterceptor, grpc.aio.ServerInterceptor)
_NOT_FOUND = "Method not found!"  # grpcio's own words, where an interceptor returns None


def is_interceptor(value: object) -> bool:
    """Whether it is an interceptor, or a class of them, which :func:`checked_interceptor` tells."""
    return isinstance(value, _CLASSES) or (isinstance(value, type) and issubclass(value, _CLASSES))


def checked_interceptor(value: Any) -> Interceptor:
    """The interceptor, if it is one.

    Raises:
        TypeError: it is none, or a class of interceptors.
    """
    if isinstance(value, type) and issubclass(value, _CLASSES):
        raise TypeError(
            f"got the class {value.__name__} as an interceptor; give an object of it:"
            f" {value.__name__}()"
        )
    if not isinstance(value, _CLASSES):
        raise TypeError(
            f"got {value!r} as an interceptor, expected an object of a class that is derived from"
            " grpc.ServerInterceptor or grpc.aio.ServerInterceptor"
        )
    return value


def intercepted(
    handler: Callable[..., Any],
    method: MethodInfo,
    interceptors: Sequence[Interceptor],
    coerce: Coerce,
    threads: Threads | None = None,
) -> Callable[..., Any]:
    """The handler with interceptors around it, as a handler: ``(request or requests, context)``.

    It is sync where the outermost interceptor is, and async where that is grpc.aio's.

    Args:
        handler: any that can be registered for the method.
        method: what it serves.
        interceptors: the outermost first, as in ``grpc.server(interceptors=...)``.
        coerce: makes a response message of what the handler returns.
        threads: for sync code inside of grpc.aio's interceptors.

    Raises:
        TypeError: one is no interceptor; or the handler cannot serve the method, where the text
            goes on from the handler's name.
    """
    if not interceptors:
        return handler
    chain = _Chain(handler, method, interceptors, coerce, threads or Threads())
    serve = chain.serve()
    named = function_of(handler)
    named = named if hasattr(named, "__qualname__") else type(named)
    serve.__module__ = named.__module__  # for the log: what fails is the user's handler
    serve.__name__, serve.__qualname__ = named.__name__, named.__qualname__
    return serve


class _CallDetails(
    namedtuple("_CallDetails", ("method", "invocation_metadata")),
    grpc.HandlerCallDetails,
):
    """What an interceptor is told of a call; a named tuple, as grpcio's own is: they replace."""


class _Layer(NamedTuple):
    interceptor: Any
    is_async: bool


def _layer(interceptor: Any) -> _Layer:
    checked_interceptor(interceptor)
    # Some are derived from both classes, the sync one for its helpers.
    is_async = isinstance(interceptor, grpc.aio.ServerInterceptor)
    return _Layer(
        interceptor, is_async or inspect.iscoroutinefunction(interceptor.intercept_service)
    )


class _Chain:
    """The interceptors of one method, and its handler."""

    def __init__(
        self,
        handler: Callable[..., Any],
        method: MethodInfo,
        interceptors: Sequence[Interceptor],
        coerce: Coerce,
        threads: Threads,
    ) -> None:
        self._method = method
        self._threads = threads
        self._layers = [_layer(interceptor) for interceptor in interceptors]
        self._base = Base(handler, method, coerce)
        self._worlds = Worlds(method, coerce)

    def serve(self) -> Callable[..., Any]:
        """The whole, in one of four shapes."""
        shapes = {
            (False, False): self._serve_unary,
            (False, True): self._serve_stream,
            (True, False): self._serve_unary_async,
            (True, True): self._serve_stream_async,
        }
        return shapes[self._layers[0].is_async, self._method.kind.response_streaming]()

    # ---- which method handler a call gets

    def _found(self, index: int, handler: Any) -> Any:
        if handler is None or isinstance(handler, grpc.RpcMethodHandler):
            return handler
        name = type(self._layers[index].interceptor).__name__
        raise TypeError(
            f"interceptor {name} returned {handler!r}, expected a grpc.RpcMethodHandler, such as"
            " continuation(handler_call_details) gives, or None"
        )

    def _innermost(self, flow: Flow, details: Any) -> Any:
        if details.method != self._method.path:
            raise TypeError(
                f"an interceptor passed on {details.method!r} in a call of {self._method.path!r};"
                " a call is routed before interceptors run, so it cannot go to another method"
            )
        return self._base.method_handler(flow)

    def _find(self, flow: Flow, index: int, details: Any) -> Any:
        """The method handler that the interceptor of this index gives, for a sync one."""
        if index == len(self._layers):
            found = self._innermost(flow, details)
        elif self._layers[index].is_async:
            found = flow.wait(lambda: self._find_async(flow, index, details))
        else:
            found = self._layers[index].interceptor.intercept_service(
                functools.partial(self._find, flow, index + 1), details
            )
            self._found(index, found)
        return None if found is None else self._worlds.as_sync(flow, found)

    async def _find_async(self, flow: Flow, index: int, details: Any) -> Any:
        """The same for one of grpc.aio's."""

        async def continuation(details: Any) -> Any:
            return await self._find_async(flow, index + 1, details)

        if index == len(self._layers):
            found = self._innermost(flow, details)
        elif not self._layers[index].is_async:
            found = await flow.on_thread(lambda _fail: self._find(flow, index, details))
        else:
            found = self._layers[index].interceptor.intercept_service(continuation, details)
            if inspect.isawaitable(found):
                found = await found
            self._found(index, found)
        return None if found is None else self._worlds.as_async(flow, found)

    # ---- what is made of it: it need not be of the method's kind, nor take its messages

    def _read_by(self, handler: Any) -> Callable[[Any], Any] | None:
        """Makes what the method handler takes of a request; None where that is the message."""
        deserialize = handler.request_deserializer
        if deserialize == self._base.parse:
            return None
        if deserialize is None:
            return lambda request: request.SerializeToString()
        return lambda request: deserialize(request.SerializeToString())

    def _written_by(self, handler: Any) -> Callable[[Any], Any] | None:
        """Makes a message of what the method handler responds with; None where that is one."""
        serialize = handler.response_serializer
        if serialize == self._base.serialize:
            return None

        def message(response: Any) -> Any:
            data = response if serialize is None else serialize(response)
            return self._method.response.FromString(data) if isinstance(data, bytes) else data

        return message

    def _argument(self, handler: Any, request: Any) -> Any:
        """What a sync behaviour is called with."""
        read = self._read_by(handler)
        match self._method.kind.request_streaming, handler.request_streaming:
            case True, True:
                return request if read is None else map(read, request)
            case True, False:  # most likely it aborts; it does not wait for a request to do so
                return request
            case _, is_stream:
                request = request if read is None else read(request)
                return iter([request]) if is_stream else request

    def _argument_async(self, handler: Any, request: Any) -> Any:
        """What an async behaviour is called with."""
        if not handler.request_streaming:
            return self._argument(handler, request)
        read = self._read_by(handler)
        if self._method.kind.request_streaming:
            return request if read is None else _map_async(read, request)
        return _map_async(None, self._argument(handler, request))

    def _respond(self, flow: Flow, request: Any, context: Any) -> Iterator[Any]:
        details = _CallDetails(self._method.path, context.invocation_metadata())
        handler = self._find(flow, 0, details)
        if handler is None:
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, _NOT_FOUND)
        response = behaviour_of(handler)(self._argument(handler, request), context)
        write = self._written_by(handler)
        if not handler.response_streaming:
            response = settled(flow, response)
            yield response if write is None else write(response)
            return
        with contextlib.closing(each(flow, self._method, response)) as responses:  # type: ignore[type-var]
            yield from responses if write is None else map(write, responses)

    async def _respond_async(self, flow: Flow, request: Any, context: Any) -> AsyncIterator[Any]:
        details = _CallDetails(self._method.path, context.invocation_metadata())
        handler = await self._find_async(flow, 0, details)
        if handler is None:
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, _NOT_FOUND)
        response = behaviour_of(handler)(self._argument_async(handler, request), context)
        write = self._written_by(handler)
        if not handler.response_streaming:
            response = await response
            yield response if write is None else write(response)
            return
        async with contextlib.aclosing(each_async(self._method, response)) as responses:  # type: ignore[type-var]
            async for response in responses:
                yield response if write is None else write(response)

    def _only(self, responses: list[Any]) -> Message:
        if len(responses) != 1:
            got = "more than one" if responses else "none"
            raise TypeError(f"{self._method} has one response, its interceptors gave {got}")
        response: Message = responses[0]
        return response

    # ---- the four shapes

    def _flow(self, context: Any) -> Flow:
        loop = getattr(context, "event_loop", None)
        return Flow(context, loop, self._threads, is_sync=True)

    def _flow_async(self, context: Any) -> Flow:
        return Flow(context, asyncio.get_running_loop(), self._threads, is_sync=False)

    def _serve_unary(self) -> Callable[..., Any]:
        def serve(request: Any, context: Any) -> Any:
            with self._flow(context) as flow:
                return self._only(list(itertools.islice(self._respond(flow, request, context), 2)))

        return serve

    def _serve_stream(self) -> Callable[..., Any]:
        def serve(request: Any, context: Any) -> Iterator[Any]:
            with self._flow(context) as flow:
                yield from self._respond(flow, request, context)

        return serve

    def _serve_unary_async(self) -> Callable[..., Any]:
        async def serve(request: Any, context: Any) -> Any:
            with self._flow_async(context) as flow:
                found: list[Any] = []
                async with contextlib.aclosing(
                    self._respond_async(flow, request, context)  # type: ignore[type-var]
                ) as responses:
                    async for response in responses:
                        found.append(response)
                        if len(found) > 1:
                            break
                return self._only(found)

        return serve

    def _serve_stream_async(self) -> Callable[..., Any]:
        async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._flow_async(context) as flow:
                async with contextlib.aclosing(
                    self._respond_async(flow, request, context)  # type: ignore[type-var]
                ) as responses:
                    async for response in responses:
                        yield response

        return serve


async def _map_async(function: Callable[[Any], Any] | None, items: Any) -> AsyncIterator[Any]:
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item if function is None else function(item)
    else:
        for item in items:
            yield item
