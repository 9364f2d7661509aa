"""dynserve.validation: the rules that a .proto states are kept, or the call is refused."""

from __future__ import annotations

import base64
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc.error_details_pb2 import BadRequest

from dynserve import App, Kind, Schema, StatusError
from dynserve.error_details import detail_of
from dynserve.errors import DescriptorError, DynserveError
from dynserve.validation import Validator
from tests.client.worlds import World, every_world, in_world
from tests.conftest import Serve
from tests.running import output_of

protovalidate: Any = pytest.importorskip("protovalidate")

SHOP = """
syntax = "proto3";
package shop;

import "buf/validate/validate.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

message Item {
  string name = 1 [(buf.validate.field).string = {min_len: 2, max_len: 20}];
  int32 count = 2 [(buf.validate.field).int32.gte = 0];
  string unwanted = 3 [(buf.validate.field).cel = {id: "unwanted" expression: "this"}];
}

message Order {
  repeated Item items = 1 [(buf.validate.field).repeated.max_items = 3];
  map<string, Item> gifts = 2 [(buf.validate.field).map.keys.string.min_len = 2];
  map<bool, Item> flags = 3;
  map<int32, Item> numbers = 4;
  Order next = 5;
  string mail = 6 [(buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE,
                   (buf.validate.field).string.email = true];
  google.protobuf.Timestamp at = 7 [(buf.validate.field).timestamp.gt = {seconds: 5}];
  google.protobuf.Duration lasts = 8 [(buf.validate.field).duration.lt = {seconds: 5}];
  google.protobuf.Int32Value size = 9 [(buf.validate.field).int32.gt = 5];
  google.protobuf.Any extra = 10 [(buf.validate.field).any.in = "type.googleapis.com/shop.Item"];
  Colour colour = 11 [(buf.validate.field).enum.defined_only = true];
  int32 from = 12;
  int32 to = 13;
  option (buf.validate.message).cel = {
    id: "order.range" message: "from must be before\\n to" expression: "this.from <= this.to"
  };
}

enum Colour { COLOUR_NONE = 0; COLOUR_RED = 1; }

message Choice {
  oneof what { option (buf.validate.oneof).required = true; string text = 1; int32 number = 2; }
}
message Needed { Item item = 1 [(buf.validate.field).required = true]; }
message Unsaid {
  int32 n = 1 [(buf.validate.field).cel = {id: "n.odd" expression: "this % 2 == 1"}];
}
message Ruleless { string text = 1; Deep deep = 2; map<string, Deep> many = 3; }
message Deep { Ruleless back = 1; google.protobuf.Timestamp at = 2; }
message FarAway { Farther farther = 1; }
message Farther { map<string, Farthest> far = 1; }
message Farthest { FarAway back = 1; repeated Item items = 2; }
"""

OLD = """
syntax = "proto2";
package old;
import "buf/validate/validate.proto";
extend buf.validate.Int32Rules {
  optional int32 multiple = 80001 [(buf.validate.predefined).cel = {
    id: "int32.multiple" message: "is no multiple" expression: "this % rule == 0"
  }];
}
message Pack { optional int32 size = 1 [(buf.validate.field).int32.(multiple) = 6]; }
message Open { optional int32 size = 1; extensions 100 to 199; }
extend Open { optional Pack pack = 100; optional int32 number = 101; }
message Form {
  required int32 number = 1;
  required string name = 2;
  optional Form inner = 3;
  option (buf.validate.message).cel = { id: "f" message: "is 0" expression: "this.number != 0" };
}
"""

NEW = """
edition = "2023";
package edition;
import "buf/validate/validate.proto";
message Point {
  int32 x = 1 [(buf.validate.field).int32.gt = 0];
  Point next = 2 [features.message_encoding = DELIMITED];
}
"""

schema = Schema.load(SHOP, OLD, NEW, cache=False)
validator = Validator(schema)


def refusal(message: str, of: Validator = validator, within: Schema = schema, **fields: Any) -> Any:
    """What the check of such a message raises; None where it passes."""
    kind = within.message(message)
    try:
        of.check(within.convert(fields, kind))
    except StatusError as error:
        return error if error.code() is grpc.StatusCode.INVALID_ARGUMENT else error.code()
    return None


def said(error: StatusError) -> tuple[str, list[tuple[str, str]], list[str]]:
    """The text, the fields and descriptions of the BadRequest, the rules of the Violations."""
    details: tuple[Any, ...] = error.status_details
    violations, bad = details
    assert type(violations) is schema.message("buf.validate.Violations")
    assert type(bad) is BadRequest
    fields = [(one.field, one.description) for one in bad.field_violations]
    return error.details(), fields, [one.rule_id for one in violations.violations]


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


ITEM = {"name": "tea", "count": 1}
SHORT = "must be at least 2 characters"
SIX = "must be greater than 5"


@pytest.mark.parametrize(
    ("message", "fields", "text", "violations", "rules"),
    [
        (
            "shop.Item",
            {"name": "t"},
            f"name: {SHORT}",
            [("name", SHORT)],
            ["string.min_len"],
        ),
        (
            "shop.Item",
            {"name": "t", "count": -1},
            f"name: {SHORT}, and 1 other",
            [("name", SHORT), ("count", "must be greater than or equal to 0")],
            ["string.min_len", "int32.gte"],
        ),
        (
            "shop.Order",
            {"items": [ITEM, {"name": "a"}, {"name": "b"}, {}]},
            "items: must contain no more than 3 item(s), and 3 others",
            [
                ("items", "must contain no more than 3 item(s)"),
                ("items[1].name", SHORT),
                ("items[2].name", SHORT),
                ("items[3].name", SHORT),
            ],
            ["repeated.max_items", *["string.min_len"] * 3],
        ),
        (
            "shop.Order",
            {"next": {"next": {"items": [{}]}}},
            f"next.next.items[0].name: {SHORT}",
            [("next.next.items[0].name", SHORT)],
            ["string.min_len"],
        ),
        (
            "shop.Order",
            {"gifts": {'a"\\': {}}},
            f'gifts["a\\"\\\\"].name: {SHORT}',
            [('gifts["a\\"\\\\"].name', SHORT)],
            ["string.min_len"],
        ),
        (
            "shop.Order",
            {"gifts": {"k": ITEM}},
            f'gifts["k"]: the key {SHORT}',
            [('gifts["k"]', f"the key {SHORT}")],
            ["string.min_len"],
        ),
        (
            "shop.Order",
            {"flags": {True: {}}},
            f"flags[true].name: {SHORT}",
            [("flags[true].name", SHORT)],
            ["string.min_len"],
        ),
        (
            "shop.Order",
            {"numbers": {-7: {}}},
            f"numbers[-7].name: {SHORT}",
            [("numbers[-7].name", SHORT)],
            ["string.min_len"],
        ),
        (
            "shop.Order",
            {"mail": "nobody"},
            "mail: must be a valid email address",
            [("mail", "must be a valid email address")],
            ["string.email"],
        ),
        ("shop.Order", {"size": 5}, f"size: {SIX}", [("size", SIX)], ["int32.gt"]),
        (
            "shop.Order",
            {"at": at(5), "lasts": timedelta(seconds=5)},
            "at: must be greater than 1970-01-01T00:00:05Z, and 1 other",
            [
                ("at", "must be greater than 1970-01-01T00:00:05Z"),
                ("lasts", "must be less than 5s"),
            ],
            ["timestamp.gt", "duration.lt"],
        ),
        (
            "shop.Order",
            {"extra": {"type_url": "type.googleapis.com/shop.Order"}},
            "extra: type URL must be in the allow list",
            [("extra", "type URL must be in the allow list")],
            ["any.in"],
        ),
        (
            "shop.Order",
            {"colour": 9},
            "colour: value must be one of the defined enum values",
            [("colour", "value must be one of the defined enum values")],
            ["enum.defined_only"],
        ),
        (
            "shop.Order",
            {"from": 1},
            "from must be before to",
            [("", "from must be before\n to")],
            ["order.range"],
        ),
        (
            "shop.Choice",
            {},
            "what: exactly one field is required in oneof",
            [("what", "exactly one field is required in oneof")],
            ["required"],
        ),
        (
            "shop.Needed",
            {},
            "item: value is required",
            [("item", "value is required")],
            ["required"],
        ),
        (
            "shop.Unsaid",
            {"n": 2},
            'n: "this % 2 == 1" returned false',
            [("n", '"this % 2 == 1" returned false')],
            ["n.odd"],
        ),
        (
            "shop.FarAway",
            {"farther": {"far": {"k": {"back": {"farther": {"far": {"l": {"items": [{}]}}}}}}}},
            f'farther.far["k"].back.farther.far["l"].items[0].name: {SHORT}',
            [('farther.far["k"].back.farther.far["l"].items[0].name', SHORT)],
            ["string.min_len"],
        ),
        (
            "old.Pack",
            {"size": 7},
            "size: is no multiple",
            [("size", "is no multiple")],
            ["int32.multiple"],
        ),
        (
            "edition.Point",
            {"x": 1, "next": {"x": 0}},
            "next.x: must be greater than 0",
            [("next.x", "must be greater than 0")],
            ["int32.gt"],
        ),
    ],
)
def test_what_breaks_a_rule_is_refused(
    message: str,
    fields: dict[str, Any],
    text: str,
    violations: list[tuple[str, str]],
    rules: list[str],
) -> None:
    """The text has the first violation and counts the others; the details have them all."""
    error = refusal(message, **fields)
    found = said(error)
    assert found == (text, violations, rules)
    assert refusal(message, **fields).status_details == error.status_details  # nor the second time


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("shop.Item", ITEM),
        ("shop.Order", {}),
        (
            "shop.Order",
            {
                "items": [ITEM] * 3,
                "gifts": {"for": ITEM},
                "numbers": {0: ITEM},
                "next": {"from": 1, "to": 1},
                "mail": "a@example.com",
                "at": at(6),
                "lasts": timedelta(seconds=4),
                "size": 6,
                "extra": {"type_url": "type.googleapis.com/shop.Item", "value": b"\xff"},
                "colour": 1,
            },
        ),
        ("shop.Choice", {"number": 0}),
        ("shop.Needed", {"item": ITEM}),
        ("shop.FarAway", {}),
        ("shop.Ruleless", {"text": "x"}),
        ("old.Pack", {"size": 12}),
        ("old.Form", {"number": 1, "name": ""}),
        ("edition.Point", {"x": 1, "next": {"x": 2}}),
    ],
)
def test_what_keeps_the_rules_passes(message: str, fields: dict[str, Any]) -> None:
    """Nothing is raised; of an Any only the type is looked at."""
    assert refusal(message, **fields) is None


@pytest.mark.parametrize(
    ("name", "is_checked"),
    [
        ("shop.Item", True),
        ("shop.Order", True),
        ("shop.Choice", True),
        ("shop.Needed", True),
        ("shop.Ruleless", False),
        ("shop.Deep", False),
        ("shop.FarAway", True),
        ("shop.Farthest", True),
        ("google.protobuf.Timestamp", False),
        ("old.Pack", True),
        ("old.Open", True),  # by what it is extended with
        ("old.Form", True),
        ("edition.Point", True),
        # The rules are messages too; those of maps and lists have rules of their own (in examples).
        ("buf.validate.Violations", False),
    ],
)
def test_a_check_is_given_only_where_a_rule_can_apply(name: str, is_checked: bool) -> None:
    """A type from which no rule is reached, in circles or not, has no check to be called."""
    kind = schema.message(name)
    check = Validator(schema).check_of(kind)
    assert (check is not None) == is_checked
    if check is not None and name == "shop.Item":
        check(kind(**ITEM))
        with pytest.raises(StatusError, match=f"^INVALID_ARGUMENT: name: {SHORT}$"):
            check(kind())


def test_a_schema_that_knows_no_rules() -> None:
    """Where nothing imports buf.validate no type is walked through, and nothing is to prepare."""
    plain = Schema.load('syntax = "proto3"; message M { string name = 1; }', cache=False)
    kind = plain.message("M")
    checks = Validator(plain)
    assert checks.check_of(kind) is None
    checks.prepare([kind])
    checks.check(kind(name=""))


def test_schemas_with_types_of_one_name_have_rules_of_their_own() -> None:
    """What one schema's rules were compiled to is never held against another's messages."""
    schemas = [
        Schema.load(SHOP.replace("min_len: 2", f"min_len: {least}"), cache=False)
        for least in (1, 2, 3)
    ]
    checks = [Validator(one) for one in schemas]
    for _ in range(2):
        refused = [
            refusal("shop.Item", of, within, name="ab") is not None
            for of, within in zip(checks, schemas, strict=True)
        ]
        assert refused == [False, False, True]


def test_missing_required_fields_of_proto2() -> None:
    """What parses without them is the client's mistake, and no error of the server."""
    incomplete = schema.message("old.Form").FromString(b"\x1a\x02\x08\x01")  # inner: number: 1
    check = validator.check_of(type(incomplete))
    assert check is not None
    with pytest.raises(StatusError) as caught:
        check(incomplete)
    error = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "number: is required, and 2 others"
    assert error.status_details == (
        BadRequest(field_violations=[{"field": "number", "description": "is required"}]),
    )
    with pytest.raises(StatusError) as caught:
        check(schema.message("old.Form")(name="x" * 5000))
    assert (caught.value.code(), caught.value.details(), caught.value.status_details) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "a required field is missing",
        (),
    )


def test_a_message_as_deep_as_one_can_be() -> None:
    """What parses, a hundred levels down, is checked down there."""
    kind = schema.message("edition.Point")
    point = innermost = kind(x=1)
    for _ in range(98):
        innermost.next.x = 1
        innermost = innermost.next
    check = validator.check_of(kind)
    assert check is not None
    check(kind.FromString(point.SerializeToString()))
    innermost.x = -1
    with pytest.raises(StatusError) as caught:
        check(kind.FromString(point.SerializeToString()))
    assert caught.value.details() == f"{'next.' * 15}next…: must be greater than 0"


# ---- rules that are wrong

WRONG = """
syntax = "proto3";
package wrong;
import "buf/validate/validate.proto";
message Request { Inner inner = 1; repeated Typed typed = 2; map<string, Fine> fine = 3; }
message Inner { int32 n = 1 [(buf.validate.field).cel = {id: "n.sum" expression: "this ++ 1"}]; }
message Typed { int32 n = 1 [(buf.validate.field).string.min_len = 1]; }
message Fine { int32 n = 1 [(buf.validate.field).cel = {id: "n.div" expression: "10 / this > 1"}]; }
message Apart { repeated int32 n = 1 [(buf.validate.field).repeated.items.cel = {
  id: "n.sum" expression: "this ++ 1"}]; }
"""


def compiler_says(message: Any) -> str:
    """The words of protovalidate itself, which change with its version."""
    with pytest.raises(protovalidate.CompilationError) as caught:
        protovalidate.Validator().validate(message)
    return str(caught.value)


@pytest.mark.parametrize("by", ["prepare", "check_of", "both"])
def test_rules_that_do_not_compile_are_found_before_any_call(by: str) -> None:
    """All of them in what can be reached, with the file and the type; what is apart is left."""
    wrong = Schema.load(WRONG, cache=False)
    kinds = [wrong.message(f"wrong.{name}") for name in ("Request", "Inner", "Typed")]
    _, inner, typed = [f"of wrong.{kind.DESCRIPTOR.name}" for kind in kinds]
    checks = Validator(wrong)
    if by == "both":  # nor does one who catches the error get a check
        with pytest.raises(DescriptorError):
            checks.prepare(kinds[:1])
    with pytest.raises(DescriptorError) as caught:
        checks.prepare(kinds[:1]) if by == "prepare" else checks.check_of(kinds[0])
    lines = sorted(str(caught.value).split("inline_1.proto: "))
    assert [line.rstrip("\n") for line in lines] == [
        "",
        f"a rule {inner} does not compile: {compiler_says(kinds[1]())}",
        f"a rule {typed} does not compile: {compiler_says(kinds[2]())}",
    ]
    assert caught.value.source == "inline_1.proto"


@pytest.mark.parametrize("name", ["Inner", "Typed", "Apart"])
def test_one_that_was_not_prepared_is_found_by_the_first_message(name: str) -> None:
    """The error is the same; it is none of the client's, so it has no status of its own."""
    wrong = Schema.load(WRONG, cache=False)
    message = wrong.message(f"wrong.{name}")(n=[1] if name == "Apart" else 1)
    with pytest.raises(DescriptorError) as caught:
        Validator(wrong).check(message)
    problem = f"a rule of wrong.{name} does not compile: {compiler_says(message)}"
    assert str(caught.value) == f"inline_1.proto: {problem}"


def test_a_rule_without_a_value_is_no_status() -> None:
    """One that divides by zero is the server's mistake: as any other exception it stays here."""
    wrong = Schema.load(WRONG, cache=False)
    checks = Validator(wrong)
    checks.prepare([wrong.message("wrong.Fine")])
    with pytest.raises(protovalidate.EvaluationError, match="divide by zero"):
        checks.check(wrong.message("wrong.Fine")(n=0))


def test_all_rules_of_a_sound_schema_are_prepared() -> None:
    """Rules that an empty message breaks, or cannot be encoded for, compile all the same."""
    names = ("shop.Order", "shop.Choice", "shop.FarAway", "old.Form", "old.Pack", "edition.Point")
    Validator(schema).prepare(map(schema.message, names))


# ---- bounds


def test_in_a_large_message_one_violation_is_looked_for() -> None:
    """Each byte can be a violation, and each takes memory: the first is enough there."""
    source = """
    syntax = "proto3";
    import "buf/validate/validate.proto";
    message Many { repeated int32 n = 1 [(buf.validate.field).repeated.items.int32.gt = 5]; }
    """
    many = Schema.load(source, cache=False)
    small, large = (refusal("Many", Validator(many), many, n=[1] * n) for n in (4000, 5000))
    assert small.details() == f"n[0]: {SIX}, and 3999 others"
    assert large.details() == f"n[0]: {SIX}, and maybe others"
    kept = len(small.status_details[1].field_violations)
    assert len(small.status_details[0].violations) == kept
    assert 10 < kept < 100
    assert len(large.status_details[0].violations) == 1
    assert sum(detail.ByteSize() for detail in small.status_details) < 3500


def test_a_violation_too_long_for_a_trailer_is_only_in_the_text() -> None:
    """The key is the client's own, of any length; the text has the start of it."""
    error = refusal("shop.Order", gifts={"😀" * 1000: {}})
    assert error.details() == f'gifts["{"😀" * 72}…: {SHORT}'
    assert error.status_details == ()


# ---- what is installed


@pytest.mark.parametrize("module", [None, ModuleType("protovalidate")], ids=["none", "old"])
def test_without_protovalidate(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for validation and lacks what it takes is told what to install."""
    monkeypatch.setitem(sys.modules, "protovalidate", module)
    with pytest.raises(DynserveError) as caught:
        Validator(schema)
    assert str(caught.value) == (
        "validation needs the package protovalidate, 2.0 or later;"
        " write `pip install 'dynserve[validate]'`"
    )


def test_a_set_without_the_message_for_violations() -> None:
    """`buf build --type` leaves out what no rule names; the BadRequest says it all the same."""
    files = FileDescriptorSet()
    for name in schema.index.files:
        file = FileDescriptorProto.FromString(schema.index.stripped(name))
        for message in [one for one in file.message_type if one.name.startswith("Violation")]:
            if file.package == "buf.validate":
                file.message_type.remove(message)
        files.file.append(file)
    trimmed = Schema.load(files, cache=False)
    error = refusal("shop.Item", Validator(trimmed), trimmed)
    assert error.status_details == (
        BadRequest(field_violations=[{"field": "name", "description": SHORT}]),
    )


# ---- threads


def test_many_threads_share_one_validator() -> None:
    """Rules are compiled by whoever comes first, and every thread gets the same answers."""
    answers: list[Any] = []
    fresh = Schema.load(SHOP, cache=False)
    for _ in range(5):
        checks = Validator(fresh)
        start = threading.Barrier(8)

        def run(checks: Validator = checks, start: threading.Barrier = start) -> None:
            try:
                start.wait(20)
                for _ in range(50):
                    for message, fields in (("Order", {"items": [{}]}), ("Unsaid", {"n": 2})):
                        error = refusal(f"shop.{message}", checks, fresh, **fields)
                        answers.append(error.details())
            except BaseException as error:
                answers.append(error)

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    expected = {f"items[0].name: {SHORT}", 'n: "this % 2 == 1" returned false'}
    assert (len(answers), set(answers)) == (5 * 8 * 50 * 2, expected)


# ---- calls

SERVED = """
syntax = "proto3";
package served;
import "buf/validate/validate.proto";
import "google/rpc/error_details.proto";
message Item {
  int32 number = 1 [(buf.validate.field).int32.gt = 0,
                    (buf.validate.field).cel = {id: "n" expression: "100 / (this - 13) < 101"}];
}
message Free { int32 number = 1; }
service Echo {
  rpc Unary(Item) returns (Free);
  rpc Down(Item) returns (stream Free);
  rpc Up(stream Item) returns (Free);
  rpc Chat(stream Item) returns (stream Free);
}
"""
PATHS = {
    Kind.UNARY_UNARY: "served.Echo/Unary",
    Kind.UNARY_STREAM: "served.Echo/Down",
    Kind.STREAM_UNARY: "served.Echo/Up",
    Kind.STREAM_STREAM: "served.Echo/Chat",
}
served = Schema.load(SERVED, cache=False)
every_kind = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def noting(kind: Kind, is_async: bool, seen: list[int]) -> Any:
    """A handler that notes each number that it gets, and answers with the sum."""

    def note(request: Any) -> dict[str, int]:
        seen.append(request.number)
        return {"number": sum(seen)}

    def each(request: Any) -> Iterator[Any]:
        for one in request if kind.request_streaming else [request]:
            yield note(one)

    async def async_each(request: Any) -> AsyncIterator[Any]:
        if not kind.request_streaming:
            yield note(request)
            return
        async for one in request:
            yield note(one)

    def unary(request: Any) -> Any:
        return list(each(request))[-1]

    async def async_unary(request: Any) -> Any:
        return [answer async for answer in async_each(request)][-1]

    if kind.response_streaming:
        return async_each if is_async else each
    return async_unary if is_async else unary


def app_of(kind: Kind, is_async: bool, seen: list[int]) -> App:
    """An app that serves one method."""
    app = App(schema=served)
    app.add(noting(kind, is_async, seen), PATHS[kind])
    return app


def requests(kind: Kind, *numbers: int) -> Any:
    """What a client sends; of a unary request the last."""
    items: Iterable[Any] = [served.message("served.Item")(number=number) for number in numbers]
    return items if kind.request_streaming else list(items)[-1]


@every_kind
@both
@every_world
@pytest.mark.usefixtures("engine")
def test_no_handler_sees_a_message_that_breaks_a_rule(
    kind: Kind, is_async: bool, world: World
) -> None:
    """Whatever the kind, handler and client: the call ends before the message is handed over."""
    seen: list[int] = []
    app = app_of(kind, is_async, seen)
    options = {"server": {"validate": True}}
    with pytest.raises(StatusError) as caught:
        in_world(world, app, PATHS[kind], requests(kind, 3, 4, -1), **options)
    error = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "number: must be greater than 0"
    assert detail_of(error, BadRequest) == BadRequest(
        field_violations=[{"field": "number", "description": "must be greater than 0"}]
    )
    violations: Any = detail_of(error, served.message("buf.validate.Violations"))
    assert [one.rule_id for one in violations.violations] == ["int32.gt"]
    assert seen == ([3, 4] if kind.request_streaming else [])


@every_kind
@both
def test_messages_that_keep_the_rules_are_handed_over(
    kind: Kind, is_async: bool, serve: Serve
) -> None:
    """Each one, of a stream too."""
    seen: list[int] = []
    with serve(app_of(kind, is_async, seen), validate=True) as client:
        client.call(PATHS[kind], requests(kind, 3, 4))
    assert seen == ([3, 4] if kind.request_streaming else [4])


@every_kind
@both
def test_rules_are_not_enforced_unless_that_is_asked_for(
    kind: Kind, is_async: bool, serve: Serve
) -> None:
    """A server that says nothing of validation hands over what it gets."""
    seen: list[int] = []
    with serve(app_of(kind, is_async, seen)) as client:
        client.call(PATHS[kind], requests(kind, -1))
    assert seen == [-1]


@every_kind
@both
def test_a_rule_that_fails_is_an_error_of_the_server(
    kind: Kind, is_async: bool, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets INTERNAL and an id, the log has the rest."""
    seen: list[int] = []
    with (
        caplog.at_level(logging.ERROR),
        serve(app_of(kind, is_async, seen), validate=True) as client,
        pytest.raises(grpc.RpcError) as caught,
    ):
        client.call(PATHS[kind], requests(kind, 13))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "zero" not in error.details()
    assert "divide by zero" in caplog.text
    assert seen == []


@pytest.mark.usefixtures("engine")
def test_a_server_with_a_rule_that_does_not_compile_does_not_start() -> None:
    """It is found when the server is made, and only where rules are to be enforced."""
    broken = Schema.load(SERVED.replace("100 /", "100 ++"), cache=False)
    app = App(schema=broken)
    app.add(noting(Kind.UNARY_UNARY, False, []), "served.Echo/Unary")
    with app.server("127.0.0.1:0").in_thread():
        pass
    with (
        pytest.raises(DescriptorError, match=r"a rule of served\.Item does not compile"),
        app.server("127.0.0.1:0", validate=True).in_thread(),
    ):
        pass


def test_the_longest_refusal_fits_into_a_trailer(serve: Serve) -> None:
    """What takes most room, in the text, in the details and in both, still reaches the client."""
    source = SHOP + "service Shop { rpc Buy(Order) returns (Ruleless); }"
    shop = Schema.load(source, cache=False)
    app = App(schema=shop)
    app.add(lambda order: {}, "shop.Shop/Buy")
    orders: list[dict[str, Any]] = [
        {"gifts": {"😀" * 1000: {}}},
        {
            "gifts": {"😀" * 80: {"name": "tea", "unwanted": "😀" * 120}},
            "numbers": {number: {} for number in range(100)},
        },
        {"gifts": {"😀" * size: {} for size in range(75, 85)}},
        {"gifts": {"%" * size: {} for size in range(75, 120)}},
        {"gifts": {f"{number:04}": {} for number in range(300)}},
    ]
    with serve(app, validate=True) as client:
        for order in orders:
            with pytest.raises(grpc.RpcError) as caught:
                client.call("shop.Shop/Buy", order)
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
            assert trailer_size(error) < 8192  # what gRPC's clients take for certain


def trailer_size(error: Any) -> int:
    """Of the text, which is percent-encoded, and the details, which are base64, as HTTP/2 counts.

    https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2: names, values, and 32 bytes each
    """
    values = {"grpc-status": b"3", "grpc-message": quote(error.details()).encode()}
    for key, value in error.trailing_metadata():
        values[key] = base64.b64encode(value)
    return sum(len(key) + len(value) + 32 for key, value in values.items())


@pytest.mark.real
@pytest.mark.usefixtures("engine")
def test_grpcurl_shows_the_violations(tool: type[Any]) -> None:
    """A client that knows types by reflection alone gets field, message and rule."""
    grpcurl = tool("grpcurl")
    app = app_of(Kind.UNARY_UNARY, False, [])
    with app.server("127.0.0.1:0", validate=True).in_thread() as server:
        words = ["-plaintext", "-max-time", "20", server.addresses[0], "served.Echo/Unary"]
        printed = output_of([grpcurl, *words])
    head, _, details = printed.partition("  Details:\n")
    assert head == ("ERROR:\n  Code: InvalidArgument\n  Message: number: must be greater than 0\n")
    for line in (
        '"@type": "type.googleapis.com/buf.validate.Violations"',
        '"ruleId": "int32.gt"',
        '"@type": "type.googleapis.com/google.rpc.BadRequest"',
        '"field": "number"',
    ):
        assert line in details
