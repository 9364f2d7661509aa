"""Middleware: a generator function with one ``yield``, which runs around a handler.

What comes before the ``yield`` runs before the request is parsed, what comes after it when the
response is encoded, or when the last one of a stream is. An exception of the handler is thrown in
at the ``yield``, and goes on from there unless the middleware lets it end. The value of the
``yield`` is the ``grpc.StatusCode`` that the handler ended with.

Sync middleware runs where the handler does, on its thread or on the event loop: there is no switch
of threads, and around async handlers it must not block. Async middleware runs on the loop: around a
sync handler, in one task for both its halves.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import types
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias

import grpc

from dynserve.callables import function_of, place_of
from dynserve.method import MethodInfo
from dynserve.status import StatusError

__all__ = [
    "Entered",
    "Middleware",
    "enter_async",
    "leave",
    "leave_async",
    "steps_of",
    "swallowed",
    "take_over",
]

_EXPECTED = "expected a generator function with one yield: def around(context): ...; yield; ..."


class Middleware:
    """A checked one-``yield`` function.

    Args:
        function: sync or async; called with the context, and with ``values`` after it.
        values: such as that of an option.

    Raises:
        TypeError: it is no generator function, or does not take that many arguments.
    """

    __slots__ = ("_values", "function", "is_async", "where")

    def __init__(self, function: Callable[..., Any], *values: Any) -> None:
        behind = function_of(function)
        self.is_async = inspect.isasyncgenfunction(behind)
        if not (self.is_async or inspect.isgeneratorfunction(behind)):
            raise TypeError(f"got {function!r} as middleware, {_EXPECTED}")
        try:
            inspect.signature(function).bind(None, *values)
        except TypeError as error:
            taken = "(context, value)" if values else "(context)"
            raise TypeError(f"middleware {place_of(function)} does not take {taken}") from error
        self.function = function
        self.where = place_of(function)
        self._values = values

    def with_value(self, value: Any) -> Middleware:
        """The same, called with a value after the context."""
        return Middleware(self.function, value)

    def begin(self, context: Any) -> Any:
        """Its generator, sync or async."""
        return self.function(context, *self._values)


Entered: TypeAlias = list[Any]  # generators, the outermost first


# ---- around a sync handler


def steps_of(middleware: Sequence[Middleware]) -> list[Callable[[Any], Any]]:
    """What enters each around a sync handler; those in a row that are async are entered at once.

    A step takes the context, and returns a generator, or what has the same methods.
    """
    steps: list[Callable[[Any], Any]] = []
    group: list[Middleware] = []
    for one in middleware:
        if one.is_async:
            if not group:
                group = []
                steps.append(_group_step(group))
            group.append(one)
        else:
            group = []
            steps.append(_sync_step(one))
    return steps


def _sync_step(one: Middleware) -> Callable[[Any], Any]:
    def enter(context: Any) -> Generator[None, grpc.StatusCode, None]:
        generator: Generator[None, grpc.StatusCode, None] = one.begin(context)
        try:
            next(generator)
        except StopIteration:
            raise _did_not_yield(one) from None
        return generator

    return enter


def _group_step(group: Sequence[Middleware]) -> Callable[[Any], Any]:
    return lambda context: _Group(group, context)


def leave(entered: Entered, error: BaseException | None, context: Any) -> BaseException | None:
    """Leave each, the innermost first, with the exception that comes out of the one inside of it.

    Returns what comes out of the outermost, None where nothing does.
    """
    while entered:
        generator = entered.pop()
        try:
            if error is None:
                generator.send(_code_of(context))
            else:
                generator.throw(error)
        except StopIteration:
            error = None
        except BaseException as raised:
            error = _original(raised, error)
        else:
            generator.close()
            error = _yielded_twice(generator)
    return error


class _Group:
    """Async middleware around a sync handler: a task on the loop, for which the thread waits.

    Should the call end while the middleware waits for something, that is cancelled. Not while the
    handler runs: what the middleware holds for it stays.
    """

    def __init__(self, middleware: Sequence[Middleware], context: Any) -> None:
        self._loop: asyncio.AbstractEventLoop = context.event_loop
        self._entered: concurrent.futures.Future[contextvars.Context] = concurrent.futures.Future()
        self._goes_on: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._is_handling = False  # the loop's
        self._is_over_already = False  # when the handler ended
        self._context = context
        self._task = asyncio.run_coroutine_threadsafe(self._run(middleware, context), self._loop)
        self._task.add_done_callback(self._is_over)
        if not context.add_callback(self._on_call_end):  # it has ended
            self._on_call_end()
        take_over(self._entered.result())

    async def _run(
        self, middleware: Sequence[Middleware], context: Any
    ) -> tuple[BaseException | None, contextvars.Context]:
        entered: Entered = []
        error: BaseException | None = None
        try:
            for one in middleware:
                entered.append(await enter_async(one, context))
            self._is_handling = True
            self._entered.set_result(contextvars.copy_context())
            error = await self._goes_on
        except BaseException as raised:
            error = raised
        self._is_handling = False
        return await leave_async(entered, error, context), contextvars.copy_context()

    def _on_call_end(self) -> None:  # any thread
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:  # loop
        if not (self._is_handling or self._is_over_already):  # else it cleans up, in peace
            self._task.cancel()

    def _is_over(self, task: concurrent.futures.Future[Any]) -> None:
        if self._entered.done():
            return
        error: BaseException | None = _over()
        if not task.cancelled():
            error = task.exception() or task.result()[0] or _forgiven()
        if isinstance(error, asyncio.CancelledError):
            error = _over()
        self._entered.set_exception(error)

    def send(self, _code: grpc.StatusCode) -> None:
        """The handler returned."""
        self._end(None)

    def throw(self, error: BaseException) -> None:
        """The handler raised."""
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._is_over_already = not self._context.is_active()
        self._loop.call_soon_threadsafe(self._go_on, error)
        try:
            left, changed = self._task.result()
        except concurrent.futures.CancelledError:
            raise _over() from error
        take_over(changed)
        if left is not None:
            raise left
        raise StopIteration

    def _go_on(self, error: BaseException | None) -> None:  # loop
        if not self._goes_on.done():  # else it was cancelled, by a time limit of its own say
            self._goes_on.set_result(error)


def take_over(changed: contextvars.Context) -> None:
    """Set what was set on the loop: middleware and handler share their context variables."""
    here = contextvars.copy_context()
    for variable, value in changed.items():
        if variable not in here or here[variable] is not value:
            variable.set(value)


# ---- around an async handler


async def enter_async(one: Middleware, context: Any) -> Any:
    """Enter one, sync or async, around an async handler; returns its generator."""
    generator = one.begin(context)
    try:
        if one.is_async:
            await anext(generator)
        else:
            next(generator)
    except (StopIteration, StopAsyncIteration):
        raise _did_not_yield(one) from None
    return generator


async def leave_async(
    entered: Entered, error: BaseException | None, context: Any
) -> BaseException | None:
    """As :func:`leave`, around an async handler."""
    while entered:
        generator = entered.pop()
        try:
            if isinstance(generator, types.AsyncGeneratorType):
                if error is None:
                    await generator.asend(_code_of(context))
                else:
                    await generator.athrow(error)
            elif error is None:
                generator.send(_code_of(context))
            else:
                generator.throw(error)
        except (StopIteration, StopAsyncIteration):
            error = None
        except BaseException as raised:
            error = _original(raised, error)
        else:
            if isinstance(generator, types.AsyncGeneratorType):
                await generator.aclose()
            else:
                generator.close()
            error = _yielded_twice(generator)
    return error


# ---- both


def swallowed(context: Any, method: MethodInfo) -> Exception:
    """What a call without a response ends with whose exception a middleware let end."""
    code = context.code()
    if code not in (None, grpc.StatusCode.OK):
        return StatusError(code, context.details())
    return RuntimeError(
        f"middleware of {method} let its handler's exception end, but there is no response;"
        " raise a StatusError, or call context.set_code()"
    )


def _code_of(context: Any) -> grpc.StatusCode:
    code: grpc.StatusCode | None = context.code()
    return grpc.StatusCode.OK if code is None else code


def _original(raised: BaseException, error: BaseException | None) -> BaseException:
    """What was raised; Python wraps a StopIteration that comes out of a generator."""
    wrapped = isinstance(raised, RuntimeError) and error is not None and raised.__cause__ is error
    is_stop = isinstance(error, (StopIteration, StopAsyncIteration))
    return error if wrapped and is_stop and error is not None else raised


def _did_not_yield(one: Middleware) -> RuntimeError:
    return RuntimeError(
        f"middleware {one.where} ended without a yield; raise a StatusError to refuse a call"
    )


def _yielded_twice(generator: Any) -> RuntimeError:
    return RuntimeError(f"middleware {generator.__qualname__} has more than one yield")


def _forgiven() -> RuntimeError:
    return RuntimeError(
        "async middleware let the exception of another end, which came before the handler; raise a"
        " StatusError to refuse a call"
    )


def _over() -> grpc.RpcError:
    return grpc.RpcError("the call ended while its middleware ran")
