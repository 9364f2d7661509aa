"""The policy: all calls need authentication but those that are said not to."""

from __future__ import annotations

from typing import Any

import pytest

from dynserve.auth import Policy
from dynserve.errors import CredentialsError

HEALTH = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"]
REFLECTION = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
OTHERS = [
    "/pkg.Service/Get",
    "/pkg.Service/List",
    "/pkg.ServiceTwo/Get",
    "/other.Service/Get",
    "/grpc.channelz.v1.Channelz/GetServers",
    "/no.Such/Method",
    "/pkg.Service/*",
    "/grpc.health.v1.Health",
    "/grpc.health.v1.Health/",
    "//grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Check/x",
    "/grpc.health.v1.Health/Check/",
    "/Grpc.health.v1.Health/Check",
    "/pkg.Service/Get/grpc.health.v1.Health/Check",
    "/pkg.Service/get",
    "/pkg.service/Get",
    "",
    "/",
    "//",
    "*",
]


def nobody(_: Any) -> None:
    return None


def opened(**options: Any) -> list[str]:
    """Which paths need no authentication."""
    policy = Policy(nobody, **options)
    every = [*HEALTH, *REFLECTION, *OTHERS]
    return [path for path in every if not policy.needs_authentication(path)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, HEALTH),
        ({"health": "open", "reflection": "required"}, HEALTH),
        ({"health": "required"}, []),
        ({"reflection": "open"}, [*HEALTH, *REFLECTION]),
        ({"health": "required", "reflection": "open"}, REFLECTION),
        ({"public": ["pkg.Service/Get"]}, [*HEALTH, "/pkg.Service/Get"]),
        (
            {"public": ["pkg.Service/*"], "health": "required"},
            ["/pkg.Service/Get", "/pkg.Service/List", "/pkg.Service/*", "/pkg.Service/get"],
        ),
        (
            {"public": ("other.Service/*", "grpc.health.v1.Health/Check"), "health": "required"},
            ["/grpc.health.v1.Health/Check", "/other.Service/Get"],
        ),
    ],
    ids=repr,
)
def test_what_is_open(options: dict[str, Any], expected: list[str]) -> None:
    """Health unless it is said otherwise, reflection where it is, and what is public; no more."""
    assert opened(**options) == expected


def test_a_path_without_its_first_slash() -> None:
    """Methods are named either way."""
    policy = Policy(nobody, public=["pkg.Service/Get"])
    names = ("pkg.Service/Get", "grpc.health.v1.Health/Check", "pkg.Service/List")
    assert [policy.needs_authentication(name) for name in names] == [False, False, True]


def test_what_fits_nothing() -> None:
    """A name in ``public`` that no method has is found, so that it can be told."""
    public = ["pkg.Service/Get", "pkg.Service/Gte", "pkg.Service/*", "pkg.Servce/*"]
    policy = Policy(nobody, public=public)
    expected = ["pkg.Service/Gte", "pkg.Servce/*"]
    for paths in (["/pkg.Service/Get", "/a.B/C"], ["pkg.Service/Get"]):
        assert policy.unmatched(paths) == expected
    assert (policy.unmatched([]), Policy(nobody).unmatched([])) == (public, [])


@pytest.mark.parametrize(
    ("public", "problem"),
    [
        ("pkg.Service/Get", "got 'pkg.Service/Get', {form}, in a list"),
        ([""], "got '', {form}"),
        (["*"], "got '*', {form}"),
        (
            ["pkg.Service"],
            "got 'pkg.Service', {form}; write 'pkg.Service/*' for all of its methods",
        ),
        (["/pkg.Service/Get"], "got '/pkg.Service/Get', {form}"),
        (["pkg.Service/"], "got 'pkg.Service/', {form}"),
        (["pkg.Service/Get/x"], "got 'pkg.Service/Get/x', {form}"),
        (["pkg.*/Get"], "got 'pkg.*/Get', {form}"),
        (["*/*"], "got '*/*', {form}"),
        (["pkg.Service/Get*"], "got 'pkg.Service/Get*', {form}"),
        (["pkg.Service/**"], "got 'pkg.Service/**', {form}"),
        ([5], "got 5, {form}"),
    ],
)
def test_patterns_that_make_no_sense(public: Any, problem: str) -> None:
    """Everything at once cannot be made public, nor half a name."""
    with pytest.raises(CredentialsError) as raised:
        Policy(nobody, public=public)
    form = "expected 'pkg.Service/Method' or 'pkg.Service/*'"
    assert str(raised.value) == "public: " + problem.format(form=form)


@pytest.mark.parametrize("argument", ["health", "reflection"])
@pytest.mark.parametrize("value", ["", "closed", True, None])
def test_other_words_than_open_and_required(argument: str, value: Any) -> None:
    """Nothing is open by a slip of the pen."""
    with pytest.raises(CredentialsError) as raised:
        Policy(nobody, **{argument: value})
    assert str(raised.value) == f"{argument}: got {value!r}, expected 'open' or 'required'"


@pytest.mark.parametrize("given", [None, "token", Policy])
def test_what_is_no_authenticator(given: Any) -> None:
    """A policy asks somebody."""
    with pytest.raises(TypeError) as raised:
        Policy(given)
    assert str(raised.value) == (
        f"got {given!r} as an authenticator, expected a callable that takes the context and"
        " returns an Identity or None"
    )


def test_what_it_has() -> None:
    """Who is asked and what is public can be read, and its text says what is open."""
    policy = Policy(nobody, public=["pkg.Service/Get"], health="required")
    assert (policy.authenticate, policy.public) == (nobody, ("pkg.Service/Get",))
    assert repr(policy) == f"Policy({nobody!r}, open=['pkg.Service/Get'])"
