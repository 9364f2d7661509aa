"""Whatever goes wrong in telling a client what went wrong: the call ends, and nothing leaks."""

from __future__ import annotations

import functools
import logging
import re
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from dynserve import App, Context, Kind, StatusError
from tests.conftest import Serve
from tests.echo import PATHS, Item, app_with, request_for

INTERNAL = grpc.StatusCode.INTERNAL
NOT_FOUND = grpc.StatusCode.NOT_FOUND
SECRET = "secret"

# What a handler raises, by kind and world; the test says what.
raised: Callable[[], BaseException] = Exception


def one(request: Any) -> Any:
    raise raised()


def many(request: Any) -> Iterator[Any]:
    yield Item(number=1)
    raise raised()


async def one_async(request: Any) -> Any:
    raise raised()


async def many_async(request: Any) -> AsyncIterator[Any]:
    yield Item(number=1)
    raise raised()


def handler_of(kind: Kind, world: str) -> Any:
    """The handler above that is of this kind and world."""
    if world == "sync":
        return many if kind.response_streaming else one
    return many_async if kind.response_streaming else one_async


every_kind = pytest.mark.parametrize("kind", list(Kind), ids=str)
every_world = pytest.mark.parametrize("world", ["sync", "async"])


class MuteError(Exception):
    """Can neither be shown nor described."""

    def __str__(self) -> str:
        raise ValueError(SECRET)

    __repr__ = __str__


class MuteSubError(MuteError):
    """The same, with an exception handler that returns what it gets."""


class EmptyError(Exception):
    """False, as an exception with a length may be."""

    def __len__(self) -> int:
        return 0


class UnmadeError(StatusError):
    """A subclass that forgot ``super().__init__()``."""

    def __init__(self) -> None:
        self.what = SECRET


class CodeError(StatusError):
    """A subclass with a code that is none."""

    def code(self) -> Any:
        return SECRET


class OkError(StatusError):
    """A subclass with the one code that is no error."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK


class DetailsError(StatusError):
    """A subclass with a text that is none."""

    def details(self) -> Any:
        return SECRET.encode()


class TrailingError(StatusError):
    """A subclass with metadata that cannot be sent."""

    def trailing_metadata(self) -> Any:
        return (("Not a key", SECRET),)


class ExitError(StatusError):
    """A subclass that ends the process."""

    def code(self) -> Any:
        raise SystemExit(SECRET)


def failing_rule(error: IndexError) -> StatusError:
    raise NotImplementedError  # which says UNIMPLEMENTED only where a handler raises it


def unmade_rule(error: KeyError) -> StatusError:
    return UnmadeError()


def mute_rule(error: MuteSubError) -> Any:
    return error


def app_of(kind: Kind, world: str) -> App:
    """An app with the handler above, and exception handlers that are no help."""
    app = app_with(handler_of(kind, world), kind)
    app.exception_handler(IndexError)(failing_rule)
    app.exception_handler(KeyError)(unmade_rule)
    app.exception_handler(MuteSubError)(mute_rule)
    return app


def status_of(serve: Serve, app: App, kind: Kind) -> tuple[grpc.StatusCode, str]:
    """What a client gets."""
    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call(PATHS[kind], request_for(kind, 1))
    error: Any = caught.value
    return error.code(), error.details()


@every_kind
@every_world
@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (lambda: IndexError(SECRET), "NotImplementedError"),
        (lambda: KeyError(SECRET), "AttributeError: 'UnmadeError' object has no attribute"),
        (MuteError, "MuteError: <exception str() failed>"),
        (MuteSubError, "ValueError: secret"),
        (EmptyError, "EmptyError"),
        (UnmadeError, "AttributeError: 'UnmadeError' object has no attribute"),
        (
            lambda: CodeError(NOT_FOUND),
            "TypeError: got 'secret' as a status code, expected a grpc.StatusCode",
        ),
        (
            lambda: OkError(NOT_FOUND),
            "ValueError: a StatusError cannot have the code OK; return a response instead",
        ),
        (
            lambda: DetailsError(NOT_FOUND),
            "TypeError: got b'secret' as the text of a status, expected a str",
        ),
        (
            lambda: TrailingError(NOT_FOUND),
            "ValueError: metadata key 'Not a key' has characters other than a-z 0-9 _ . -",
        ),
        (lambda: ExitError(NOT_FOUND), "SystemExit: secret"),
    ],
    ids=[
        "rule",
        "rule's status",
        "str",
        "str of the rule's",
        "len",
        "unmade",
        "code",
        "ok",
        "details",
        "md",
        "exit",
    ],
)
def test_a_status_that_cannot_be_found_out_is_internal(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: Kind,
    world: str,
    error: Callable[[], BaseException],
    logged: str,
) -> None:
    """The client gets INTERNAL and an id; the log has the whole story under that id."""
    monkeypatch.setitem(globals(), "raised", error)
    code, details = status_of(serve, app_of(kind, world), kind)
    match = re.fullmatch(r"internal error \(error id ([0-9a-f]{16})\)", details)
    assert match is not None
    assert code == INTERNAL
    [record] = [r for r in caplog.records if r.levelno >= logging.WARNING]
    name = handler_of(kind, world).__name__
    place = f"tests.test_handlers_safety.{name}"
    assert record.getMessage() == f"{PATHS[kind]} failed in {place} (error id {match[1]})"
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    text = "".join(traceback.format_exception(record.exc_info[1]))
    assert logged in text.splitlines()[-1]
    line = handler_of(kind, world).__code__.co_firstlineno + (2 if kind.response_streaming else 1)
    assert f'File "{__file__}", line {line}, in {name}\n    raise raised()\n' in text


@every_kind
@every_world
def test_a_log_that_fails_does_not_cost_the_call_its_status(
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: Kind,
    world: str,
) -> None:
    """A filter of the program's own that raises is told on standard error, and to no client."""

    def fail(record: logging.LogRecord) -> bool:
        raise OSError("disk full")

    monkeypatch.setitem(globals(), "raised", lambda: ValueError(SECRET))
    monkeypatch.setattr(logging.getLogger("dynserve.handlers"), "filters", [fail])
    code, details = status_of(serve, app_of(kind, world), kind)
    assert code == INTERNAL
    assert re.fullmatch(r"internal error \(error id [0-9a-f]{16}\)", details)
    told = capsys.readouterr().err
    assert "ValueError: secret\n\nDuring handling of the above exception, another" in told
    assert told.endswith("OSError: disk full\n")


@every_kind
@every_world
def test_a_text_that_is_no_utf8_is_sent_with_question_marks(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: Kind, world: str
) -> None:
    """A lone surrogate, from a file name say, costs neither the code nor the rest of the text."""
    monkeypatch.setitem(globals(), "raised", lambda: StatusError(NOT_FOUND, "no \ud800.txt"))
    assert status_of(serve, app_of(kind, world), kind) == (NOT_FOUND, "no ?.txt")


class Servicer:
    def unary(self, request: Any, context: Context) -> Any:
        raise ValueError(SECRET)

    async def __call__(self, request: Any) -> Any:
        raise ValueError(SECRET)


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (Servicer().unary, "tests.test_handlers_safety.Servicer.unary"),
        (Servicer(), "tests.test_handlers_safety.Servicer.__call__"),
        (functools.partial(one), "tests.test_handlers_safety.one"),
        (lambda request: 1 // 0, "tests.test_handlers_safety.<lambda>"),
        (iter, "builtins.iter"),
    ],
    ids=["method", "object", "partial", "lambda", "builtin"],
)
def test_the_log_names_the_handler(
    serve: Serve, caplog: pytest.LogCaptureFixture, handler: Any, name: str
) -> None:
    """As module.qualname, whatever the handler is."""
    _, details = status_of(serve, app_with(handler, Kind.UNARY_UNARY), Kind.UNARY_UNARY)
    identifier = details.removeprefix("internal error (error id ").rstrip(")")
    assert [record.getMessage() for record in caplog.records] == [
        f"echo.Echo/Unary failed in {name} (error id {identifier})"
    ]
