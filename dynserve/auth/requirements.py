"""Requirements: middleware that asks more of a caller than to be known."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeAlias

import grpc

from dynserve.status import StatusError

__all__ = ["require", "require_scopes"]

_log = logging.getLogger("dynserve.auth")

_Middleware: TypeAlias = Callable[[Any], Generator[None, Any, None]]


def require_scopes(*scopes: str) -> _Middleware:
    """Middleware that lets a call through only with all these OAuth scopes.

    ::

        @app.rpc("pkg.Service/Delete", middleware=[require_scopes("admin", "write")])
        def delete(request): ...

    Scopes are the claim ``scope``, a text with spaces between them
    (https://www.rfc-editor.org/rfc/rfc8693#section-4.2), or ``scp``, as some issuers have it; each
    may be a list too. Refused is with PERMISSION_DENIED; UNAUTHENTICATED where nobody is known.

    Raises:
        TypeError, ValueError: no scopes, or one that cannot be one.
    """
    if not scopes:
        raise TypeError("require_scopes() got no scope, expected one or more")
    for scope in scopes:
        if not isinstance(scope, str):
            raise TypeError(f"require_scopes() got {scope!r}, expected scopes as str")
        # https://www.rfc-editor.org/rfc/rfc6749#section-3.3
        if not (scope.isascii() and scope.isprintable()) or set(scope) & set(' "\\') or not scope:
            raise ValueError(
                f"require_scopes() got {scope!r}; a scope is printable ASCII without spaces,"
                " quotes and backslashes"
            )
    needed = frozenset(scopes)
    word = "scope" if len(scopes) == 1 else "scopes"
    text = f"this method needs the {word} {_listed(scopes)}"
    challenge = f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'

    def scoped(context: Any) -> Generator[None, Any, None]:
        claims = _claims(context)
        if not needed <= {*_scopes(claims.get("scope")), *_scopes(claims.get("scp"))}:
            _deny(context, text, (("www-authenticate", challenge),))
        yield

    return scoped


def require(claims: Mapping[str, object] | None = None, /, **named: object) -> _Middleware:
    """Middleware that lets a call through only with these claims.

    ::

        service.add_middleware(require(tenant="acme", role={"owner", "admin"}))
        service.add_middleware(require({"https://example.com/role": "admin"}))

    A claim fits where it equals the value, or is a list that has it in it; given several values in
    a set, list or tuple, one of them is enough. Refused is with PERMISSION_DENIED, and without
    the values; UNAUTHENTICATED where nobody is known.

    Args:
        claims: by name, where a name is no Python one.
        named: the same, by keyword.

    Raises:
        TypeError: there are none, or a value is None.
    """
    needed = {name: _values(name, value) for name, value in {**(claims or {}), **named}.items()}
    if not needed:
        raise TypeError("require() got no claim, expected require(role='admin') or the like")
    word = "claim" if len(needed) == 1 else "claims"
    text = f"this method needs the {word} {_listed(needed)}"

    def required(context: Any) -> Generator[None, Any, None]:
        claims = _claims(context)
        if not all(_fits(claims.get(name), values) for name, values in needed.items()):
            _deny(context, text)
        yield

    return required


def _claims(context: Any) -> Mapping[str, Any]:
    """What is known of the caller.

    Raises:
        StatusError: UNAUTHENTICATED, it is not known who calls.
    """
    if context.identity is None:
        text = "this method needs an authenticated caller"
        raise StatusError(grpc.StatusCode.UNAUTHENTICATED, text)
    claims: Mapping[str, Any] = context.identity.claims
    return claims


def _deny(context: Any, text: str, trailing: Iterable[tuple[str, str]] = ()) -> None:
    _log.debug("%s from %s by %r: %s", context.method, context.peer(), context.identity, text)
    raise StatusError(grpc.StatusCode.PERMISSION_DENIED, text, trailing_metadata=trailing)


def _scopes(claim: object) -> list[str]:
    if isinstance(claim, str):
        return claim.split(" ")
    return [one for one in claim if isinstance(one, str)] if isinstance(claim, list) else []


def _values(name: str, value: object) -> list[object]:
    values = list(value) if isinstance(value, (set, frozenset, list, tuple)) else [value]
    if not values or None in values:
        raise TypeError(f"require() got {name}={value!r}, expected a value, or a set of values")
    return values


def _fits(claim: object, values: list[object]) -> bool:
    """Whether a claim has one of the values; True is not 1 here, as it is not in JSON."""
    claims = claim if isinstance(claim, list) else [claim]
    return any(type(one) is type(value) and one == value for one in claims for value in values)


def _listed(names: Iterable[str]) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} and {last}" if others else last
