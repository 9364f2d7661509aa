"""StatusError, and how exceptions become one."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import UninterpretedOption
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

import dynserve
from dynserve import Kind, StatusError
from dynserve.status import (
    AbortError,
    ErrorRules,
    ReceivedError,
    checked_code,
    checked_metadata,
    checked_text,
)
from dynserve.testing import serve
from tests.echo import Item, app_with, schema

METHOD = schema.method("echo.Echo/Unary")
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def test_status_error_has_the_methods_of_grpc_errors() -> None:
    """It is a grpc.RpcError with code(), details() and trailing_metadata()."""
    error = StatusError(NOT_FOUND, "no such place", trailing_metadata=[("x-a", "b")])
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details()) == (NOT_FOUND, "no such place")
    assert error.trailing_metadata() == (("x-a", "b"),)
    assert str(error) == "NOT_FOUND: no such place"


def test_details_are_a_google_rpc_status() -> None:
    """Messages given as details are packed into grpc-status-details-bin."""
    error = StatusError(NOT_FOUND, "later", details=[RetryInfo()])
    [(key, value)] = error.trailing_metadata()
    assert key == "grpc-status-details-bin"
    status = Status.FromString(value)  # type: ignore[arg-type]  # bytes, by its key
    assert (status.code, status.message) == (5, "later")
    assert status.details[0].type_url == "type.googleapis.com/google.rpc.RetryInfo"
    assert error.status_details == (RetryInfo(),)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (
            (grpc.StatusCode.OK,),
            ValueError,
            "a StatusError cannot have the code OK; return a response instead",
        ),
        (("5",), TypeError, "got '5' as a status code, expected a grpc.StatusCode"),
        ((NOT_FOUND, b"x"), TypeError, "got b'x' as the text of a status, expected a str"),
    ],
)
def test_misuse_is_an_error(arguments: Any, kind: type[Exception], text: str) -> None:
    """What cannot be a status is refused where it is made."""
    with pytest.raises(kind) as caught:
        StatusError(*arguments)
    assert str(caught.value) == text


def test_code_may_be_a_number() -> None:
    """grpc.aio takes numbers for codes, so do we."""
    assert [checked_code(number) for number in (0, 5)] == [grpc.StatusCode.OK, NOT_FOUND]


def test_text_that_is_not_utf8_is_replaced() -> None:
    """A lone surrogate does not cost the call its status."""
    assert checked_text("a\ud800b") == "a?b"


@pytest.mark.parametrize(
    ("metadata", "kind", "text"),
    [
        (5, TypeError, "got 5 as metadata, expected pairs of key and value"),
        (["abc"], TypeError, "got ['abc'] as metadata, expected pairs of key and value"),
        ([(b"k", "v")], TypeError, "got b'k': 'v' as metadata, expected str: str or bytes"),
        ([("k", 1)], TypeError, "got 'k': 1 as metadata, expected str: str or bytes"),
        (
            [("Key", "v")],
            ValueError,
            "metadata key 'Key' has characters other than a-z 0-9 _ . -",
        ),
        ([("", "v")], ValueError, "metadata key '' has characters other than a-z 0-9 _ . -"),
        (
            [("grpc-x", "v")],
            ValueError,
            "metadata key 'grpc-x' is reserved for gRPC itself",
        ),
        (
            [("x-bin", "v")],
            TypeError,
            "metadata 'x-bin' is binary by its name, but its value is a str",
        ),
        (
            [("x", "ä")],
            ValueError,
            "metadata 'x' has a value with characters that are not printable ASCII;"
            " name it 'x-bin' and give bytes",
        ),
        (
            [("x", b"\n")],
            ValueError,
            "metadata 'x' has a value with characters that are not printable ASCII;"
            " name it 'x-bin' and give bytes",
        ),
    ],
)
def test_metadata_that_cannot_be_sent_is_refused(
    metadata: Any, kind: type[Exception], text: str
) -> None:
    """The core would answer with no status at all; we answer with the reason."""
    with pytest.raises(kind) as caught:
        checked_metadata(metadata)
    assert str(caught.value) == text


def test_metadata_that_can_be_sent_passes() -> None:
    """Text, ASCII bytes, binary values, and rich details."""
    pairs = (("a", "b"), ("c", b"d"), ("e-bin", b"\xff"), ("grpc-status-details-bin", b""))
    assert checked_metadata(list(pairs)) == pairs


def test_the_nearest_class_decides() -> None:
    """Of the rules for an exception's classes the most derived one counts."""
    rules = ErrorRules()
    rules.add(LookupError, lambda error: StatusError(NOT_FOUND, "lookup"))
    rules.add(KeyError, lambda error: StatusError(NOT_FOUND, "key"))
    assert rules.status(KeyError(), METHOD).details() == "key"
    assert rules.status(IndexError(), METHOD).details() == "lookup"


def test_a_rule_may_raise_its_status() -> None:
    """``raise StatusError`` in an exception handler is as good as returning it."""

    def rule(error: Exception) -> StatusError:
        raise StatusError(NOT_FOUND, "raised")

    rules = ErrorRules()
    rules.add(KeyError, rule)
    assert rules.status(KeyError(), METHOD).details() == "raised"


@pytest.mark.parametrize(
    ("rule", "cause"),
    [
        (lambda error: 1 // 0, "integer division or modulo by zero"),
        (lambda error: None, "returned None, expected a StatusError"),
    ],
)
def test_a_rule_that_fails_is_internal(
    rule: Any, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception handler's own fault is logged and hidden like any other."""
    rules = ErrorRules()
    rules.add(KeyError, rule)
    status = rules.status(KeyError("secret"), METHOD)
    assert status.code() == grpc.StatusCode.INTERNAL
    match = re.fullmatch(r"internal error \(error id ([0-9a-f]{16})\)", status.details())
    assert match is not None
    [record] = caplog.records
    assert record.getMessage() == f"echo.Echo/Unary failed (error id {match[1]})"
    assert record.exc_info is not None
    assert str(record.exc_info[1]).endswith(cause)
    assert record.levelno == logging.ERROR


@pytest.mark.parametrize(
    ("error", "handler", "text"),
    [
        ("KeyError", print, "got 'KeyError', expected an exception class"),
        (BaseException, print, "got <class 'BaseException'>, expected an exception class"),
        (
            KeyError,
            5,
            "the exception handler for KeyError must be a plain function that returns a"
            " StatusError, got 5; it serves sync and async handlers alike",
        ),
    ],
)
def test_a_rule_that_cannot_work_is_refused(error: Any, handler: Any, text: str) -> None:
    """Checked when it is registered."""
    with pytest.raises(TypeError) as caught:
        ErrorRules().add(error, handler)
    assert str(caught.value) == text


def test_an_async_rule_is_refused() -> None:
    """A coroutine function cannot serve sync handlers."""

    async def rule(error: Exception) -> StatusError:
        return StatusError(NOT_FOUND)

    with pytest.raises(TypeError, match="must be a plain function"):
        ErrorRules().add(KeyError, rule)  # type: ignore[arg-type]  # the mistake


def test_a_class_has_one_rule() -> None:
    """A second exception handler for a class is an error."""

    def rule(error: Exception) -> StatusError:
        return StatusError(NOT_FOUND)

    rules = ErrorRules()
    rules.add(KeyError, rule)
    problem = re.escape(f"KeyError has an exception handler: {rule!r}")
    with pytest.raises(ValueError, match=f"^{problem}$"):
        rules.add(KeyError, rule)


def test_abort_is_sent_as_it_is() -> None:
    """What context.abort() raises is a status already."""
    error = AbortError(NOT_FOUND, "x")
    assert ErrorRules().status(error, METHOD) is error


@pytest.mark.parametrize(
    ("details", "kind", "text"),
    [
        (["secret"], TypeError, "got 'secret' as a detail of a status, expected a message"),
        (
            [UninterpretedOption.NamePart()],
            ValueError,
            "a detail of a status cannot be sent: Message"
            " google.protobuf.UninterpretedOption.NamePart is missing required fields:"
            " name_part,is_extension",
        ),
    ],
)
def test_details_that_cannot_be_sent_are_refused(
    details: Any, kind: type[Exception], text: str
) -> None:
    """Where they are said, not where the status is sent."""
    with pytest.raises(kind) as caught:
        StatusError(NOT_FOUND, details=details)
    assert str(caught.value) == text


@pytest.mark.parametrize("end", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_rule_that_exits_is_internal(
    end: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """sys.exit() in an exception handler ends no server and tells the peer nothing."""

    def rule(error: KeyError) -> StatusError:
        raise end("secret")

    rules = ErrorRules()
    rules.add(KeyError, rule)
    status = rules.status(KeyError(), METHOD)
    assert re.fullmatch(r"internal error \(error id [0-9a-f]{16}\)", status.details())
    assert [type((record.exc_info or [None, None])[1]) for record in caplog.records] == [end]


def test_ctrl_c_in_a_rule_stays_what_it_is() -> None:
    """An interruption is no fault of the rule."""

    def rule(error: KeyError) -> StatusError:
        raise KeyboardInterrupt

    rules = ErrorRules()
    rules.add(KeyError, rule)
    with pytest.raises(KeyboardInterrupt):
        rules.status(KeyError(), METHOD)


def find_class(name: str) -> Any:
    """The classes of the test's schema, as a client has them."""
    return {"echo.Item": Item}[name]


def received(
    code: grpc.StatusCode, text: str, details: tuple[Any, ...] = (), **trailing: str
) -> ReceivedError:
    """What a client raises."""
    sent = StatusError(NOT_FOUND, details=details).trailing_metadata()
    return ReceivedError(code, text, (("x", "y"),), (*trailing.items(), *sent), find_class)


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=str
)
def test_what_grpc_may_have_said_itself_is_not_sent_on(
    code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    """Its texts tell of addresses: of codes that it makes the text is logged, and an id sent."""
    error = received(code, "10.0.0.7: refused", secret="s")
    sent = ErrorRules().status(error, METHOD, "app.handler")
    never_by_grpc = {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "DATA_LOSS",
    }
    text, logged = "10.0.0.7: refused", []
    if code.name not in never_by_grpc:
        identifier = sent.details()[-17:-1]
        text = f"a call to another service failed (error id {identifier})"
        message = f"echo.Echo/Unary failed in app.handler (error id {identifier})"
        logged = [(logging.WARNING, message, error)]
    assert (type(sent), sent.code(), sent.details(), sent.trailing_metadata()) == (
        StatusError,
        code,
        text,
        (),
    )
    assert [
        (record.levelno, record.getMessage(), (record.exc_info or [None, None])[1])
        for record in caplog.records
    ] == logged


@pytest.mark.parametrize("answer", [b"\xff", None], ids=["undecodable", "unreachable"])
def test_no_peer_is_told_of_a_clients_own_errors(
    answer: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler's call to what cannot be reached, or does not answer as it should."""
    target = f"unix:{tmp_path}/socket"
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda *_: answer)
    with ThreadPoolExecutor(1) as pool, dynserve.connect(target, schema=schema) as backend:
        server = grpc.server(pool)
        server.add_registered_method_handlers("echo.Echo", {"Unary": handler})
        server.add_insecure_port(target if answer else f"{target}-of-another")
        server.start()

        def proxy(_: Any) -> Any:
            return backend.method("echo.Echo/Unary")(timeout=20)

        with (
            pytest.raises(StatusError) as caught,
            serve(app_with(proxy, Kind.UNARY_UNARY)) as client,
        ):
            client.method("echo.Echo/Unary")()
        server.stop(None).wait()
    code = grpc.StatusCode.INTERNAL if answer else grpc.StatusCode.UNAVAILABLE
    text = r"a call to another service failed \(error id ([0-9a-f]{16})\)"
    match = re.fullmatch(text, caught.value.details())
    assert match is not None
    assert (caught.value.code(), [record.getMessage()[-27:] for record in caplog.records]) == (
        code,
        [f"(error id {match[1]})"],
    )


def test_a_status_with_details_is_a_servers_own(caplog: pytest.LogCaptureFixture) -> None:
    """gRPC adds none: code, text and details are sent on, and nothing is logged."""
    details = (ErrorInfo(reason="r"), Item(number=1))
    error = received(grpc.StatusCode.UNAVAILABLE, "later", details, secret="s")
    sent = ErrorRules().status(error, METHOD)
    [pair] = sent.trailing_metadata()
    assert (str(sent), pair, caplog.records) == (
        "UNAVAILABLE: later",
        error.trailing_metadata()[-1],
        [],
    )


@pytest.mark.parametrize("is_raised", [True, False])
def test_a_rule_that_passes_a_status_on_tells_no_more(is_raised: bool) -> None:
    """What a client raised is no different where an exception handler gives it."""

    def rule(error: KeyError) -> StatusError:
        status = received(NOT_FOUND, "none", secret="s")
        if is_raised:
            raise status
        return status

    rules = ErrorRules()
    rules.add(KeyError, rule)
    sent = rules.status(KeyError(), METHOD)
    assert (type(sent), str(sent), sent.trailing_metadata()) == (
        StatusError,
        "NOT_FOUND: none",
        (),
    )


@pytest.mark.parametrize(
    "name",
    ["google.rpc.DESCRIPTOR", "google.rpc._sym_db", "google.rpc.__name__", "google.rpc.", "a b"],
)
def test_a_detail_of_no_type_stays_as_it_is(name: str) -> None:
    """Its name is the server's: it may be that of anything in a generated module."""
    hostile = AnyMessage(type_url=f"x/{name}")
    data = Status(code=5, details=[hostile]).SerializeToString()
    error = ReceivedError(NOT_FOUND, "", (), (("grpc-status-details-bin", data),))
    assert error.status_details == (hostile,)


class OwnError(StatusError):
    """As users derive them: what it is made of is its own."""

    def __init__(self, place: str) -> None:
        super().__init__(NOT_FOUND, f"no {place}", trailing_metadata=[("a", "b")])
        self.place = place


def parts(error: StatusError) -> tuple[Any, ...]:
    return (
        type(error),
        str(error),
        error.code(),
        error.details(),
        error.initial_metadata(),
        error.trailing_metadata(),
        error.args,
        getattr(error, "place", None),
    )


DETAILS = (ErrorInfo(reason="r"), Item(number=1))


@pytest.mark.parametrize(
    ("take", "has_classes"),
    [
        (lambda error: pickle.loads(pickle.dumps(error)), False),
        (copy.copy, True),
        (copy.deepcopy, True),
    ],
    ids=["pickle", "copy", "deepcopy"],
)
@pytest.mark.parametrize(
    ("make", "details"),
    [
        (lambda: StatusError(NOT_FOUND, "no", details=DETAILS), DETAILS),
        (lambda: received(NOT_FOUND, "no", DETAILS, k="v"), DETAILS),
        (lambda: AbortError(NOT_FOUND, "no"), ()),
        (lambda: OwnError("Rome"), ()),
    ],
    ids=["StatusError", "ReceivedError", "AbortError", "OwnError"],
)
def test_a_status_can_be_taken_elsewhere(
    take: Callable[[StatusError], StatusError],
    has_classes: bool,
    make: Callable[[], StatusError],
    details: tuple[Any, ...],
) -> None:
    """To another process or as a copy; in the former a detail of the schema is an Any."""
    error = make()
    for _ in range(2):  # the details are decoded when they are asked for first
        taken = take(error)
        assert (taken is error, parts(taken)) == (False, parts(error))
        found = taken.status_details
        if details and not has_classes:
            packed = AnyMessage()
            packed.Pack(details[1])
            assert found == (details[0], packed)
        else:
            assert found == details
        assert error.status_details == details


def test_the_metadata_of_grpc_is_kept_as_plain_pairs() -> None:
    """gRPC's own are of a class that cannot be found again where they are unpickled."""

    class Pair(NamedTuple):
        key: str
        value: str

    pairs = (Pair("k", "v"),)
    error: StatusError = pickle.loads(pickle.dumps(ReceivedError(NOT_FOUND, "", pairs, pairs)))
    found = (error.initial_metadata(), error.trailing_metadata())
    assert (found, {type(pair) for pairs in found for pair in pairs}) == (
        ((("k", "v"),), (("k", "v"),)),
        {tuple},
    )


def test_each_witness_is_told() -> None:
    """Whoever else is, or stops being."""
    rules = ErrorRules()
    told: list[tuple[str, BaseException]] = []

    def first(error: BaseException, identifier: str) -> None:
        told.append((f"first {identifier}", error))

    def second(error: BaseException, identifier: str) -> None:
        told.append((f"second {identifier}", error))

    rules.add_witness(first)
    rules.add_witness(second)
    errors = [KeyError("a"), KeyError("b"), KeyError("c")]
    said = [rules.status(errors[0], METHOD).details()]
    rules.remove_witness(first)
    said.append(rules.status(errors[1], METHOD).details())
    rules.remove_witness(second)
    rules.status(errors[2], METHOD)
    ids = [text[-17:-1] for text in said]
    assert told == [
        (f"first {ids[0]}", errors[0]),
        (f"second {ids[0]}", errors[0]),
        (f"second {ids[1]}", errors[1]),
    ]
