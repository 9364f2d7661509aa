"""Refusals: what a caller that is not let in is told, and what only the log is told.

A caller is told what is expected, in fixed texts, and never what is known here. A refusal about a
bearer token also says so in the trailing metadata ``www-authenticate``, as
https://www.rfc-editor.org/rfc/rfc6750#section-3 has it; proxies and browsers' clients read that.
"""

from __future__ import annotations

import enum
import logging
from typing import Any

import grpc

from dynserve.status import StatusError

__all__ = ["RefusalError", "Weight", "check_authenticator", "invalid_token", "refused"]

_log = logging.getLogger("dynserve.auth")


class Weight(enum.IntEnum):
    """How much a refusal tells a caller that several authenticators refused."""

    MISSING = 0  # it gave nothing of that sort
    INVALID = 1  # it gave something that may have been meant for another
    TELLING = 2  # it gave something that was understood, and is not enough


class RefusalError(StatusError):
    """A refusal by an authenticator of this package.

    Args:
        message: the text for the caller.
        weight: how much it tells.
        code: UNAUTHENTICATED, unless who calls is known, or cannot be found out at the moment.
        challenge: the value of ``www-authenticate``, if any.
    """

    def __init__(
        self,
        message: str,
        weight: Weight = Weight.TELLING,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNAUTHENTICATED,
        challenge: str = "",
    ) -> None:
        trailing = (("www-authenticate", challenge),) if challenge else ()
        super().__init__(code, message, trailing_metadata=trailing)
        self.weight = weight


def invalid_token(
    message: str = "the token is not valid", weight: Weight = Weight.INVALID
) -> RefusalError:
    """The refusal of a bearer token that was sent."""
    return RefusalError(message, weight, challenge='Bearer error="invalid_token"')


def refused(context: Any, refusal: RefusalError, reason: str, *arguments: object) -> RefusalError:
    """The refusal, to be raised; the log gets the reason, which must hold nothing secret.

    The level is DEBUG: another authenticator may accept the call, and the access log has each call
    that is refused in the end. Who raises it must not have it in a variable: it holds the frame by
    its traceback, and a flood of refused calls would leave that many cycles behind.
    """
    if _log.isEnabledFor(logging.DEBUG):
        about = f"%s from %s: {reason}"
        _log.debug(about, getattr(context, "method", None), context.peer(), *arguments)
    return refusal


def check_authenticator(given: object) -> None:
    """Refuse what cannot be asked who calls.

    Raises:
        TypeError: it is a class, or cannot be called.
    """
    if not callable(given) or isinstance(given, type):
        raise TypeError(
            f"got {given!r} as an authenticator, expected a callable that takes the context and"
            " returns an Identity or None"
        )
