"""Registering handlers: decorators over one plain ``add()``."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from dynserve import App, Kind, Service
from dynserve.callables import own_name, place_of
from dynserve.service import Registration, Registry

HERE = __file__
DECORATORS: dict[str, Kind | None] = {
    "rpc": None,
    "unary_unary": Kind.UNARY_UNARY,
    "unary_stream": Kind.UNARY_STREAM,
    "stream_unary": Kind.STREAM_UNARY,
    "stream_stream": Kind.STREAM_STREAM,
}


def get_feature(request: Any) -> Any:
    """A handler whose line is known."""
    return request


async def watch(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """A handler that does not return."""
    async for request in requests:
        yield request


class Handler:
    def __call__(self, request: Any) -> Any:
        return request

    def method(self, request: Any) -> Any:
        return request


def where(name: str, function: Callable[..., Any]) -> str:
    """A place as errors have it: what the handler is called, its file and its line."""
    return f"{name} ({HERE}:{function.__code__.co_firstlineno})"


@pytest.mark.parametrize(("name", "kind"), DECORATORS.items())
@pytest.mark.parametrize("owner", [App(), Service("pkg.S")], ids=["app", "service"])
def test_decorators_register_and_return_the_function(
    owner: Registry, name: str, kind: Kind | None
) -> None:
    """Each decorator works bare, with a name and with (); the user's function comes back as is."""
    owner.registrations.clear()
    decorator = getattr(owner, name)
    assert decorator(get_feature) is get_feature
    assert decorator()(get_feature) is get_feature
    assert decorator("Get")(get_feature) is get_feature
    assert decorator("pkg.S/Get")(get_feature) is get_feature
    assert decorator("/pkg.S/Get")(get_feature) is get_feature
    service, place = owner.service_name, where("get_feature", get_feature)
    assert owner.registrations == [
        Registration(get_feature, service, None, kind, place),
        Registration(get_feature, service, None, kind, place),
        Registration(get_feature, service, "Get", kind, place),
        Registration(get_feature, "pkg.S", "Get", kind, place),
        Registration(get_feature, "pkg.S", "Get", kind, place),
    ]


def test_decorated_functions_keep_their_types() -> None:
    """A type checker sees the user's own function, whichever way it was decorated."""
    service = Service("pkg.S")

    @service.rpc
    def bare(request: bytes) -> int:
        return len(request)

    @service.unary_stream("Many")
    def named(request: int) -> Iterator[int]:
        yield from range(request)

    length: int = bare(b"abc")
    numbers: list[int] = list(named(3))
    assert (length, numbers) == (3, [0, 1, 2])


@pytest.mark.parametrize("name", DECORATORS)
def test_decorators_are_documented(name: str) -> None:
    """``help(app.rpc)`` and its like say what the decorator does."""
    kind = DECORATORS[name]
    which = f"a {kind} method" if kind else "a method, whatever its kind"
    assert getattr(App(), name).__doc__ == (
        f"Register a handler for {which}: with the method's name, or bare, when the handler's own"
        " name is taken (list_features for ListFeatures). Returns the handler unchanged."
    )


def test_add_takes_a_kind_to_be_asserted() -> None:
    """``add`` is what the decorators are made of: handler, name and kind."""
    app = App()
    app.add(watch, "pkg.S/Watch", kind=Kind.STREAM_STREAM)
    assert app.registrations == [
        Registration(watch, "pkg.S", "Watch", Kind.STREAM_STREAM, where("watch", watch))
    ]


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (
            lambda s: s.add("pkg.S/Get"),
            TypeError,
            "got 'pkg.S/Get' as a handler, expected something that can be called",
        ),
        (
            lambda s: s.rpc(3),
            TypeError,
            "got 3 as a handler, expected something that can be called",
        ),
        (
            lambda s: s.fallback(None),
            TypeError,
            "got None as a handler, expected something that can be called",
        ),
        (
            lambda s: s.add(get_feature, "pkg.Other/Get"),
            ValueError,
            "'pkg.Other/Get' is not a method of service 'pkg.S'",
        ),
        (
            lambda s: s.add_servicer(Handler),
            TypeError,
            "got the class Handler as a servicer, expected an object of it: Handler()",
        ),
        (
            lambda _: Service(""),
            ValueError,
            "got '', expected a service's full name such as 'pkg.Service'",
        ),
        (
            lambda _: Service("pkg.S/Get"),
            ValueError,
            "got 'pkg.S/Get', expected a service's full name such as 'pkg.Service'",
        ),
    ],
)
def test_what_cannot_be_registered(
    act: Callable[[Service], object], error: type[Exception], text: str
) -> None:
    """What is wrong by itself is refused when it is registered, and nothing is kept of it."""
    service = Service("pkg.S")
    with pytest.raises(error) as caught:
        act(service)
    assert str(caught.value) == text
    assert (service.registrations, service.servicers, service.fallback_handler) == ([], [], None)


def test_a_lambda_needs_a_name() -> None:
    """A lambda cannot name its method; the error says how to."""
    handler = lambda request: request  # noqa: E731
    with pytest.raises(TypeError) as caught:
        Service("pkg.S").rpc(handler)
    assert str(caught.value) == (
        f"{handler!r} has no name of its own; name the method: add(handler, 'Method')"
    )


def test_there_is_one_fallback() -> None:
    """A second fallback is refused, with the place of the first; the function comes back as is."""
    service = Service("pkg.S")
    assert service.fallback(get_feature) is get_feature
    with pytest.raises(ValueError, match="there is a fallback") as caught:
        service.fallback(watch)
    assert str(caught.value) == f"there is a fallback: {where('get_feature', get_feature)}"
    assert service.fallback_handler == Registration(
        get_feature, "pkg.S", None, None, where("get_feature", get_feature)
    )


@functools.wraps(get_feature)
def wrapped(request: Any) -> Any:
    """Overwritten by wraps()."""
    return get_feature(request)


@pytest.mark.parametrize(
    ("handler", "name", "place"),
    [
        (get_feature, "get_feature", where("get_feature", get_feature)),
        (watch, "watch", where("watch", watch)),
        (wrapped, "get_feature", where("get_feature", get_feature)),
        (functools.partial(get_feature), "get_feature", where("get_feature", get_feature)),
        (
            functools.partial(functools.partial(Handler().method)),
            "method",
            where("Handler.method", Handler.method),
        ),
        (Handler().method, "method", where("Handler.method", Handler.method)),
        (Handler(), None, where("Handler object", Handler.__call__)),
        (functools.partial(Handler()), None, where("Handler object", Handler.__call__)),
        (Handler, "Handler", "Handler"),
        (len, "len", "len"),
        ({}.get, "get", "dict.get"),
    ],
)
def test_names_and_places(handler: Callable[..., Any], name: str | None, place: str) -> None:
    """A handler's own name finds its method, and its place is where a person goes to mend it."""
    assert (own_name(handler), place_of(handler)) == (name, place)


def test_service_repr() -> None:
    """A service says its name and how many handlers it has."""
    service = Service("pkg.S")
    service.rpc(get_feature)
    assert repr(service) == "<Service pkg.S: 1 handlers>"
