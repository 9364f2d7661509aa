"""dynserve.schema.values: Python values become messages, or an error that names the field."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import re
import timeit
import types
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, timestamp_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from dynserve import MessageError, Schema

TEXT = """
syntax = "proto3";
package p;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Level { LOW = 0; HIGH = 5; }
message M {
  int32 int32 = 1; int64 int64 = 2; uint32 uint32 = 3; uint64 uint64 = 4;
  sint32 sint32 = 5; sint64 sint64 = 6; fixed32 fixed32 = 7; fixed64 fixed64 = 8;
  sfixed32 sfixed32 = 9; sfixed64 sfixed64 = 10; float float = 11; double double = 12;
  bool flag = 13; string text = 14; bytes data = 15; Level level = 16; M child = 17;
  repeated int32 numbers = 20; repeated string words = 21; repeated Level levels = 22;
  repeated M children = 23;
  map<string, int32> counts = 30; map<int32, M> by_number = 31; map<bool, Level> by_flag = 32;
  oneof choice { int32 first = 40; string second = 41; M third = 42; }
  optional int32 maybe = 43;
  string self = 44; string class = 45;
  string two_words = 46; string custom = 47 [json_name = "Cust"];
  google.protobuf.Timestamp time = 50; google.protobuf.Duration duration = 51;
  google.protobuf.Struct struct = 52; google.protobuf.Value value = 53;
  google.protobuf.ListValue list = 54; google.protobuf.Any any = 55;
  google.protobuf.Int32Value wrapped = 56; google.protobuf.FieldMask mask = 57;
  google.protobuf.Empty empty = 58; google.protobuf.StringValue wrapped_text = 59;
  repeated google.protobuf.Timestamp times = 60;
  map<string, google.protobuf.Duration> durations = 61;
  repeated google.protobuf.Value values = 62;
  repeated bytes blobs = 70; map<string, bytes> by_name = 71;
}
"""
SCHEMA = Schema.load(TEXT, cache=False)
M: Any = SCHEMA.message("p.M")


def converted(value: object) -> Any:
    """The value as an ``M``."""
    return SCHEMA.convert(value, M)


def error_of(value: object) -> str:
    """The text of the error that the value gives."""
    with pytest.raises(MessageError) as caught:
        converted(value)
    return str(caught.value)


class Number(enum.IntEnum):
    FIVE = 5


class Level(str, enum.Enum):
    LOW = "LOW"
    HIGH = "HIGH"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("of the user")


@dataclasses.dataclass
class Child:
    text: str
    numbers: tuple[int, ...] = ()
    maybe: int | None = None


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("child",)
    child: Child


# ---- what fits


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, M()),
        ({"int32": -1, "uint64": 2**64 - 1, "double": 1, "flag": True, "text": "é"},
         M(int32=-1, uint64=2**64 - 1, double=1.0, flag=True, text="é")),
        ({"text": b"that is text", "data": b"\xff"}, M(text="that is text", data=b"\xff")),
        ({"level": "HIGH", "levels": ["LOW", 77, Number.FIVE]}, M(level=5, levels=[0, 77, 5])),
        ({"child": {"child": {"text": "deep"}}}, M(child=M(child=M(text="deep")))),
        ({"numbers": (1, 2), "words": {"one"}}, M(numbers=[1, 2], words=["one"])),
        ({"numbers": range(3)}, M(numbers=[0, 1, 2])),
        ({"numbers": (n for n in (1, 2)), "words": {"a": 1}.keys()}, M(numbers=[1, 2], words="a")),
        ({"numbers": array.array("i", [1, 2])}, M(numbers=[1, 2])),
        ({"data": bytearray(b"\xff")}, M(data=b"\xff")),
        ({"data": memoryview(b"abc")[1:], "blobs": [bytearray(b"a"), b"b"],
          "by_name": {"a": bytearray(b"c")}},
         M(data=b"bc", blobs=[b"a", b"b"], by_name={"a": b"c"})),
        ({"level": Level.HIGH, "levels": [Level.LOW]}, M(level=5, levels=[0])),
        (collections.UserDict(text="a", child=collections.ChainMap({"text": "b"})),
         M(text="a", child=M(text="b"))),
        ({"numbers": []}, M()),
        ({"children": [{"text": "a"}, M(text="b"), Child("c")]},
         M(children=[M(text="a"), M(text="b"), M(text="c")])),
        ({"counts": {"a": 1}, "by_number": {-1: {"text": "x"}}, "by_flag": {True: "HIGH"}},
         M(counts={"a": 1}, by_number={-1: M(text="x")}, by_flag={True: 5})),
        ({"second": "x"}, M(second="x")),
        ({"first": None, "third": {}}, M(third=M())),
        ({"maybe": 0}, M(maybe=0)),
        ({"maybe": None, "child": None, "numbers": None, "counts": None}, M()),
        ({"twoWords": "a", "Cust": "b"}, M(two_words="a", custom="b")),
        ({"two_words": "a", "custom": "b"}, M(two_words="a", custom="b")),
        ({"self": "a", "class": "b"}, M(**{"self": "a", "class": "b"})),
        (types.MappingProxyType({"text": "a"}), M(text="a")),
        (Child("a", (1, 2)), M(text="a", numbers=[1, 2])),
        (Slotted(Child("a")), M(child=M(text="a"))),
    ],
)  # fmt: skip
def test_what_fits(value: object, expected: Any) -> None:
    """Mappings, dataclasses, sequences and scalars become the message that they spell."""
    made = converted(value)
    assert type(made) is M
    assert made == expected
    assert made.HasField("maybe") == expected.HasField("maybe")
    assert made.WhichOneof("choice") == expected.WhichOneof("choice")


def test_a_message_of_the_very_class_is_passed_on() -> None:
    """A message of the right class is not copied."""
    made = M(text="a")
    assert converted(made) is made


def test_a_message_of_another_schema() -> None:
    """A message of another pool with the same full name is taken by its bytes, nested too."""
    other: Any = Schema.load(TEXT).message("p.M")
    assert other is not M
    foreign = other(text="a", children=[other(int32=1)])
    expected = M(text="a", children=[M(int32=1)])
    assert converted(foreign) == expected
    assert converted({"child": foreign, "children": [foreign], "by_number": {1: foreign}}) == M(
        child=expected, children=[expected], by_number={1: expected}
    )
    assert converted({"time": timestamp_pb2.Timestamp(seconds=3)}).time.seconds == 3


def test_a_generated_class_of_the_same_name() -> None:
    """A generated message goes where its full name is asked for."""
    from google.rpc import status_pb2

    schema = Schema.load('syntax = "proto3"; import "google/rpc/status.proto";')
    made: Any = schema.convert(
        status_pb2.Status(code=5, message="x"), schema.message("google.rpc.Status")
    )
    assert (type(made), made.code) == (schema.message("google.rpc.Status"), 5)


def test_what_another_schema_knows_is_kept() -> None:
    """Fields that only the other schema knows go through, and required ones need not be set."""
    text = 'syntax = "proto2"; package p; message M { required int32 a = 1; FIELD }'
    ours = Schema.load(text.replace("FIELD", ""))
    theirs = Schema.load(text.replace("FIELD", "optional int32 b = 2;"))
    made = ours.convert(theirs.message("p.M")(b=7), ours.message("p.M"))
    assert made.SerializePartialToString() == b"\x10\x07"


def test_a_message_of_that_name_that_does_not_fit() -> None:
    """A namesake whose bytes are not ours is an error, not a broken message."""
    other = Schema.load('syntax = "proto3"; package p; message M { bytes text = 14; }')
    foreign = other.message("p.M")(text=b"\xff")
    assert error_of(foreign) == "p.M: got a p.M of another schema, which does not fit this one"
    assert error_of({"children": [{}, foreign]}) == (
        "p.M.children[1]: got a p.M of another schema, which does not fit this one"
    )


# ---- what does not fit

BIG = 10**400
HUGE = 1 << 20_000  # Python does not write it in decimal
HUGE_SHOWN = f"0x1{'0' * 56}…"
RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "sint32": (-(2**31), 2**31 - 1),
    "sint64": (-(2**63), 2**63 - 1),
    "fixed32": (0, 2**32 - 1),
    "fixed64": (0, 2**64 - 1),
    "sfixed32": (-(2**31), 2**31 - 1),
    "sfixed64": (-(2**63), 2**63 - 1),
}


@pytest.mark.parametrize(("name", "limits"), RANGES.items())
def test_the_ranges_of_integers(name: str, limits: tuple[int, int]) -> None:
    """An integer at the edge of its range fits; one beyond it is an error that says so."""
    for limit, beyond in zip(limits, (limits[0] - 1, limits[1] + 1), strict=True):
        assert getattr(converted({name: limit}), name) == limit
        expected = f"got {beyond}, which is out of range for {name}"
        assert error_of({name: beyond}) == f"p.M.{name}: {expected}"
    assert error_of({name: 2**70}) == f"p.M.{name}: got {2**70}, which is out of range for {name}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, ": got 5 (int), expected p.M"),
        (None, ": got None, expected p.M"),
        ("x", ": got 'x' (str), expected p.M"),
        ([], ": got [] (list), expected p.M"),
        (int, ": got <class 'int'> (type), expected p.M"),
        (timestamp_pb2.Timestamp(), ": got message google.protobuf.Timestamp, expected p.M"),
        ({"int32": 1.5}, ".int32: got 1.5 (float), expected int32"),
        ({"int32": 1.0}, ".int32: got 1.0 (float), expected int32"),
        ({"int32": "1"}, ".int32: got '1' (str), expected int32"),
        ({"int32": True}, ".int32: got True (bool), expected int32"),
        ({"int32": {}}, ".int32: got {} (dict), expected int32"),
        ({"int32": "x" * 99}, f".int32: got '{'x' * 58}… (str), expected int32"),
        ({"float": "x"}, ".float: got 'x' (str), expected float"),
        ({"double": BIG}, f".double: got 1{'0' * 58}… (int), expected double"),
        ({"float": BIG}, f".float: got 1{'0' * 58}… (int), expected float"),
        ({"flag": "x"}, ".flag: got 'x' (str), expected bool"),
        ({"text": 3}, ".text: got 3 (int), expected string"),
        ({"text": b"\xff"}, ".text: got b'\\xff' (bytes), expected string"),
        ({"text": "\ud800"}, ".text: got '\\ud800' (str), expected string"),
        ({"data": "x"}, ".data: got 'x' (str), expected bytes"),
        ({"level": "MID"}, ".level: got 'MID' (str), expected a value of enum p.Level (LOW, HIGH)"),
        ({"level": 2**40},
         ".level: got 1099511627776 (int), expected a value of enum p.Level (LOW, HIGH)"),
        ({"level": 1.5}, ".level: got 1.5 (float), expected a value of enum p.Level (LOW, HIGH)"),
        ({"child": 3}, ".child: got 3 (int), expected p.M"),
        ({"child": {"child": {"int32": "x"}}}, ".child.child.int32: got 'x' (str), expected int32"),
        ({"child": Child(text=3)}, ".child.text: got 3 (int), expected string"),  # type: ignore[arg-type]
        ({"numbers": 3}, ".numbers: got 3 (int), expected a list of int32"),
        ({"numbers": bytearray(b"ab")},
         ".numbers: got bytearray(b'ab') (bytearray), expected a list of int32"),
        ({"numbers": {1: 2}}, ".numbers: got {1: 2} (dict), expected a list of int32"),
        ({"words": "abc"}, ".words: got 'abc' (str), expected a list of string"),
        ({"words": b"abc"}, ".words: got b'abc' (bytes), expected a list of string"),
        ({"children": M()}, ".children: got message p.M, expected a list of p.M"),
        ({"numbers": [1, "x", "y"]}, ".numbers[1]: got 'x' (str), expected int32"),
        ({"numbers": [1, None]}, ".numbers[1]: got None, expected int32"),
        ({"numbers": iter([1, 2**40])},
         ".numbers[1]: got 1099511627776, which is out of range for int32"),
        ({"levels": ["HIGH", "MID"]},
         ".levels[1]: got 'MID' (str), expected a value of enum p.Level (LOW, HIGH)"),
        ({"children": [{}, {"int32": "x"}]}, ".children[1].int32: got 'x' (str), expected int32"),
        ({"children": [None]}, ".children[0]: got None, expected p.M"),
        ({"counts": [1]}, ".counts: got [1] (list), expected a mapping"),
        ({"counts": {"a": 1, "b": "x"}}, ".counts['b']: got 'x' (str), expected int32"),
        ({"counts": {"a": None}}, ".counts['a']: got None, expected int32"),
        ({"counts": {1: 1}}, ".counts[1]: got 1 (int), expected string as key"),
        ({"counts": {None: 1}}, ".counts[None]: got None, expected string as key"),
        ({"by_number": {"1": {}}}, ".by_number['1']: got '1' (str), expected int32 as key"),
        ({"by_number": {2**40: {}}},
         ".by_number[1099511627776]: got 1099511627776, which is out of range for int32 as key"),
        ({"by_number": {1: {"int32": "x"}}}, ".by_number[1].int32: got 'x' (str), expected int32"),
        ({"by_number": {1: 2}}, ".by_number[1]: got 2 (int), expected p.M"),
        ({"by_flag": {True: "MID"}},
         ".by_flag[True]: got 'MID' (str), expected a value of enum p.Level (LOW, HIGH)"),
        ({"first": 1, "second": "x"},
         ": 'first' and 'second' are both set, but oneof 'choice' holds one"),
        ({"child": {"first": 1, "third": {}}},
         ".child: 'first' and 'third' are both set, but oneof 'choice' holds one"),
        ({"two_words": "a", "twoWords": "b"},
         ".two_words: is given twice, by its name and its JSON name"),
        ({"txet": "a"}, ": no field 'txet' in p.M; did you mean 'text'?"),
        ({"child": {"zzzzz": 1}}, ".child: no field 'zzzzz' in p.M"),
        ({3: 1}, ": no field 3 in p.M"),
        ({("a",): 1}, ": no field ('a',) in p.M"),
        ({"z" * 10**6: 1}, f": no field '{'z' * 58}… in p.M"),
        ({"int32": HUGE}, f".int32: got {HUGE_SHOWN}, which is out of range for int32"),
        ({"double": HUGE}, f".double: got {HUGE_SHOWN} (int), expected double"),
        ({"by_number": {1: {}, HUGE: {}}},
         f".by_number[{HUGE_SHOWN}]: got {HUGE_SHOWN}, which is out of range for int32 as key"),
        ({HUGE: 1}, f": no field {HUGE_SHOWN} in p.M"),
        ({"int32": [[[[[["deep"]]]]]]}, ".int32: got [[[[[...]]]]] (list), expected int32"),
        ({"int32": {"b": 1, "a": b"x" * 99}},
         f".int32: got {{'a': b'{'x' * 51}… (dict), expected int32"),
        ({"child": {"children": [{}, {"by_number": {1: {}, 2: {"child": {"int32": "x"}}}}]}},
         ".child.children[1].by_number[2].child.int32: got 'x' (str), expected int32"),
        ({"child": {"by_name": {"a": 3}}}, ".child.by_name['a']: got 3 (int), expected bytes"),
        ({"third": {"words": ["a", "\udfff"]}},
         ".third.words[1]: got '\\udfff' (str), expected string"),
    ],
)  # fmt: skip
def test_what_does_not_fit(value: object, text: str) -> None:
    """The error has the whole path of the value, what was got and what was expected."""
    assert error_of(value) == f"p.M{text}"


def test_the_first_of_several_faults() -> None:
    """Where protobuf refuses a message as a whole, the value that is wrong is found."""
    assert error_of({"int64": 1, "numbers": [1], "words": ["a", 3], "text": 4}) == (
        "p.M.words[1]: got 3 (int), expected string"
    )


def test_a_value_that_holds_itself() -> None:
    """A value without an end is an error, not a crash."""
    endless: dict[str, Any] = {}
    endless["child"] = endless
    assert error_of(endless) == "p.M: the value is nested too deeply"
    listed: list[Any] = []
    listed.append(listed)
    assert error_of({"value": listed}) == "p.M: the value is nested too deeply"


def test_a_message_that_is_too_deep() -> None:
    """protobuf cannot copy a message that is nested too deeply; that is an error of its own."""
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"child": deep}
    assert error_of(deep) == "p.M: the value is nested too deeply"
    made = M()
    inner = made
    for _ in range(110):
        inner = inner.child
        inner.SetInParent()
    assert error_of({"child": made}) == "p.M: the value is nested too deeply"


def test_a_value_that_cannot_be_shown() -> None:
    """The repr of a value may fail, or its class have the name of another."""
    assert re.fullmatch(
        r"p\.M\.int32: got <Unprintable instance at 0x[0-9a-f]+> \(Unprintable\), expected int32",
        error_of({"int32": Unprintable()}),
    )
    fake = type("list", (), {"__module__": "m"})()
    assert error_of(fake) == f"p.M: got {object.__repr__(fake)} (list), expected p.M"


class Reluctant:
    """A number that is refused a few times, then taken."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    def __index__(self) -> int:
        self.refusals -= 1
        if self.refusals >= 0:
            raise ValueError("not now")
        return 1

    def __repr__(self) -> str:
        return "reluctant"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"int32": Reluctant(1)}, ": not now"),
        ({"int32": Reluctant(2)}, ".int32: got reluctant (Reluctant), expected int32"),
        ({"child": {"int32": Reluctant(2)}},
         ".child: got {'int32': reluctant} (dict), expected p.M"),
        ({"numbers": [Reluctant(2)]}, ".numbers: got [reluctant] (list), expected int32"),
        ({"counts": {"a": Reluctant(2)}},
         ".counts: got {'a': reluctant} (dict), expected p.M.CountsEntry"),
    ],
)  # fmt: skip
def test_a_value_that_is_taken_at_a_later_attempt(value: object, text: str) -> None:
    """Where protobuf takes what it refused before, the error says as much as is known."""
    assert error_of(value) == f"p.M{text}"


def test_a_class_of_another_schema() -> None:
    """A class of another pool is refused, and what its name stands for here is not disturbed."""
    schema = Schema.load(TEXT, cache=False)
    mine: Any = schema.message("p.M")
    with pytest.raises(MessageError) as caught:
        schema.convert({"text": "a"}, M)
    assert str(caught.value) == (
        "p.M: the class is of another schema; use this one's, schema.message('p.M')"
    )
    with pytest.raises(MessageError) as caught:
        schema.convert("2020-01-01T00:00:00Z", timestamp_pb2.Timestamp)
    assert str(caught.value) == (
        "google.protobuf.Timestamp: the class is of another schema; use this one's,"
        " schema.message('google.protobuf.Timestamp')"
    )
    with pytest.raises(MessageError) as caught:
        schema.convert({}, descriptor_pb2.FileDescriptorProto)
    assert str(caught.value) == (
        "google.protobuf.FileDescriptorProto: is not a type of this schema"
    )
    made = schema.convert({"text": "a", "time": "1970-01-01T00:00:01Z"}, mine)
    assert (type(made), made) == (mine, mine(text="a", time={"seconds": 1}))


def test_nested_values_are_not_copied_once_a_level() -> None:
    """A value costs as much below fifty messages as below none, and ten times as much at most."""
    data = b"x" * 1_000_000
    deep: dict[str, Any] = {"data": data}
    for _ in range(50):
        deep = {"child": deep}

    def seconds(value: dict[str, Any]) -> float:
        return min(timeit.repeat(lambda: converted(value), number=20, repeat=3))

    assert seconds(deep) < 10 * seconds({"data": data})


def test_a_user_error_in_a_generator_is_the_users() -> None:
    """What the user's own code raises while it is read is not taken for a value that is wrong."""

    def numbers() -> Any:
        yield 1
        raise RuntimeError("of the user")

    with pytest.raises(RuntimeError, match=r"^of the user$"):
        converted({"numbers": numbers()})


# ---- anything at all

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([field.name for field in M.DESCRIPTOR.fields])
            | st.sampled_from(["@type", "seconds", "nanos", "value", "paths", "fields", "type_url"])
            | st.text(max_size=5)
            | st.integers(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
of_fields = st.dictionaries(
    st.sampled_from([field.name for field in M.DESCRIPTOR.fields]), json_like, max_size=5
)


@settings(max_examples=100, deadline=None)
@given(json_like | of_fields)
def test_any_value_converts_or_is_a_message_error(value: object) -> None:
    """Whatever a handler returns becomes a message that can be sent, or a MessageError."""
    try:
        made = converted(value)
    except MessageError as error:
        assert error.path.startswith("p.M")  # noqa: PT017 - that there is no other is shown
    else:
        assert M.FromString(made.SerializeToString()).SerializeToString() is not None


one_field = st.one_of(
    *[st.tuples(st.just(field.name), json_like) for field in M.DESCRIPTOR.fields]
).map(lambda pair: dict([pair]))


@settings(max_examples=150, deadline=None)
@given(one_field)
def test_any_value_of_any_field(value: dict[str, Any]) -> None:
    """The same for each field by itself; the path begins with the field or is the message's."""
    try:
        converted(value)
    except MessageError as error:
        [name] = value
        assert error.path == "p.M" or error.path.startswith(f"p.M.{name}")  # noqa: PT017


level = st.sampled_from(["LOW", "HIGH"])
texts = st.text(st.characters(codec="utf-8"), max_size=9)
message_like = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            **{name: st.integers(low, high) for name, (low, high) in RANGES.items()},
            "double": st.floats(allow_nan=False),
            "float": st.floats(-1e6, 1e6, width=32),
            "flag": st.booleans(),
            "text": texts,
            "data": st.binary(max_size=9),
            "level": level,
            "numbers": st.lists(st.integers(-9, 9), min_size=1, max_size=4),
            "words": st.lists(texts, min_size=1, max_size=4),
            "levels": st.lists(level, min_size=1, max_size=4),
            "counts": st.dictionaries(texts, st.integers(-9, 9), min_size=1, max_size=3),
            "by_flag": st.dictionaries(st.booleans(), level, min_size=1),
            "second": texts,
            "maybe": st.integers(-1, 1),
            "struct": st.dictionaries(texts, st.none() | texts | st.booleans(), max_size=3),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "child": inner,
            "third": inner,
            "children": st.lists(inner, min_size=1, max_size=3),
            "by_number": st.dictionaries(st.integers(-9, 9), inner, min_size=1, max_size=3),
        },
    ),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(message_like)
def test_round_trips(value: dict[str, Any]) -> None:
    """A message goes through its bytes, its JSON and another schema and is the same."""
    made = converted(value)
    assert M.FromString(made.SerializeToString()) == made
    assert SCHEMA.from_json(SCHEMA.to_json(made), M) == made
    there = OTHER.convert(made, OTHER.message("p.M"))
    assert converted(there) == made
    for name, given_value in value.items():
        if name in RANGES or name in ("text", "data", "flag", "words", "numbers", "counts"):
            assert getattr(made, name) == given_value


OTHER = Schema.load(TEXT, cache=False)
