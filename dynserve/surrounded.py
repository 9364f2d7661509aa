"""A handler with what runs around it: observers, authentication, middleware."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import Message

from dynserve.context import AsyncContext, Context
from dynserve.handlers import Endpoint, Surroundings
from dynserve.identity import Identity
from dynserve.middleware import Entered, enter_async, leave, leave_async, steps_of, swallowed
from dynserve.observer import CallRecord, Observer, Watched
from dynserve.on_loop import OnLoop
from dynserve.status import ErrorRules, StatusError, unforeseen

if TYPE_CHECKING:
    from dynserve.auth.policy import Policy
    from dynserve.handlers import Authenticate

__all__ = ["Gate", "SurroundedEndpoint"]

_SLACK = 0.05  # seconds by which a client that reaches its deadline may be ahead of this clock
_QUICK = 0.01  # seconds; of a shorter call it is not asked whether it is over: that costs
_NO_IDENTITY = "the call is not authenticated"
_NO_RULES = ErrorRules()  # methods that are not there are of no app


class SurroundedEndpoint(Endpoint):
    """One method, its handler, and what runs around it.

    Outermost are the observers, then authentication, then middleware; parsing, the handler and
    encoding are inside of them all.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        around: Surroundings = arguments[-1]
        self._observers = around.observers
        self._authenticate = around.authenticate
        self._authenticate_async = _waiting(around.authenticate)
        self._middleware = around.middleware
        self._steps = steps_of(around.middleware)

    # ---- sync

    def unary(self, request: Any, call: Any) -> bytes:
        """Return the response of a sync handler."""
        context: Context[Any] = Context(call, self._method, self._shared)
        passage = _Passage(self, context)
        entered: Entered = []
        response: bytes | None = None
        error: BaseException | None = None
        try:
            self._enter(call, context, entered)
            response = self._respond(request, call, context, passage.parse, passage.encode)
        except BaseException as raised:
            error = raised
        try:
            if entered:
                error = leave(entered, error, context)
            if error is None and response is not None:
                passage.end()
                return response
            self._end(call, passage, error or swallowed(context, self._method))
        finally:
            error = None  # it holds this frame, by its traceback

    def stream(self, request: Any, call: Any) -> Iterator[bytes]:
        """Yield the responses of a sync handler."""
        context: Context[Any] = Context(call, self._method, self._shared)
        passage = _Passage(self, context)
        entered: Entered = []
        error: BaseException | None = None
        try:
            self._enter(call, context, entered)
            yield from self._respond_all(request, call, context, passage.parse, passage.encode)
        except BaseException as raised:
            error = raised
        try:
            if entered:
                error = leave(entered, error, context)
            if error is not None:
                self._end(call, passage, error)
            passage.end()
        finally:
            error = None

    def _enter(self, call: Any, context: Context[Any], entered: Entered) -> None:
        if self._authenticate is not None:
            found = self._authenticate(context)
            if type(found) is not Identity and inspect.isawaitable(found):
                found = OnLoop(call).wait(found)
            context.identity = _checked(found)
        for step in self._steps:
            entered.append(step(context))

    def _end(self, call: Any, passage: _Passage, error: BaseException) -> NoReturn:
        if isinstance(error, GeneratorExit) or not call.is_active():
            passage.end_cancelled(error)
            if isinstance(error, GeneratorExit):
                raise error
            self._fail_late(error)
        status = self._ending(error, call)
        passage.end_with(status, error)
        self._abort(call, status)

    # ---- async

    async def unary_async(self, request: Any, call: Any) -> bytes:
        """Return the response of an async handler."""
        passage = _Passage(self, call)
        context: Any = passage.context
        entered: Entered = []
        response: bytes | None = None
        error: BaseException | None = None
        try:
            await self._enter_async(context, entered)
            answer = await self._invoke_async(request, call, context, passage.parse)
            response = passage.encode(answer)
        except GeneratorExit:  # the loop is gone, and nothing can be awaited any more
            raise
        except BaseException as raised:
            error = raised
        try:
            if entered:
                error = await leave_async(entered, error, context)
            if error is None and response is not None:
                passage.end()
                return response
            await self._end_async(call, passage, error or swallowed(context, self._method))
        finally:
            error = None
            passage.clear()

    async def stream_async(self, request: Any, call: Any) -> None:
        """Write the responses of an async handler."""
        passage = _Passage(self, call)
        context: Any = passage.context
        entered: Entered = []
        error: BaseException | None = None
        try:
            await self._enter_async(context, entered)
            responses = self._invoke_async(request, call, context, passage.parse)
            await self._write_all(responses, call, passage.encode)
        except GeneratorExit:  # as above
            raise
        except BaseException as raised:
            error = raised
        try:
            if entered:
                error = await leave_async(entered, error, context)
            if error is not None:
                await self._end_async(call, passage, error)
            passage.end()
        finally:
            error = None
            passage.clear()

    async def _enter_async(self, context: AsyncContext[Any], entered: Entered) -> None:
        if self._authenticate_async is not None:
            context.identity = await _identity(self._authenticate_async, context)
        for one in self._middleware:
            entered.append(await enter_async(one, context))

    async def _end_async(self, call: Any, passage: _Passage, error: BaseException) -> NoReturn:
        try:
            foreseen = self._foreseen(error, call)
        except BaseException:
            passage.end_cancelled(error)
            raise
        status = self._ending(foreseen, call)
        passage.end_with(status, error)
        await self._abort_async(call, status)


class _Passage:
    """A call on its way through an endpoint; its messages are counted for the observers."""

    __slots__ = ("_deadline", "_endpoint", "_watched", "context")

    def __init__(self, endpoint: SurroundedEndpoint, given: Any) -> None:
        self._endpoint = endpoint
        if isinstance(given, Context):
            self.context: Any = given
        else:
            method, shared = endpoint._method, endpoint._shared
            self.context = AsyncContext(given, method, self.parse, self.encode, shared)
        self._watched: Watched | None = None
        self._deadline: float | None = None
        if endpoint._observers:
            record = CallRecord(endpoint._method.path, endpoint._method, self.context)
            left = self.context.time_remaining()
            if left is not None:
                self._deadline = record.started + left
            self._watched = Watched(endpoint._observers, record)

    def parse(self, data: bytes) -> Message:
        if self._watched is not None:
            record = self._watched.record
            record.request_messages += 1
            record.request_bytes += len(data)
        return self._endpoint.parse(data)

    def encode(self, response: object) -> bytes:
        data = self._endpoint.encode(response)
        if self._watched is not None:
            record = self._watched.record
            record.response_messages += 1
            record.response_bytes += len(data)
        return data

    def clear(self) -> None:
        """The call is over: nothing is left that goes round in a circle."""
        self.context = self._watched = None

    def end(self) -> None:
        """The handler returned."""
        if self._watched is None:
            return
        code, details = _said(self.context)
        if code is grpc.StatusCode.OK:
            if self._is_late(0.0):  # nobody waited for the response
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            elif self._is_over():
                code = grpc.StatusCode.CANCELLED
        self._watched.end(code, details)

    def end_with(self, status: StatusError, error: BaseException) -> None:
        if self._watched is not None:
            self._watched.record.error = error
            self._watched.record.error_id = status.error_id
            self._watched.end(status.code(), status.details())

    def end_cancelled(self, error: BaseException) -> None:
        """The call was over before its handler was."""
        if self._watched is not None:
            is_late = self._is_late(_SLACK)
            code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
            self._watched.record.error = error
            self._watched.end(code)

    def _is_over(self) -> bool:
        context = self.context
        if isinstance(context, AsyncContext):  # grpc.aio's own says so to the task only
            cancelling = getattr(asyncio.current_task(), "cancelling", None)  # not in Python 3.10
            return context.done() or (cancelling is not None and cancelling() > 0)
        started = self._watched.record.started if self._watched is not None else 0.0
        return time.perf_counter() - started > _QUICK and not context.is_active()

    def _is_late(self, slack: float) -> bool:
        return self._deadline is not None and time.perf_counter() + slack >= self._deadline


class Gate:
    """What stands in front of what nobody handles: unknown methods, calls that are refused.

    Args:
        observers: see these calls too.
        policy: has the first word, so that strangers do not learn what there is.
    """

    def __init__(self, observers: Sequence[Observer] = (), policy: Policy | None = None) -> None:
        self._observers = observers
        self._policy = policy

    async def refuse(self, path: str, make: Callable[[str], StatusError], call: Any) -> None:
        """End a call with the status that ``make`` gives for the path; the loop's."""
        if not (self._observers or self._policy):
            status = make(path)
            await call.abort(status.code(), status.details())
            return
        context: AsyncContext[Any] = AsyncContext(call, None, _as_is, _as_is)  # type: ignore[arg-type]
        watched = Watched(self._observers, CallRecord(path, None, context))
        try:
            status = await self._status(path, make, context)
        except BaseException as error:  # the call was cancelled, or the loop is gone
            watched.record.error = error
            watched.end(grpc.StatusCode.CANCELLED)
            raise
        watched.record.error = status
        watched.record.error_id = status.error_id
        watched.end(status.code(), status.details())
        try:
            await call.abort(status.code(), status.details(), status.trailing_metadata())
        finally:
            del status  # it holds this frame, by its traceback

    async def _status(
        self, path: str, make: Callable[[str], StatusError], context: AsyncContext[Any]
    ) -> StatusError:
        if self._policy is not None and self._policy.needs_authentication(path):
            try:
                context.identity = await _identity(_waiting(self._policy.authenticate), context)
            except StatusError as error:
                return _NO_RULES.status(error, path)
            except Exception as error:
                return unforeseen(error, path)
        return make(path)


def _as_is(value: Any) -> Any:
    return value


def _waiting(authenticate: Any) -> Any:
    """What to ask on the loop: an authenticator that may have to wait offers it beside."""
    return getattr(authenticate, "authenticate_async", authenticate)


async def _identity(authenticate: Authenticate, context: AsyncContext[Any]) -> Any:
    found = authenticate(context)
    if type(found) is not Identity and inspect.isawaitable(found):
        found = await found
    return _checked(found)


def _checked(identity: Any) -> Any:
    if identity is None:
        raise StatusError(grpc.StatusCode.UNAUTHENTICATED, _NO_IDENTITY)
    if not isinstance(identity, Identity):  # True may mean anything, False too
        raise TypeError(
            f"an authenticator returned {type(identity).__name__}, expected an Identity, or None to"
            " refuse"
        )
    return identity


def _said(context: Context[Any] | AsyncContext[Any]) -> tuple[grpc.StatusCode, str]:
    """What a handler that returned has said of the status."""
    code = context.code()
    if code is None or code is grpc.StatusCode.OK:
        return grpc.StatusCode.OK, ""
    return code, context.details()
