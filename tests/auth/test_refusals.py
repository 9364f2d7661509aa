"""Refusals: what each leaves behind, which is nothing."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from dynserve import StatusError
from dynserve.auth import JWT, APIKeys, BearerTokens, ClientCertificate, any_of
from dynserve.auth.refusals import RefusalError, Weight
from dynserve.testing import FakeContext
from tests.auth.asking import WORLDS, bearer
from tests.auth.issuing import AUDIENCE, ISSUER, jwks, token

TOKENS = BearerTokens({"t" * 16: "ada"})
SIGNED = JWT(jwks=jwks(), issuer=ISSUER, audience=AUDIENCE)
KEYS = APIKeys({"k" * 16: "eve"})
CERTIFICATE = ClientCertificate("ada")
SECURED = {"transport_security_type": [b"ssl"], "x509_common_name": [b"eve"]}


@pytest.fixture
def _without_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def left_behind(authenticate: Callable[[Any], Any], world: str, context: Any) -> Any:
    """The refusal, where it is still there once it was caught and let go."""
    seen: Any = None

    async def later() -> None:
        nonlocal seen
        try:
            await getattr(authenticate, "authenticate_async", None)(context)  # type: ignore[misc]
        except StatusError as error:
            seen = weakref.ref(error)

    if world == "async" and hasattr(authenticate, "authenticate_async"):
        asyncio.run(later())
    else:
        try:
            authenticate(context)
        except StatusError as error:
            seen = weakref.ref(error)
    return seen()


@pytest.mark.usefixtures("_without_collector")
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("authenticate", [TOKENS, SIGNED, KEYS, CERTIFICATE])
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        bearer("wrong"),
        bearer(token(exp=1)),
        bearer(token(nbf=1 << 40)),
        bearer(token(name="other")),
        bearer(token(sub="")),
        [("authorization", "Basic x"), ("x-api-key", "wrong")],
        [("authorization", "x"), ("authorization", "x"), ("x-api-key", "x" * 20000)],
    ],
    ids=lambda pairs: f"{len(pairs)}",
)
def test_a_refusal_is_gone_with_the_call(world: str, authenticate: Any, metadata: Any) -> None:
    """A flood of refused calls leaves no garbage for the collector, by itself or in any_of."""
    context = FakeContext(metadata=metadata, auth=SECURED)
    every = any_of(KEYS, authenticate, TOKENS)
    assert [left_behind(one, world, context) for one in (authenticate, every)] == [None, None]


def test_it_is_a_status_error_like_any_other() -> None:
    """It is copied and pickled as such, with its weight and its metadata."""
    refusal = RefusalError("no", Weight.INVALID, challenge="Bearer")
    for other in (copy.deepcopy(refusal), pickle.loads(pickle.dumps(refusal))):
        assert (type(other), str(other), other.weight, other.trailing_metadata()) == (
            RefusalError,
            "UNAUTHENTICATED: no",
            Weight.INVALID,
            (("www-authenticate", "Bearer"),),
        )
    assert refusal.code() is grpc.StatusCode.UNAUTHENTICATED
