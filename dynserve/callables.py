"""What a user's callable is: found out once, when it is bound."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Shape", "full_name", "function_of", "own_name", "place_of", "shape_of"]

_CONTEXT_NAMES = {"context", "ctx", "_context", "_ctx"}


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
    function = function_of(handler)
    is_async_generator = inspect.isasyncgenfunction(function)
    return Shape(
        is_async=is_async_generator or inspect.iscoroutinefunction(function),
        is_generator=is_async_generator or inspect.isgeneratorfunction(function),
        takes_context=_takes_context(handler),
    )


def function_of(handler: Any) -> Any:
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


def full_name(handler: Callable[..., Any]) -> str:
    """Where a handler lives, for the log: ``module.qualname``."""
    function = function_of(handler)
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


def own_name(handler: Callable[..., Any]) -> str | None:
    """The name that a callable was given where it was written; None for a lambda or an object."""
    if isinstance(handler, functools.partial):
        return own_name(handler.func)
    name = getattr(handler, "__name__", None)
    return None if name == "<lambda>" else name


def place_of(handler: Callable[..., Any]) -> str:
    """Where a handler was written, for an error: ``name (file.py:12)``."""
    if isinstance(handler, functools.partial):
        return place_of(handler.func)
    name = getattr(handler, "__qualname__", None) or f"{type(handler).__qualname__} object"
    function: Any = inspect.unwrap(handler)
    if not inspect.isroutine(function) and not isinstance(function, type):
        function = getattr(type(function), "__call__", function)  # noqa: B004 - the function is wanted
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name
