"""A user's callable → one of the behaviours that an engine runs.

Engines run plain grpcio method handlers over bytes: a sync behaviour gets ``grpc.ServicerContext``
and returns bytes or yields them; an async one is a coroutine function that gets
``grpc.aio.ServicerContext`` and returns bytes or writes them. Messages are parsed and serialised
here, so that a request which does not parse, and a response of the wrong type, become statuses in
the same place as everything else that goes wrong.

What a callable is gets decided once, when it is bound. What only its result shows is dealt with on
the slow path: a plain function may return a coroutine or an async iterator (a lambda, a decorator
that forgot), which then runs on the engine's loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from dynserve.context import AsyncContext, Context
from dynserve.method import Kind, MethodInfo
from dynserve.schema import Schema
from dynserve.status import ErrorRules, StatusError, log_failure

__all__ = ["Shape", "make_method_handler", "shape_of"]

_NO_LOOP = "a sync handler returned an awaitable; declare it with 'async def'"
_CONTEXT_NAMES = {"context", "ctx", "_context", "_ctx"}
_MAKERS: dict[Kind, Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}


class Shape(NamedTuple):
    """What a callable is: whether it runs on the loop, yields, and wants the context."""

    is_async: bool
    is_generator: bool
    takes_context: bool


def shape_of(handler: Callable[..., Any]) -> Shape:
    """Find out what a handler is.

    Raises:
        TypeError: it cannot be a handler, by what it is or by its parameters.
    """
    if isinstance(handler, type):
        raise TypeError("is a class; give an object of it, or register it with add_servicer()")
    function = _function_of(handler)
    is_async_generator = inspect.isasyncgenfunction(function)
    return Shape(
        is_async=is_async_generator or inspect.iscoroutinefunction(function),
        is_generator=is_async_generator or inspect.isgeneratorfunction(function),
        takes_context=_takes_context(handler),
    )


def _function_of(handler: Any) -> Any:
    """The function behind partials and objects with ``__call__``."""
    while True:
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif inspect.isroutine(handler):
            return handler
        else:
            call = getattr(type(handler), "__call__", None)  # noqa: B004 - the function is wanted
            if call is None or not inspect.isfunction(call):
                return handler
            handler = call


def _full_name(handler: Callable[..., Any]) -> str:
    """Where a handler lives, for the log: ``module.qualname``."""
    function = _function_of(handler)
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _takes_context(handler: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    required = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if required:
        raise TypeError(f"needs the keyword argument {required[0]!r}, which nobody gives it")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    if not positional:
        raise TypeError("takes no argument, expected (request) or (request, context)")
    if sum(p.default is p.empty for p in positional) > 2:
        names = ", ".join(p.name for p in positional)
        raise TypeError(f"takes ({names}), expected (request) or (request, context)")
    if len(positional) == 1:
        return False
    second = positional[1]
    return second.default is second.empty or second.name in _CONTEXT_NAMES


def make_method_handler(
    method: MethodInfo, handler: Callable[..., Any], schema: Schema, rules: ErrorRules
) -> grpc.RpcMethodHandler[Any, Any]:
    """The grpcio method handler that serves ``method`` with a user's callable.

    Raises:
        TypeError: the callable cannot serve the method; the text goes on from the handler's name.
    """
    shape = shape_of(handler)
    if shape.is_generator and not method.kind.response_streaming:
        raise TypeError(
            f"is a generator function, but {method} responds with one message;"
            " return it instead of yielding"
        )
    endpoint = _Endpoint(method, handler, schema, rules, shape.takes_context)
    behaviours = {
        (False, False): endpoint.unary,
        (False, True): endpoint.stream,
        (True, False): endpoint.unary_async,
        (True, True): endpoint.stream_async,
    }
    return _MAKERS[method.kind](behaviours[shape.is_async, method.kind.response_streaming])


class _Endpoint:
    """One method and its handler: the four behaviours, of which one is used."""

    def __init__(
        self,
        method: MethodInfo,
        handler: Callable[..., Any],
        schema: Schema,
        rules: ErrorRules,
        takes_context: bool,
    ) -> None:
        self._method = method
        self._handler = handler
        self._name = _full_name(handler)
        self._schema = schema
        self._rules = rules
        self._takes_context = takes_context
        self._request = method.request
        self._response = method.response
        self._streams_in = method.kind.request_streaming

    # ---- sync

    def unary(self, request: Any, call: Any) -> bytes:
        """Return the response of a sync handler."""
        try:
            response = self._invoke(request, call)
            if type(response) is not self._response and inspect.isawaitable(response):
                response = _OnLoop(call).wait(response)
            return self._encode(response)
        except BaseException as error:
            self._fail(call, error)

    def stream(self, request: Any, call: Any) -> Iterator[bytes]:
        """Yield the responses of a sync handler."""
        try:
            responses = self._invoke(request, call)
            try:
                if inspect.isawaitable(responses):
                    responses = _OnLoop(call).wait(responses)
                for response in self._iterable(responses, call):
                    yield self._encode(response)
            finally:
                _close(responses)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._fail(call, error)

    def _invoke(self, request: Any, call: Any) -> Any:
        message = _Requests(self._parse, request) if self._streams_in else self._parse(request)
        if self._takes_context:
            return self._handler(message, Context(call, self._method))
        return self._handler(message)

    def _iterable(self, responses: Any, call: Any) -> Iterable[Any]:
        if isinstance(responses, AsyncIterable):
            return _OnLoop(call).iterate(responses)
        if isinstance(responses, Iterable) and not isinstance(responses, (Message, dict, str)):
            return responses
        raise self._not_iterable(responses)

    def _fail(self, call: Any, error: BaseException) -> NoReturn:
        """End the call with the status for an exception, by raising what the engine expects."""
        if not call.is_active():  # nobody to answer, and most likely the cause of the error
            if not isinstance(error, grpc.RpcError):
                what = "%s failed in %s after its call had ended"
                log_failure(logging.WARNING, error, what, self._method, self._name)
            raise error
        status = self._ending(error, call)
        abort: Callable[..., NoReturn] = call.abort
        abort(status.code(), status.details(), status.trailing_metadata())

    # ---- async

    async def unary_async(self, request: Any, call: Any) -> bytes:
        """Return the response of an async handler."""
        try:
            return self._encode(await self._invoke_async(request, call))
        except GeneratorExit:  # the loop is gone, and nothing can be awaited any more
            raise
        except BaseException as error:
            await self._fail_async(call, error)

    async def stream_async(self, request: Any, call: Any) -> None:
        """Write the responses of an async handler.

        Writing, rather than yielding to the engine, has a cancellation arrive in here, so that the
        handler's generator is closed at once and not by the garbage collector.
        """
        try:
            await self._write_all(self._invoke_async(request, call), call)
        except GeneratorExit:  # as above
            raise
        except BaseException as error:
            await self._fail_async(call, error)

    async def _write_all(self, responses: Any, call: Any) -> None:
        try:
            if inspect.isawaitable(responses):
                responses = await responses
            if isinstance(responses, AsyncIterable):
                async for response in responses:
                    await call.write(self._encode(response))
            elif responses is not None:  # None: it wrote through its context
                for response in self._iterable(responses, call):
                    await call.write(self._encode(response))
        finally:
            await _close_async(responses)

    def _invoke_async(self, request: Any, call: Any) -> Any:
        message = _AsyncRequests(self._parse, call) if self._streams_in else self._parse(request)
        if self._takes_context:
            context = AsyncContext(call, self._method, self._parse, self._encode)
            return self._handler(message, context)
        return self._handler(message)

    async def _fail_async(self, call: Any, error: BaseException) -> NoReturn:
        if isinstance(error, asyncio.CancelledError):
            if not call.is_active() or _task_was_cancelled():
                raise error
            # Something the handler awaited was cancelled, not the call: it still needs a status.
            error = RuntimeError("the handler let a CancelledError out, but was not cancelled")
        elif isinstance(error, KeyboardInterrupt):
            raise error
        status = self._ending(error, call)
        abort: Callable[..., Awaitable[NoReturn]] = call.abort
        await abort(status.code(), status.details(), status.trailing_metadata())

    # ---- both

    def _parse(self, data: bytes) -> Message:
        try:
            return self._request.FromString(data)
        except DecodeError as error:
            name = self._request.DESCRIPTOR.full_name
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT, f"the request is not a valid {name}"
            ) from error

    def _encode(self, response: object) -> bytes:
        # SerializeToString called on the class would take a message of any type.
        if type(response) is not self._response:
            return self._schema.convert(response, self._response).SerializeToString()
        return response.SerializeToString()

    def _not_iterable(self, responses: object) -> TypeError:
        got = type(responses).__name__
        return TypeError(
            f"{self._method} responds with a stream, but its handler returned {got};"
            " yield the messages, or return a list of them"
        )

    def _ending(self, error: BaseException, call: Any) -> StatusError:
        """What the call ends with; there is a status, whatever goes wrong in finding it out."""
        try:
            status = self._status(error, call)
            trailing = (*(call.trailing_metadata() or ()), *status.trailing_metadata())
            # Made anew, which checks it: a class derived from StatusError may say anything.
            return StatusError(status.code(), status.details(), trailing_metadata=trailing)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:
            return self._rules.unforeseen(raised, self._method, self._name)

    def _status(self, error: BaseException, call: Any) -> StatusError:
        """The status for an exception; a code that the handler set before goes first."""
        code = call.code()
        if isinstance(error, StatusError) or code in (None, grpc.StatusCode.OK):
            return self._rules.status(error, self._method, self._name)
        if not isinstance(error, NotImplementedError):  # servicers of generated code raise that
            what = "%s failed in %s after set_code(%s)"
            log_failure(logging.ERROR, error, what, self._method, self._name, code)
        details = call.details() or ""
        return StatusError(code, details if isinstance(details, str) else details.decode())


class _Requests(Iterator[Message]):
    """The requests of a sync handler, parsed one by one.

    A plain function may return an async generator, which runs on the loop with these requests in
    hand: there they are iterated by ``async for``, and waiting for them is refused.
    """

    __slots__ = ("_next", "_parse")

    def __init__(self, parse: Callable[[bytes], Message], requests: Iterable[bytes]) -> None:
        self._parse = parse
        self._next = iter(requests).__next__

    def __next__(self) -> Message:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._parse(self._next())
        raise TypeError(
            "requests were iterated on the event loop, which would block it; use 'async for', or"
            " declare the handler with 'async def'"
        )

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Message]:
        end = object()
        while (request := await asyncio.to_thread(next, self, end)) is not end:
            yield cast("Message", request)


class _AsyncRequests(AsyncIterator[Message]):
    """The requests of an async handler, parsed one by one.

    Read from the call: the iterator that grpc.aio hands out is an async generator, which costs more
    and is left to the garbage collector when a handler does not read to the end.
    """

    __slots__ = ("_parse", "_read")

    def __init__(self, parse: Callable[[bytes], Message], call: Any) -> None:
        self._parse = parse
        self._read = call.read

    def __iter__(self) -> NoReturn:
        raise TypeError("the requests of an async handler are iterated by 'async for'")

    async def __anext__(self) -> Message:
        data = await self._read()
        if data is grpc.aio.EOF:
            raise StopAsyncIteration
        return self._parse(data)


def _task_was_cancelled() -> bool:
    """Whether somebody cancelled the task that runs this, the engine that is.

    Python 3.10 does not tell; there a call whose handler lets a CancelledError out of its own
    making has no status until its deadline, as with grpc.aio itself.
    """
    cancelling: Callable[[], int] | None = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0


class _OnLoop:
    """Awaits on the engine's loop, from a worker thread, what a sync handler returned.

    One thing at a time; what is awaited is cancelled when the call ends.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._loop: asyncio.AbstractEventLoop | None = getattr(call, "event_loop", None)
        self._future: concurrent.futures.Future[Any] | None = None
        call.add_callback(self._cancel)

    def _cancel(self) -> None:
        if self._future is not None:
            self._future.cancel()

    def wait(self, awaitable: Awaitable[Any]) -> Any:
        """The result of the awaitable."""
        if self._loop is None:
            _close(awaitable)
            raise TypeError(_NO_LOOP)

        async def wait() -> Any:
            return await awaitable

        self._future = asyncio.run_coroutine_threadsafe(wait(), self._loop)
        if not self._call.is_active():  # it ended before the callback had something to cancel
            self._future.cancel()
        return self._future.result()

    def iterate(self, responses: AsyncIterable[Any]) -> Iterator[Any]:
        """The items of an async iterable, which is closed at the end."""
        if self._loop is None:
            raise TypeError(_NO_LOOP)
        iterator = aiter(responses)
        end = object()
        try:
            while (response := self.wait(anext(iterator, end))) is not end:
                yield response
        finally:  # not waited for: the call may be over
            asyncio.run_coroutine_threadsafe(_close_async(iterator), self._loop)


def _close(responses: Any) -> None:
    close = getattr(responses, "close", None)
    if close is not None and (inspect.isgenerator(responses) or inspect.iscoroutine(responses)):
        close()


async def _close_async(responses: Any) -> None:
    if inspect.isasyncgen(responses):
        await responses.aclose()
    else:
        _close(responses)
