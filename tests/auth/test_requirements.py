"""Requirements: middleware by scopes and claims."""

from __future__ import annotations

import inspect
import logging
from typing import Any, cast

import grpc
import pytest

from dynserve import StatusError
from dynserve.auth import require, require_scopes
from dynserve.identity import Identity
from dynserve.testing import FakeAsyncContext, FakeContext
from tests.auth.asking import WORLDS

DENIED = grpc.StatusCode.PERMISSION_DENIED
UNKNOWN = (
    grpc.StatusCode.UNAUTHENTICATED,
    "this method needs an authenticated caller",
    (),
)


def through(middleware: Any, claims: dict[str, Any] | None, world: str = "sync") -> Any:
    """True where a call goes through to the handler and back, else the refusal."""
    context: Any = FakeContext() if world == "sync" else FakeAsyncContext()
    context.identity = None if claims is None else Identity("ada", "jwt", claims)
    generator = middleware(context)
    try:
        next(generator)
    except StatusError as error:
        return error.code(), error.details(), error.trailing_metadata()
    with pytest.raises(StopIteration):
        generator.send(grpc.StatusCode.OK)
    return True


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"scope": "a b"}, True),
        ({"scope": "b c a"}, True),
        ({"scope": ["a", "b"]}, True),
        ({"scp": "a b"}, True),
        ({"scp": ["b", "a"]}, True),
        ({"scope": "a", "scp": ["b"]}, True),
        ({}, False),
        ({"scope": "a"}, False),
        ({"scope": "ab"}, False),
        ({"scope": "a,b"}, False),
        ({"scope": "A B"}, False),
        ({"scope": ["a b"]}, False),
        ({"scope": ["a", 5]}, False),
        ({"scope": {"a": 1, "b": 2}}, False),
        ({"scope": None, "scp": 7}, False),
        ({"scopes": "a b"}, False),
    ],
    ids=repr,
)
def test_scopes(world: str, claims: dict[str, Any], expected: bool) -> None:
    """A call goes through with all scopes; else the refusal names those that are needed."""
    refused = (
        DENIED,
        "this method needs the scopes 'a' and 'b'",
        (("www-authenticate", 'Bearer error="insufficient_scope", scope="a b"'),),
    )
    assert through(require_scopes("a", "b"), claims, world) == (expected or refused)


def test_one_scope_and_three() -> None:
    """The text is a sentence, however many they are."""
    texts = [through(require_scopes(*names), {})[1] for names in (("a",), ("a", "b", "c"))]
    assert texts == [
        "this method needs the scope 'a'",
        "this method needs the scopes 'a', 'b' and 'c'",
    ]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("middleware", [require_scopes("a"), require(role="a")])
def test_without_an_identity(world: str, middleware: Any) -> None:
    """Where nobody was asked who calls, nobody may."""
    assert through(middleware, None, world) == UNKNOWN


@pytest.mark.parametrize(
    ("needed", "claims", "expected"),
    [
        ({"role": "admin"}, {"role": "admin"}, True),
        ({"role": "admin"}, {"role": ["user", "admin"]}, True),
        ({"role": {"owner", "admin"}}, {"role": "owner"}, True),
        ({"role": ["owner", "admin"]}, {"role": ["x", "admin"]}, True),
        ({"role": ("owner",)}, {"role": "owner"}, True),
        ({"role": frozenset({"owner"})}, {"role": "owner"}, True),
        ({"role": "admin"}, {"role": "administrator"}, False),
        ({"role": "admin"}, {"role": "user admin"}, False),
        ({"role": "admin"}, {"role": {"admin": True}}, False),
        ({"role": "admin"}, {"role": None}, False),
        ({"role": "admin"}, {}, False),
        ({"verified": True}, {"verified": True}, True),
        ({"verified": True}, {"verified": 1}, False),
        ({"verified": True}, {"verified": "true"}, False),
        ({"level": 1}, {"level": True}, False),
        ({"level": 1}, {"level": 1}, True),
    ],
    ids=repr,
)
def test_one_claim(needed: dict[str, Any], claims: dict[str, Any], expected: bool) -> None:
    """A claim is the value, or has it in its list; the refusal tells its name and no value."""
    refused = (DENIED, f"this method needs the claim {next(iter(needed))!r}", ())
    assert through(require(**needed), claims) == (expected or refused)


def test_several_claims() -> None:
    """All have to fit, however they are written."""
    middleware = require({"https://x/role": "admin"}, tenant="acme")
    refused = (DENIED, "this method needs the claims 'https://x/role' and 'tenant'", ())
    right = {"https://x/role": ["admin"], "tenant": "acme"}
    found = [through(middleware, {**right, **more}) for more in ({}, {"tenant": "other"})]
    assert found == [True, refused]
    assert through(middleware, {"tenant": "acme"}) == refused


def test_the_handlers_exception_goes_through() -> None:
    """What is thrown in at the yield comes out as it is."""
    for middleware in (require_scopes("a"), require(role="x")):
        context: Any = FakeContext()
        context.identity = Identity("ada", "jwt", {"scope": "a", "role": "x"})
        generator = middleware(context)
        next(generator)
        with pytest.raises(ZeroDivisionError):
            generator.throw(ZeroDivisionError())


def test_it_is_middleware() -> None:
    """Both are generator functions of the context, as dynserve checks it."""
    for middleware in (require_scopes("a"), require(role="x")):
        assert inspect.isgeneratorfunction(middleware)
        assert list(inspect.signature(middleware).parameters) == ["context"]


def test_the_log_has_who_was_denied(caplog: pytest.LogCaptureFixture) -> None:
    """By name, and without claims."""
    caplog.set_level(logging.DEBUG, "dynserve.auth")
    through(require(role="admin"), {"email": "a@b"})
    assert [one.getMessage() for one in caplog.records] == [
        "None from ipv4:127.0.0.1:50000 by Identity(name='ada', scheme='jwt'): this method needs"
        " the claim 'role'"
    ]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (require_scopes, "require_scopes() got no scope, expected one or more"),
        (
            lambda: require_scopes(cast("str", ["a"])),
            "require_scopes() got ['a'], expected scopes as str",
        ),
        *[
            (
                lambda scope=scope: require_scopes("x", scope),
                f"require_scopes() got {scope!r}; a scope is printable ASCII without spaces, quotes"
                " and backslashes",
            )
            for scope in ("", "a b", 'a"', "a\\", "\u00e9", "a\n")
        ],
        (require, "require() got no claim, expected require(role='admin') or the like"),
        (lambda: require({}), "require() got no claim, expected require(role='admin') or the like"),
        (
            lambda: require(role=None),
            "require() got role=None, expected a value, or a set of values",
        ),
        (
            lambda: require(role=[]),
            "require() got role=[], expected a value, or a set of values",
        ),
        (
            lambda: require(role=["a", None]),
            "require() got role=['a', None], expected a value, or a set of values",
        ),
    ],
)
def test_requirements_that_make_no_sense(make: Any, problem: str) -> None:
    """They are refused where they are written, and not with the first call."""
    with pytest.raises((TypeError, ValueError)) as raised:
        make()
    assert str(raised.value) == problem
