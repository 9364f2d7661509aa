"""What a caller sent as its credential, read from the call's metadata."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from dynserve.auth.refusals import RefusalError, Weight, refused

__all__ = ["AUTHORIZATION", "MAX_CREDENTIAL", "bearer_token", "credential"]

AUTHORIZATION = "authorization"
MAX_CREDENTIAL = 16384  # characters; nothing longer is looked at

_no_token = functools.partial(
    RefusalError,
    f"a bearer token is needed in metadata {AUTHORIZATION!r}",
    Weight.MISSING,
    challenge="Bearer",
)
_bad_form = functools.partial(
    RefusalError,
    f"metadata {AUTHORIZATION!r} is not of the form 'Bearer TOKEN'",
    Weight.INVALID,
    challenge="Bearer",
)


def credential(context: Any, key: str, missing: Callable[[], RefusalError], subject: str) -> str:
    """The one value that was sent under a key: printable ASCII, not empty, of a bounded length.

    Args:
        context: of the call.
        key: the metadata key, in lower case.
        missing: makes the refusal where there is none.
        subject: what the value is, such as ``"the token"``, for refusals.

    Raises:
        RefusalError: it is missing, sent twice, too long, or has characters that none may have.
    """
    values = [value for name, value in context.invocation_metadata() if name == key]
    if not values:
        raise refused(context, missing(), "no metadata %r", key)
    if len(values) > 1:
        # Which of them a proxy in front has checked, nobody knows.
        text = f"metadata {key!r} was sent more than once; send it once"
        raise refused(context, RefusalError(text), "%d values of metadata %r", len(values), key)
    value = values[0] if isinstance(values[0], str) else values[0].decode("latin-1")
    if len(value) > MAX_CREDENTIAL:
        text = f"{subject} is longer than {MAX_CREDENTIAL} characters"
        raise refused(context, RefusalError(text), "%d characters in metadata %r", len(value), key)
    if not value:
        raise refused(context, missing(), "metadata %r is empty", key)
    if not (value.isascii() and value.isprintable()):
        # gRPC lets bytes above 0x7e through, though its rules do not.
        text = f"{subject} has characters that are not printable ASCII"
        raise refused(context, RefusalError(text), "metadata %r is not printable ASCII", key)
    return value


def bearer_token(context: Any) -> str:
    """The token in ``authorization: Bearer TOKEN``.

    The scheme may be in any case (https://www.rfc-editor.org/rfc/rfc9110#section-11.1).

    Raises:
        RefusalError: there is none.
    """
    value = credential(context, AUTHORIZATION, _no_token, "the token")
    scheme, _, token = value.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        raise refused(context, _bad_form(), "the scheme is not Bearer, or there is no token")
    return token
