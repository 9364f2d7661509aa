"""dynserve.error_details: google.rpc's details from plain values, and back at the client."""

from __future__ import annotations

import copy
import datetime
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from dynserve import App, Kind, Schema, StatusError
from dynserve.error_details import (
    bad_request,
    detail_of,
    error_info,
    help_links,
    localized_message,
    precondition_failure,
    quota_failure,
    request_info,
    resource_info,
    retry_info,
)
from tests.client.worlds import World, every_world, in_world
from tests.conftest import Serve
from tests.echo import ECHO, PATHS, app_with, request_for
from tests.running import output_of

LONG = "A" * 64


def shown(message: Message) -> tuple[str, dict[str, Any]]:
    """The type's full name and all that is in the message."""
    content = MessageToDict(message, preserving_proto_field_name=True)
    return str(message.DESCRIPTOR.full_name), content


@pytest.mark.parametrize(
    ("message", "name", "content"),
    [
        (
            bad_request({"name": "must not be empty", "items[0].size": "is negative"}),
            "BadRequest",
            {
                "field_violations": [
                    {"field": "name", "description": "must not be empty"},
                    {"field": "items[0].size", "description": "is negative"},
                ]
            },
        ),
        (
            bad_request([("name", "too long"), ("name", "no capital", "NAME_NOT_CAPITAL")]),
            "BadRequest",
            {
                "field_violations": [
                    {"field": "name", "description": "too long"},
                    {"field": "name", "description": "no capital", "reason": "NAME_NOT_CAPITAL"},
                ]
            },
        ),
        (retry_info(0), "RetryInfo", {"retry_delay": "0s"}),
        (retry_info(1.5), "RetryInfo", {"retry_delay": "1.500s"}),
        (retry_info(0.1), "RetryInfo", {"retry_delay": "0.100s"}),
        (retry_info(datetime.timedelta(minutes=2)), "RetryInfo", {"retry_delay": "120s"}),
        (
            error_info("STOCK_OUT", "shop.example.com", {"itemId": "7", "a-b_c": ""}),
            "ErrorInfo",
            {
                "reason": "STOCK_OUT",
                "domain": "shop.example.com",
                "metadata": {"itemId": "7", "a-b_c": ""},
            },
        ),
        (
            error_info("A" * 63, "x", {"k" * 64: "v"}),
            "ErrorInfo",
            {"reason": "A" * 63, "domain": "x", "metadata": {"k" * 64: "v"}},
        ),
        (error_info("E404", "x"), "ErrorInfo", {"reason": "E404", "domain": "x"}),
        (
            quota_failure({"project:7": "100 reads a minute"}),
            "QuotaFailure",
            {"violations": [{"subject": "project:7", "description": "100 reads a minute"}]},
        ),
        (
            quota_failure(pair for pair in [("p", "reads"), ("p", "writes")]),
            "QuotaFailure",
            {
                "violations": [
                    {"subject": "p", "description": "reads"},
                    {"subject": "p", "description": "writes"},
                ]
            },
        ),
        (
            precondition_failure([("TOS", "example.com", "not accepted")]),
            "PreconditionFailure",
            {
                "violations": [
                    {"type": "TOS", "subject": "example.com", "description": "not accepted"}
                ]
            },
        ),
        (
            resource_info("shop.Item", "items/7"),
            "ResourceInfo",
            {"resource_type": "shop.Item", "resource_name": "items/7"},
        ),
        (
            resource_info("shop.Item", "items/7", owner="user:a", description="to be read"),
            "ResourceInfo",
            {
                "resource_type": "shop.Item",
                "resource_name": "items/7",
                "owner": "user:a",
                "description": "to be read",
            },
        ),
        (request_info("r-1"), "RequestInfo", {"request_id": "r-1"}),
        (
            request_info("r-1", "c2hhcmQ="),
            "RequestInfo",
            {"request_id": "r-1", "serving_data": "c2hhcmQ="},
        ),
        (
            help_links({"More quota": "https://example.com/quota", "Ask": "mailto:a@example.com"}),
            "Help",
            {
                "links": [
                    {"description": "More quota", "url": "https://example.com/quota"},
                    {"description": "Ask", "url": "mailto:a@example.com"},
                ]
            },
        ),
        (
            localized_message("de-CH", "Nicht an Lager"),
            "LocalizedMessage",
            {"locale": "de-CH", "message": "Nicht an Lager"},
        ),
    ],
)
def test_messages_from_plain_values(message: Message, name: str, content: dict[str, Any]) -> None:
    """Each helper makes the message of google.rpc that its name says, with what it was given."""
    assert shown(message) == (f"google.rpc.{name}", content)


LIKE_FIELDS = "expected as in bad_request({'items[0].name': 'must not be empty'})"
LIKE_QUOTA = "expected as in quota_failure({'project:7': 'more than 100 reads a minute'})"
LIKE_PRECONDITION = (
    "expected as in precondition_failure([('TOS', 'example.com', 'the terms must be accepted')])"
)
NONE = "got none, and a detail that says nothing helps nobody; write "
SNAKE = "expected UPPER_SNAKE_CASE of 3 to 63 characters"
KEY = "expected letters, digits, '-' and '_' of which the first is a-z, 2 to 64 of them: 'bookId'"
DELAY = "as the delay, expected 0 to 315576000000 seconds from now on"


@pytest.mark.parametrize(
    ("make", "values", "text"),
    [
        (bad_request, (5,), f"TypeError: got 5, {LIKE_FIELDS}"),
        (bad_request, ("name",), f"TypeError: got 'name', {LIKE_FIELDS}"),
        (bad_request, ({"a": 1},), f"TypeError: got ('a', 1) among others, {LIKE_FIELDS}"),
        (bad_request, (["ab"],), f"TypeError: got 'ab' among others, {LIKE_FIELDS}"),
        (bad_request, ([("a",)],), f"TypeError: got ('a',) among others, {LIKE_FIELDS}"),
        (
            bad_request,
            ({},),
            f"ValueError: {NONE}bad_request({{'items[0].name': 'must not be empty'}})",
        ),
        (bad_request, ({"": "x"},), "ValueError: the field is empty"),
        (bad_request, ({"a": ""},), "ValueError: the description is empty"),
        (
            bad_request,
            ([("a", "b", "tooLong")],),
            f"ValueError: got 'tooLong' as the reason, {SNAKE}: 'TOO_LONG'",
        ),
        (
            retry_info,
            ("1",),
            "TypeError: got '1' as the delay, expected seconds or a timedelta",
        ),
        (
            retry_info,
            (True,),
            "TypeError: got True as the delay, expected seconds or a timedelta",
        ),
        (retry_info, (-0.5,), f"ValueError: got -0.5 {DELAY}"),
        (retry_info, (float("nan"),), f"ValueError: got nan {DELAY}"),
        (retry_info, (float("inf"),), f"ValueError: got inf {DELAY}"),
        (
            retry_info,
            (datetime.timedelta(seconds=-1),),
            f"ValueError: got datetime.timedelta(days=-1, seconds=86399) {DELAY}",
        ),
        (
            error_info,
            ("out of stock", "d"),
            f"ValueError: got 'out of stock' as the reason, {SNAKE}: 'OUT_OF_STOCK'",
        ),
        (error_info, ("_", "d"), f"ValueError: got '_' as the reason, {SNAKE}"),
        (error_info, ("A_", "d"), f"ValueError: got 'A_' as the reason, {SNAKE}"),
        (error_info, (LONG, "d"), f"ValueError: got '{LONG}' as the reason, {SNAKE}"),
        (error_info, (404, "d"), "TypeError: got 404 as the reason, expected a str"),
        (error_info, ("ABC", ""), "ValueError: the domain is empty"),
        (error_info, ("ABC", None), "TypeError: got None as the domain, expected a str"),
        (
            error_info,
            ("ABC", "d", {"a": "short"}),
            f"ValueError: got 'a' as a key of the metadata, {KEY}",
        ),
        (
            error_info,
            ("ABC", "d", {"Big": ""}),
            f"ValueError: got 'Big' as a key of the metadata, {KEY}",
        ),
        (
            error_info,
            ("ABC", "d", {"k" * 65: ""}),
            f"ValueError: got '{'k' * 65}' as a key of the metadata, {KEY}",
        ),
        (
            error_info,
            ("ABC", "d", {"id": 7}),
            "TypeError: got {'id': 7} as the metadata, expected {str: str}",
        ),
        (
            error_info,
            ("ABC", "d", [("id", "7")]),
            "TypeError: got [('id', '7')] as the metadata, expected {str: str}",
        ),
        (quota_failure, (7,), f"TypeError: got 7, {LIKE_QUOTA}"),
        (
            quota_failure,
            ([("a", "b", "c")],),
            f"TypeError: got ('a', 'b', 'c') among others, {LIKE_QUOTA}",
        ),
        (
            quota_failure,
            ([],),
            f"ValueError: {NONE}quota_failure({{'project:7': 'more than 100 reads a minute'}})",
        ),
        (quota_failure, ({"": "x"},), "ValueError: the subject is empty"),
        (
            precondition_failure,
            ({"a": "b"},),
            f"TypeError: got {{'a': 'b'}}, {LIKE_PRECONDITION}",
        ),
        (
            precondition_failure,
            ([("a", "b")],),
            f"TypeError: got ('a', 'b') among others, {LIKE_PRECONDITION}",
        ),
        (precondition_failure, ([("", "s", "d")],), "ValueError: the type is empty"),
        (resource_info, ("", "n"), "ValueError: the resource type is empty"),
        (resource_info, ("t", ""), "ValueError: the resource name is empty"),
        (resource_info, ("t", 7), "TypeError: got 7 as the resource name, expected a str"),
        (request_info, ("",), "ValueError: the request id is empty"),
        (request_info, ("a", b"x"), "TypeError: got b'x' as the serving data, expected a str"),
        (
            help_links,
            ({"More": "/quota"},),
            "ValueError: got '/quota' as the URL of a link, expected a whole one: 'https://…'",
        ),
        (help_links, ({"": "https://x"},), "ValueError: the description is empty"),
        (
            localized_message,
            ("de_CH", "x"),
            "ValueError: got 'de_CH' as the locale, expected a language tag such as 'de-CH'",
        ),
        (localized_message, (7, "x"), "TypeError: got 7 as the locale, expected a str"),
        (localized_message, ("de", ""), "ValueError: the message is empty"),
        (
            detail_of,
            (StatusError(grpc.StatusCode.ABORTED), "BadRequest"),
            "TypeError: got 'BadRequest' as the type of a detail, expected a message class",
        ),
    ],
)
def test_what_fits_no_detail_is_refused(
    make: Callable[..., Any], values: tuple[Any, ...], text: str
) -> None:
    """A value that AIP-193 or the message's own definition forbids is an error that tells more."""
    with pytest.raises((TypeError, ValueError)) as caught:
        make(*values)
    assert f"{type(caught.value).__name__}: {caught.value}" == text


# ---- over the wire

INFO = error_info("STOCK_OUT", "shop.example.com", {"itemId": "7"})
DETAILS = (
    INFO,
    bad_request({"number": "must not be 7"}),
    retry_info(2.5),
    quota_failure({"project:7": "100 reads a minute"}),
    precondition_failure([("TOS", "example.com", "not accepted")]),
    resource_info("echo.Item", "items/7"),
    request_info("r-1"),
    help_links({"More": "https://example.com"}),
    localized_message("de", "Nicht an Lager"),
)


def refusing(kind: Kind, is_async: bool) -> Any:
    """A handler that ends its call with all details, of each kind and both worlds."""
    error = StatusError(grpc.StatusCode.FAILED_PRECONDITION, "out of stock", details=DETAILS)

    def refuse() -> Any:
        raise error

    def unary(request: Any) -> Any:
        return refuse()

    def stream(request: Any) -> Iterator[Any]:
        yield refuse()

    async def async_unary(request: Any) -> Any:
        return refuse()

    async def async_stream(request: Any) -> AsyncIterator[Any]:
        yield refuse()

    if kind.response_streaming:
        return async_stream if is_async else stream
    return async_unary if is_async else unary


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
@every_world
@pytest.mark.usefixtures("engine")
def test_all_details_reach_the_client(world: World, kind: Kind, is_async: bool) -> None:
    """Whatever the kind of the method, the handler and the client: what is sent is what arrives."""
    app = app_with(refusing(kind, is_async), kind)
    with pytest.raises(StatusError) as caught:
        in_world(world, app, PATHS[kind], request_for(kind, 7))
    error = caught.value
    assert (error.code(), error.details()) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "out of stock",
    )
    assert error.status_details == DETAILS
    assert tuple(detail_of(error, type(detail)) for detail in DETAILS) == DETAILS


def test_a_client_without_dynserve_reads_them(serve: Serve) -> None:
    """The details are a google.rpc.Status in the trailer that gRPC's own clients read."""
    app = app_with(refusing(Kind.UNARY_UNARY, is_async=False), Kind.UNARY_UNARY)
    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call(PATHS[Kind.UNARY_UNARY], request_for(Kind.UNARY_UNARY, 7))
    error: Any = caught.value
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    packed = [Packed() for _ in DETAILS]
    for one, detail in zip(packed, DETAILS, strict=True):
        one.Pack(detail)
    assert status == Status(code=9, message="out of stock", details=packed)


# ---- reading

WITH_GOOGLE = ECHO.replace(
    "package echo;", 'package echo;\nimport "google/rpc/error_details.proto";'
)


def test_a_detail_of_the_schema_is_given_as_the_class_that_was_asked_for() -> None:
    """The schema's own class of a detail is not the generated one; what is in it is the same."""
    schema = Schema.load(WITH_GOOGLE, cache=False)
    own = schema.message("google.rpc.RetryInfo")
    detail = own(retry_delay={"seconds": 3})
    error = StatusError(grpc.StatusCode.UNAVAILABLE, "busy", details=[detail])
    found = detail_of(error, error_details_pb2.RetryInfo)
    assert found == retry_info(3)
    assert type(found) is error_details_pb2.RetryInfo
    assert detail_of(error, own) is detail


def test_the_first_of_several_details_of_a_type_counts() -> None:
    """AIP-193 allows each type once; of what has more, the first is given."""
    details = [retry_info(1), INFO, retry_info(2)]
    error = StatusError(grpc.StatusCode.UNAVAILABLE, "busy", details=details)
    assert detail_of(error, error_details_pb2.RetryInfo) == retry_info(1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_details_that_are_packed_still(copied: Callable[[Any], Any]) -> None:
    """A detail of a type that nobody knew when it was received is found by its name."""
    Item = Schema.load(ECHO, cache=False).message("echo.Item")
    item = Item(number=7)
    error = copied(StatusError(grpc.StatusCode.ABORTED, details=[item]))
    assert detail_of(error, Item) == item
    assert detail_of(error, error_details_pb2.RetryInfo) is None


def test_a_damaged_detail_is_passed_over() -> None:
    """One that does not parse as what it says it is counts as none; a later one is still found."""
    damaged = Packed(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")
    error = StatusError(grpc.StatusCode.ABORTED, details=[damaged])
    assert detail_of(error, error_details_pb2.RetryInfo) is None
    error = StatusError(grpc.StatusCode.ABORTED, details=[damaged, retry_info(1)])
    assert detail_of(error, error_details_pb2.RetryInfo) == retry_info(1)


@pytest.mark.parametrize("error", [StatusError(grpc.StatusCode.ABORTED), ValueError("x")])
def test_an_error_without_details(error: Exception) -> None:
    """Whatever was raised may be asked."""
    assert detail_of(error, error_details_pb2.RetryInfo) is None


SHOWN = """\
ERROR:
  Code: FailedPrecondition
  Message: out of stock
  Details:
  1)\t{
    \t  "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    \t  "domain": "shop.example.com",
    \t  "metadata": {
    \t    "itemId": "7"
    \t  },
    \t  "reason": "STOCK_OUT"
    \t}
  2)\t{
    \t  "@type": "type.googleapis.com/google.rpc.RetryInfo",
    \t  "retryDelay": "2.500s"
    \t}
"""


@pytest.mark.real
@pytest.mark.usefixtures("engine")
def test_grpcurl_shows_them(tool: Callable[[str], str]) -> None:
    """With what the schema imports, a client that knows types by reflection shows the fields."""
    grpcurl = tool("grpcurl")
    app = App(schema=Schema.load(WITH_GOOGLE, cache=False))

    def unary(request: Any) -> Any:
        details = [INFO, retry_info(2.5)]
        raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, "out of stock", details=details)

    app.add(unary, "echo.Echo/Unary")
    with app.server("127.0.0.1:0").in_thread() as server:
        said = output_of(
            [grpcurl, "-plaintext", "-max-time", "20", server.addresses[0], "echo.Echo/Unary"]
        )
    assert said == SHOWN
