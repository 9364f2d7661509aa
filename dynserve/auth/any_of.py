"""Several authenticators as one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dynserve.auth.refusals import RefusalError, Weight, check_authenticator
from dynserve.auth.steps import Steps, run, run_async
from dynserve.identity import Identity
from dynserve.status import StatusError

__all__ = ["AnyOf", "any_of"]


def any_of(*authenticators: Callable[[Any], Any]) -> AnyOf:
    """An authenticator that asks each, and has the first identity.

    Where all refuse, the caller gets the refusal that tells the most: one about something that was
    understood (it has expired, it may not) before one about something unknown, and of the same
    sort the first. Where nothing was given at all, it says all that could be. An exception that is
    no ``StatusError`` is not caught.

    Args:
        authenticators: at least one, sync or async; asked in this order.

    Raises:
        TypeError: there is none, or one cannot be called.
    """
    if not authenticators:
        raise TypeError("any_of() got no authenticator, expected one or more")
    every: list[Callable[[Any], Any]] = []
    for one in authenticators:
        check_authenticator(one)
        every += one.authenticators if isinstance(one, AnyOf) else [one]
    return AnyOf(every)


class AnyOf:
    """What :func:`any_of` returns.

    Called, it returns what it found; or, with an authenticator that is only async among them, an
    awaitable of that.
    """

    def __init__(self, authenticators: Sequence[Callable[[Any], Any]]) -> None:
        self.authenticators = tuple(authenticators)
        self._is_async = any(map(_is_async, authenticators))

    def __call__(self, context: Any) -> Identity | Awaitable[Identity | None] | None:
        """Who calls; None where each authenticator returned None.

        Raises:
            StatusError: all refused.
        """
        if self._is_async:
            return self.authenticate_async(context)
        return run(self._steps(context))

    async def authenticate_async(self, context: Any) -> Identity | None:
        """As calling it, with the loop free wherever an authenticator waits."""
        return await run_async(self._steps(context))

    def __repr__(self) -> str:
        return f"any_of({', '.join(map(repr, self.authenticators))})"

    def _steps(self, context: Any) -> Steps[Identity | None]:
        refusals: list[StatusError] = []
        try:
            for one in self.authenticators:
                try:
                    identity: Identity | None = yield _Ask(one, context)
                except StatusError as refusal:
                    refusals.append(refusal)
                else:
                    if identity is not None:
                        return identity  # checked by who asked
            if refusals:
                raise _most_telling(refusals)
            return None
        finally:
            refusals.clear()  # each holds this frame, by its traceback


class _Ask:
    """Asks one authenticator."""

    def __init__(self, authenticate: Callable[[Any], Any], context: Any) -> None:
        self._authenticate = authenticate
        self._context = context

    def now(self) -> Any:
        found = self._authenticate(self._context)
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            raise TypeError(
                f"authenticator {self._authenticate!r} returned an awaitable; declare it with"
                " 'async def'"
            )
        return found

    async def later(self) -> Any:
        ask = getattr(self._authenticate, "authenticate_async", self._authenticate)
        found = ask(self._context)
        return await found if inspect.isawaitable(found) else found


def _is_async(authenticate: Callable[[Any], Any]) -> bool:
    """Whether it can only be awaited."""
    call = getattr(type(authenticate), "__call__", None)  # noqa: B004  # the function is wanted
    return inspect.iscoroutinefunction(authenticate) or inspect.iscoroutinefunction(call)


def _most_telling(refusals: Sequence[StatusError]) -> StatusError:
    def weight(refusal: StatusError) -> Weight:
        # An authenticator of somebody else says what it has to say.
        return refusal.weight if isinstance(refusal, RefusalError) else Weight.TELLING

    best = max(refusals, key=weight)  # of equal ones the first
    if weight(best) is not Weight.MISSING:
        return best
    texts = ", or ".join(dict.fromkeys(refusal.details() for refusal in refusals))
    pairs = dict.fromkeys(pair for refusal in refusals for pair in refusal.trailing_metadata())
    challenge = next((str(value) for key, value in pairs if key == "www-authenticate"), "")
    return RefusalError(texts, Weight.MISSING, challenge=challenge)
