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
import inspect
import logging
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from dynserve.callables import full_name, shape_of
from dynserve.context import AsyncContext, Context, Shared
from dynserve.method import Kind, MethodInfo
from dynserve.on_loop import OnLoop, close, close_async
from dynserve.schema import Schema
from dynserve.status import ErrorRules, StatusError, log_failure

if TYPE_CHECKING:
    from dynserve.identity import Identity
    from dynserve.middleware import Middleware
    from dynserve.observer import Observer

    Authenticate: TypeAlias = Callable[[Any], "Identity | Awaitable[Identity | None] | None"]

__all__ = ["ALONE", "Endpoint", "Surroundings", "make_method_handler"]

Parse: TypeAlias = Callable[[bytes], Message]
Encode: TypeAlias = Callable[[object], bytes]

_MAKERS: dict[Kind, Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
    Kind.UNARY_UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.UNARY_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.STREAM_UNARY: grpc.stream_unary_rpc_method_handler,
    Kind.STREAM_STREAM: grpc.stream_stream_rpc_method_handler,
}


class Surroundings(NamedTuple):
    """What runs around a handler, and what it shares with others; the outermost first."""

    observers: Sequence[Observer] = ()
    authenticate: Authenticate | None = None
    middleware: Sequence[Middleware] = ()
    check: Callable[[Message], None] | None = None
    shared: Shared = Shared()

    def is_empty(self) -> bool:
        """Whether nothing runs around the handler."""
        return not (self.observers or self.authenticate or self.middleware)


ALONE = Surroundings()


def make_method_handler(
    method: MethodInfo,
    handler: Callable[..., Any],
    schema: Schema,
    rules: ErrorRules,
    around: Surroundings = ALONE,
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
    if around.is_empty():
        make: type[Endpoint] = Endpoint
    else:
        from dynserve.surrounded import SurroundedEndpoint as make  # most handlers stand alone
    endpoint = make(method, handler, schema, rules, shape.takes_context, around)
    behaviours = {
        (False, False): endpoint.unary,
        (False, True): endpoint.stream,
        (True, False): endpoint.unary_async,
        (True, True): endpoint.stream_async,
    }
    return _MAKERS[method.kind](behaviours[shape.is_async, method.kind.response_streaming])


class Endpoint:
    """One method and its handler: the four behaviours, of which one is used."""

    def __init__(
        self,
        method: MethodInfo,
        handler: Callable[..., Any],
        schema: Schema,
        rules: ErrorRules,
        takes_context: bool,
        around: Surroundings,
    ) -> None:
        self._method = method
        self._handler = handler
        self._name = full_name(handler)
        self._schema = schema
        self._rules = rules
        self._takes_context = takes_context
        self._shared = around.shared
        self._check = around.check
        self._request = method.request
        self._response = method.response
        self._streams_in = method.kind.request_streaming

    # ---- sync

    def unary(self, request: Any, call: Any) -> bytes:
        """Return the response of a sync handler."""
        try:
            context = Context(call, self._method, self._shared) if self._takes_context else None
            return self._respond(request, call, context, self.parse, self.encode)
        except BaseException as error:
            self._fail(call, error)

    def stream(self, request: Any, call: Any) -> Iterator[bytes]:
        """Yield the responses of a sync handler."""
        try:
            context = Context(call, self._method, self._shared) if self._takes_context else None
            yield from self._respond_all(request, call, context, self.parse, self.encode)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._fail(call, error)

    def _respond(
        self, request: Any, call: Any, context: Context | None, parse: Parse, encode: Encode
    ) -> bytes:
        response = self._invoke(request, context, parse)
        if type(response) is not self._response and inspect.isawaitable(response):
            response = OnLoop(call).wait(response)
        return encode(response)

    def _respond_all(
        self, request: Any, call: Any, context: Context | None, parse: Parse, encode: Encode
    ) -> Iterator[bytes]:
        responses = self._invoke(request, context, parse)
        try:
            if inspect.isawaitable(responses):
                responses = OnLoop(call).wait(responses)
            for response in self._iterable(responses, call):
                yield encode(response)
        finally:
            close(responses)

    def _invoke(self, request: Any, context: Context | None, parse: Parse) -> Any:
        message = _Requests(parse, request) if self._streams_in else parse(request)
        if self._takes_context:
            return self._handler(message, context)
        return self._handler(message)

    def _iterable(self, responses: Any, call: Any) -> Iterable[Any]:
        if isinstance(responses, AsyncIterable):
            return OnLoop(call).iterate(responses)
        if isinstance(responses, Iterable) and not isinstance(responses, (Message, dict, str)):
            return responses
        raise self._not_iterable(responses)

    def _fail(self, call: Any, error: BaseException) -> NoReturn:
        """End the call with the status for an exception, by raising what the engine expects."""
        if not call.is_active():  # nobody to answer, and most likely the cause of the error
            self._fail_late(error)
        self._abort(call, self._ending(error, call))

    def _fail_late(self, error: BaseException) -> NoReturn:
        if not isinstance(error, grpc.RpcError):
            what = "%s failed in %s after its call had ended"
            log_failure(logging.WARNING, error, what, self._method, self._name)
        raise error

    @staticmethod
    def _abort(call: Any, status: StatusError) -> NoReturn:
        abort: Callable[..., NoReturn] = call.abort
        abort(status.code(), status.details(), status.trailing_metadata())

    # ---- async

    async def unary_async(self, request: Any, call: Any) -> bytes:
        """Return the response of an async handler."""
        try:
            context = self._async_context(call, self.parse, self.encode)
            return self.encode(await self._invoke_async(request, call, context, self.parse))
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
            context = self._async_context(call, self.parse, self.encode)
            responses = self._invoke_async(request, call, context, self.parse)
            await self._write_all(responses, call, self.encode)
        except GeneratorExit:  # as above
            raise
        except BaseException as error:
            await self._fail_async(call, error)

    def _async_context(self, call: Any, parse: Parse, encode: Encode) -> AsyncContext[Any] | None:
        if not self._takes_context:
            return None
        return AsyncContext(call, self._method, parse, encode, self._shared)

    async def _write_all(self, responses: Any, call: Any, encode: Encode) -> None:
        try:
            if inspect.isawaitable(responses):
                responses = await responses
            if isinstance(responses, AsyncIterable):
                async for response in responses:
                    await call.write(encode(response))
            elif responses is not None:  # None: it wrote through its context
                for response in self._iterable(responses, call):
                    await call.write(encode(response))
        finally:
            await close_async(responses)

    def _invoke_async(
        self, request: Any, call: Any, context: AsyncContext[Any] | None, parse: Parse
    ) -> Any:
        message = _AsyncRequests(parse, call) if self._streams_in else parse(request)
        if self._takes_context:
            return self._handler(message, context)
        return self._handler(message)

    async def _fail_async(self, call: Any, error: BaseException) -> NoReturn:
        await self._abort_async(call, self._ending(self._foreseen(error, call), call))

    @staticmethod
    def _foreseen(error: BaseException, call: Any) -> BaseException:
        """The error that the call ends with; raised is what the engine has to be told itself."""
        if isinstance(error, asyncio.CancelledError):
            if not call.is_active() or _task_was_cancelled():
                raise error
            # Something the handler awaited was cancelled, not the call: it still needs a status.
            return RuntimeError("the handler let a CancelledError out, but was not cancelled")
        if isinstance(error, KeyboardInterrupt):
            raise error
        return error

    @staticmethod
    async def _abort_async(call: Any, status: StatusError) -> NoReturn:
        abort: Callable[..., Awaitable[NoReturn]] = call.abort
        await abort(status.code(), status.details(), status.trailing_metadata())
        raise status  # call.abort() has raised; this is for the reader

    # ---- both

    def parse(self, data: bytes) -> Message:
        """The request in some bytes.

        Raises:
            StatusError: it does not parse, or is against the rules of its schema.
        """
        try:
            request = self._request.FromString(data)
        except DecodeError as error:
            name = self._request.DESCRIPTOR.full_name
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT, f"the request is not a valid {name}"
            ) from error
        if self._check is not None:
            self._check(request)
        return request

    def encode(self, response: object) -> bytes:
        """The bytes of a response.

        Raises:
            MessageError: it is not, and does not become, a message of the response type.
        """
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
            ending = StatusError(status.code(), status.details(), trailing_metadata=trailing)
            ending.error_id = status.error_id
            return ending
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
