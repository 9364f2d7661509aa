"""Several authenticators as one: who is let in, and which refusal is told."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any

import grpc
import pytest

from dynserve import StatusError
from dynserve.auth import APIKeys, BearerTokens, ClientCertificate, any_of
from dynserve.identity import Identity
from dynserve.testing import FakeAsyncContext, FakeContext
from tests.auth.asking import WORLDS, Answer, ask, refusal

TOKEN, KEY = "t" * 16, "k" * 16
CODE = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
NEEDS_BOTH: Answer = (
    CODE,
    "a bearer token is needed in metadata 'authorization', or an API key is needed in metadata"
    " 'x-api-key'",
    (("www-authenticate", "Bearer"),),
)
EITHER = any_of(BearerTokens({TOKEN: "ada"}), APIKeys({KEY: "eve"}))


def own(answer: Identity | StatusError | None) -> Any:
    """An authenticator of a user's own, as a plain function."""

    def authenticate(_: Any) -> Identity | None:
        if isinstance(answer, StatusError):
            raise answer
        return answer

    return authenticate


def own_async(answer: Identity | StatusError | None) -> Any:
    """The same as an async function, which gives the loop a turn."""

    async def authenticate(context: Any) -> Identity | None:
        await asyncio.sleep(0)
        identity: Identity | None = own(answer)(context)
        return identity

    return authenticate


class OfClass:
    """The same as an object whose call is async."""

    def __init__(self, answer: Identity | StatusError | None) -> None:
        self.answer = answer

    async def __call__(self, context: Any) -> Identity | None:
        found: Identity | None = await own_async(self.answer)(context)
        return found


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ([("authorization", f"Bearer {TOKEN}")], Identity("ada", "bearer")),
        ([("x-api-key", KEY)], Identity("eve", "api-key")),
        ([("authorization", "Bearer x"), ("x-api-key", KEY)], Identity("eve", "api-key")),
        ([("authorization", "Basic x"), ("x-api-key", KEY)], Identity("eve", "api-key")),
        (
            [("authorization", f"Bearer {TOKEN}"), ("x-api-key", KEY)],
            Identity("ada", "bearer"),
        ),
    ],
)
def test_the_first_that_knows_the_caller(
    world: str, metadata: list[tuple[str, str]], expected: Identity
) -> None:
    """One is enough, whatever the others say."""
    assert ask(EITHER, world, metadata) == expected


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ([], NEEDS_BOTH),
        ([("x-other", TOKEN)], NEEDS_BOTH),
        ([("x-api-key", "wrong")], (CODE, "the API key is not valid", ())),
        (
            [("authorization", "Bearer x")],
            (
                CODE,
                "the token is not valid",
                (("www-authenticate", 'Bearer error="invalid_token"'),),
            ),
        ),
        (
            [("authorization", "Bearer x"), ("x-api-key", "wrong")],
            (
                CODE,
                "the token is not valid",
                (("www-authenticate", 'Bearer error="invalid_token"'),),
            ),
        ),
        (
            [("authorization", "Bearer x"), ("x-api-key", "k"), ("x-api-key", "k")],
            (CODE, "metadata 'x-api-key' was sent more than once; send it once", ()),
        ),
    ],
)
def test_what_a_caller_whom_none_knows_is_told(
    world: str, metadata: list[tuple[str, str]], expected: Answer
) -> None:
    """What is wrong with what it sent; all that it could send where it sent nothing."""
    assert refusal(EITHER, world, metadata) == expected


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("make", [own, own_async, OfClass])
def test_own_authenticators(world: str, make: Any) -> None:
    """Functions and objects of any sort take part; what they refuse with is told before others."""
    ada, expired = Identity("ada", "own"), StatusError(CODE, "the ticket has expired")
    denied = StatusError(DENIED, "not you")
    tokens = BearerTokens({TOKEN: "eve"})
    assert ask(any_of(make(None), make(ada)), world) == ada
    assert ask(any_of(tokens, make(expired), make(ada)), world) == ada
    assert refusal(any_of(tokens, make(expired), make(denied)), world) == (
        CODE,
        "the ticket has expired",
        (),
    )
    assert ask(any_of(make(None), make(None)), world) is None
    assert refusal(any_of(make(None), tokens), world)[1] == (
        "a bearer token is needed in metadata 'authorization'"
    )


@pytest.mark.parametrize("world", WORLDS)
def test_two_of_one_sort_ask_once(world: str) -> None:
    """What is needed is not said twice; a certificate has no challenge of HTTP's."""
    tokens = any_of(ClientCertificate(), BearerTokens({TOKEN: "a"}), BearerTokens({KEY: "b"}))
    assert refusal(tokens, world) == (
        CODE,
        "a client certificate is needed, or a bearer token is needed in metadata 'authorization'",
        (("www-authenticate", "Bearer"),),
    )
    assert refusal(any_of(ClientCertificate(), APIKeys({KEY: "b"})), world)[2] == ()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("make", [own, own_async])
def test_an_exception_is_not_a_refusal(world: str, make: Any) -> None:
    """What is broken is not skipped: it might have refused for good."""

    def broken(_: Any) -> Identity:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(any_of(broken, make(Identity("ada", "own"))), world)


def test_only_async_authenticators_make_it_awaitable() -> None:
    """Without one, a sync handler's call gets its answer in its own thread."""
    ada = own(Identity("ada", "own"))
    assert any_of(ada, BearerTokens({TOKEN: "a"}))(FakeContext()) == Identity("ada", "own")
    for one in (own_async(None), OfClass(None), functools.partial(own_async(None))):
        found = any_of(ada, any_of(one))(FakeContext())
        assert inspect.isawaitable(found)
        assert asyncio.run(_awaited(found)) == Identity("ada", "own")


async def _awaited(found: Any) -> Any:
    return await found


def test_one_that_hides_that_it_is_async() -> None:
    """A plain function that returns a coroutine cannot be waited for in a sync handler's thread."""
    hidden = functools.partial(lambda make, context: make(context), own_async(None))
    with pytest.raises(TypeError) as raised:
        any_of(hidden)(FakeContext())
    expected = f"authenticator {hidden!r} returned an awaitable; declare it with 'async def'"
    assert str(raised.value) == expected

    class Awaitable:
        def __await__(self) -> Any:
            yield from ()
            return Identity("ada", "own")

    other = functools.partial(lambda _: Awaitable())
    with pytest.raises(TypeError, match="returned an awaitable; declare it with 'async def'"):
        any_of(other)(FakeContext())
    found = asyncio.run(any_of(other).authenticate_async(FakeAsyncContext()))
    assert found == Identity("ada", "own")


def test_nested_ones_are_one() -> None:
    """any_of of any_of is the same as all of them, in their order."""
    one, two, three = (own(None) for _ in range(3))
    assert any_of(one, any_of(two, three)).authenticators == (one, two, three)


def test_what_cannot_be_asked() -> None:
    """No authenticators, a class and what cannot be called are refused where they are written."""
    texts = []
    for given in ((), (BearerTokens,), (5,)):
        with pytest.raises(TypeError) as raised:
            any_of(*given)
        texts.append(str(raised.value))
    expected = (
        "as an authenticator, expected a callable that takes the context and returns an Identity"
        " or None"
    )
    assert texts == [
        "any_of() got no authenticator, expected one or more",
        f"got {BearerTokens!r} {expected}",
        f"got 5 {expected}",
    ]


def test_what_is_shown_of_it() -> None:
    """Its text has those of all."""
    assert repr(EITHER) == "any_of(BearerTokens(1 token), APIKeys(1 key))"
