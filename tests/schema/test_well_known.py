"""dynserve.schema.well_known: Python values of the well-known types."""

from __future__ import annotations

import dataclasses
import datetime
import timeit
import types
from typing import Any

import pytest
from google.protobuf import any_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from dynserve import MessageError, Schema

SCHEMA = Schema.load(
    """
syntax = "proto3";
package p;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message M {
  google.protobuf.Timestamp time = 1; google.protobuf.Duration duration = 2;
  google.protobuf.Struct struct = 3; google.protobuf.Value value = 4;
  google.protobuf.ListValue list = 5; google.protobuf.Any any = 6;
  google.protobuf.FieldMask mask = 7; google.protobuf.Empty empty = 8;
  google.protobuf.DoubleValue double = 10; google.protobuf.FloatValue float = 11;
  google.protobuf.Int64Value int64 = 12; google.protobuf.UInt64Value uint64 = 13;
  google.protobuf.Int32Value int32 = 14; google.protobuf.UInt32Value uint32 = 15;
  google.protobuf.BoolValue bool = 16; google.protobuf.StringValue string = 17;
  google.protobuf.BytesValue bytes = 18;
  repeated google.protobuf.Timestamp times = 20;
  map<string, google.protobuf.Int32Value> numbers = 21;
  repeated google.protobuf.Value values = 22;
  string text = 23;
}
""",
    cache=False,
)
M: Any = SCHEMA.message("p.M")
UTC = datetime.timezone.utc
NOON = "2020-02-03T12:00:00Z"


@dataclasses.dataclass
class Point:
    seconds: int
    nanos: int = 0


@dataclasses.dataclass
class Unknown:
    a: int = 0


def form(value: object) -> dict[str, Any]:
    """The value as a message, and that in its JSON form."""
    return SCHEMA.to_dict(SCHEMA.convert(value, M))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("time", datetime.datetime(2020, 2, 3, 12), NOON),
        ("time", datetime.datetime(2020, 2, 3, 12, tzinfo=UTC), NOON),
        (
            "time",
            datetime.datetime(
                2020, 2, 3, 14, tzinfo=datetime.timezone(datetime.timedelta(hours=2))
            ),
            NOON,
        ),
        ("time", "2020-02-03T14:00:00+02:00", NOON),
        ("time", timestamp_pb2.Timestamp(seconds=1), "1970-01-01T00:00:01Z"),
        ("time", {"seconds": 1}, "1970-01-01T00:00:01Z"),
        ("time", Point(1), "1970-01-01T00:00:01Z"),
        ("time", datetime.datetime.max, "9999-12-31T23:59:59.999999Z"),
        ("time", datetime.datetime.min, "0001-01-01T00:00:00Z"),
        ("times", [NOON, datetime.datetime(2020, 2, 3)], [NOON, "2020-02-03T00:00:00Z"]),
        ("duration", datetime.timedelta(days=-1, milliseconds=5), "-86399.995s"),
        ("duration", "1.5s", "1.500s"),
        ("duration", {"nanos": 1}, "0.000000001s"),
        ("double", 1, 1.0),
        ("float", 0.5, 0.5),
        ("int64", -(2**63), str(-(2**63))),
        ("uint64", 2**64 - 1, str(2**64 - 1)),
        ("int32", 0, 0),
        ("uint32", 7, 7),
        ("bool", False, False),
        ("string", "", ""),
        ("bytes", b"\xff", "/w=="),
        ("int32", {"value": 3}, 3),
        ("int32", {}, 0),
        ("int32", wrappers_pb2.Int32Value(value=3), 3),
        ("numbers", {"a": 1, "b": {"value": 2}}, {"a": 1, "b": 2}),
        ("mask", "aB,c.d", "aB,c.d"),
        ("mask", ["a_b", "c.d"], "aB,c.d"),
        ("mask", ("a_b",), "aB"),
        ("mask", {"paths": ["a_b"]}, "aB"),
        ("empty", {}, {}),
        ("struct", {}, {}),
        (
            "struct",
            {"a": {"b": [1, None, "x", True, (2.5,)]}},
            {"a": {"b": [1.0, None, "x", True, [2.5]]}},
        ),
        ("struct", types.MappingProxyType({"a": types.MappingProxyType({})}), {"a": {}}),
        ("struct", {"fields": 1}, {"fields": 1.0}),
        ("list", [1, [2], {"a": None}], [1.0, [2.0], {"a": None}]),
        ("list", (), []),
        ("value", 1, 1.0),
        ("value", True, True),
        ("value", "x", "x"),
        ("value", [], []),
        ("value", {"string_value": "x"}, {"string_value": "x"}),
        ("value", struct_pb2.Value(string_value="x"), "x"),
        ("value", {}, {}),
        ("value", [[], {}], [[], {}]),
        ("list", [struct_pb2.Value(string_value="x"), [True]], ["x", [True]]),
        ("struct", {"a": struct_pb2.Value(number_value=1)}, {"a": 1.0}),
        ("bytes", bytearray(b"\xff"), "/w=="),
        ("values", [None, 1, {}, struct_pb2.Value(bool_value=True)], [None, 1.0, {}, True]),
        ("any", M(text="x"), {"@type": "type.googleapis.com/p.M", "text": "x"}),
        (
            "any",
            timestamp_pb2.Timestamp(seconds=1),
            {"@type": "type.googleapis.com/google.protobuf.Timestamp",
             "value": "1970-01-01T00:00:01Z"},
        ),
        (
            "any",
            any_pb2.Any(type_url="x/p.M", value=b"\xba\x01\x01x"),
            {"@type": "x/p.M", "text": "x"},
        ),
        ("any", {"@type": "x/p.M", "text": "x"}, {"@type": "x/p.M", "text": "x"}),
        (
            "any",
            types.MappingProxyType({"@type": "x/google.protobuf.Duration", "value": "1s"}),
            {"@type": "x/google.protobuf.Duration", "value": "1s"},
        ),
        ("any", {"type_url": "x/p.M"}, {"@type": "x/p.M"}),
    ],
)  # fmt: skip
def test_what_well_known_types_take(name: str, value: object, expected: object) -> None:
    """Each takes the Python value that stands for it, a message of its own, and its fields."""
    assert form({name: value}) == {name: expected}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("google.protobuf.Timestamp", datetime.datetime(2020, 2, 3, 12), NOON),
        ("google.protobuf.Duration", datetime.timedelta(seconds=1), "1s"),
        ("google.protobuf.StringValue", "x", "x"),
        ("google.protobuf.Struct", {"a": 1}, {"a": 1.0}),
        ("google.protobuf.Value", None, None),
        ("google.protobuf.ListValue", [None], [None]),
        ("google.protobuf.FieldMask", ["a"], "a"),
        ("google.protobuf.Empty", None, {}),
    ],
)
def test_they_may_be_the_whole_message(name: str, value: object, expected: object) -> None:
    """A handler whose response is a well-known type returns the same values."""
    made = SCHEMA.convert(value, SCHEMA.message(name))
    assert type(made) is SCHEMA.message(name)
    assert SCHEMA.to_dict(made) == expected


def test_none_leaves_a_field_unset() -> None:
    """None for a field of a well-known type is no value, not JSON's null."""
    assert form({"value": None, "empty": None, "time": None, "int32": None}) == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"time": 3}, ".time: got 3 (int), expected google.protobuf.Timestamp"),
        (
            {"time": datetime.date(2020, 1, 1)},
            ".time: got datetime.date(2020, 1, 1) (date), expected google.protobuf.Timestamp",
        ),
        ({"times": [NOON, 3]}, ".times[1]: got 3 (int), expected google.protobuf.Timestamp"),
        ({"time": {"seconds": "x"}}, ".time.seconds: got 'x' (str), expected int64"),
        (
            {"time": {"second": 1}},
            ".time: no field 'second' in google.protobuf.Timestamp; did you mean 'seconds'?",
        ),
        ({"duration": 1}, ".duration: got 1 (int), expected google.protobuf.Duration"),
        ({"int32": "3"}, ".int32: got '3' (str), expected int32"),
        ({"int32": 2**40}, ".int32: got 1099511627776, which is out of range for int32"),
        ({"int32": {"value": "x"}}, ".int32.value: got 'x' (str), expected int32"),
        ({"float": 10**400}, f".float: got 1{'0' * 58}… (int), expected float"),
        ({"string": b"\xff"}, ".string: got b'\\xff' (bytes), expected string"),
        ({"numbers": {"a": None}}, ".numbers['a']: got None, expected google.protobuf.Int32Value"),
        ({"mask": 3}, ".mask: got 3 (int), expected google.protobuf.FieldMask"),
        ({"mask": ["a", 3]}, ".mask[1]: got 3 (int), expected string"),
        ({"empty": 3}, ".empty: got 3 (int), expected google.protobuf.Empty"),
        ({"empty": {"a": 1}}, ".empty: no field 'a' in google.protobuf.Empty"),
        ({"struct": [1]}, ".struct: got [1] (list), expected google.protobuf.Struct"),
        ({"struct": {1: 2}}, ".struct[1]: got 1 (int), expected string as key"),
        (
            {"struct": {"a": [1, {"b": b"x"}]}},
            ".struct['a'][1]['b']: got b'x' (bytes), expected google.protobuf.Value",
        ),
        ({"list": "x"}, ".list: got 'x' (str), expected google.protobuf.ListValue"),
        ({"list": [{1}]}, ".list[0]: got {1} (set), expected google.protobuf.Value"),
        ({"value": b"x"}, ".value: got b'x' (bytes), expected google.protobuf.Value"),
        ({"value": 10**400}, f".value: got 1{'0' * 58}… (int), expected double"),
        ({"values": ["a", M()]}, ".values[1]: got message p.M, expected google.protobuf.Value"),
        ({"any": 3}, ".any: got 3 (int), expected google.protobuf.Any"),
        (
            {"any": {"@type": 3}},
            ".any: no field '@type' in google.protobuf.Any; did you mean 'type_url'?",
        ),
        ({"value": "\ud800"}, ".value: got '\\ud800' (str), expected string"),
        ({"list": [1, 10**400]}, f".list[1]: got 1{'0' * 58}… (int), expected double"),
        ({"struct": {"a": {"\ud800": 1}}},
         ".struct['a']['\\ud800']: got '\\ud800' (str), expected string as key"),
        ({"struct": {"a": {None: 1}}}, ".struct['a'][None]: got None, expected string as key"),
        ({"list": [[Unknown()]]}, ".list[0][0]: no field 'a' in google.protobuf.Value"),
        (
            {"any": {"@type": "x/p.N"}},
            ".any: got {'@type': 'x/p.N'} (dict): Can not find message descriptor by type_url:"
            " x/p.N at Any",
        ),
    ],
)  # fmt: skip
def test_what_they_do_not_take(value: dict[str, Any], text: str) -> None:
    """The path goes into a Struct as into a message, and leaves out what JSON leaves out."""
    with pytest.raises(MessageError) as caught:
        SCHEMA.convert(value, M)
    assert str(caught.value) == f"p.M{text}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time", "yesterday"),
        ("time", "0000-01-01T00:00:00Z"),
        ("duration", "1"),
        ("duration", "1e400s"),
        ("mask", "a_b"),
        ("mask", "\ud800"),
    ],
)
def test_text_that_is_not_of_the_json_form(name: str, value: str) -> None:
    """Text that protobuf's JSON form does not allow is an error with protobuf's reason."""
    with pytest.raises(MessageError) as caught:
        SCHEMA.convert({name: value}, M)
    assert caught.value.path == f"p.M.{name}"
    assert caught.value.problem.startswith(f"got {value!r} (str): ")


def test_json_data_is_not_copied_once_a_level() -> None:
    """Data costs as much below twenty lists as below none, and ten times as much at most."""
    text = "x" * 1_000_000
    deep: object = text
    for _ in range(20):
        deep = [deep]

    def seconds(value: object) -> float:
        return min(timeit.repeat(lambda: SCHEMA.convert({"value": value}, M), number=20, repeat=3))

    assert seconds(deep) < 10 * seconds(text)


@pytest.mark.parametrize("depth", [60, 10_000])
def test_json_data_that_is_too_deep(depth: int) -> None:
    """Lists in lists beyond what protobuf copies, or Python calls, are an error of their own."""
    deep: object = None
    for _ in range(depth):
        deep = [deep]
    with pytest.raises(MessageError) as caught:
        SCHEMA.convert({"value": deep}, M)
    assert str(caught.value) == "p.M: the value is nested too deeply"


def test_an_any_of_an_unfinished_message() -> None:
    """A message that lacks a required field cannot be packed, and the error says which field."""
    schema = Schema.load('syntax = "proto2"; package q; message R { required int32 id = 1; }')
    with pytest.raises(MessageError) as caught:
        SCHEMA.convert({"any": schema.message("q.R")()}, M)
    assert str(caught.value) == "p.M.any: Message q.R is missing required fields: id"


plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False)
texts = st.text(st.characters(codec="utf-8"), max_size=9)
json_data = st.recursive(
    plain | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(json_data)
def test_json_data_goes_through_a_value(data: object) -> None:
    """Any JSON data is a Value, and comes back as it was."""
    made: Any = SCHEMA.convert({"values": [data]}, M)

    def back(value: Any) -> object:
        match value.WhichOneof("kind"):
            case "null_value":
                return None
            case "struct_value":
                return {key: back(item) for key, item in value.struct_value.fields.items()}
            case "list_value":
                return [back(item) for item in value.list_value.values]
            case kind:
                return getattr(value, kind)

    assert back(made.values[0]) == data


@settings(max_examples=100, deadline=None)
@given(st.datetimes() | st.datetimes(timezones=st.just(UTC)), st.timedeltas())
def test_times_go_through(moment: datetime.datetime, span: datetime.timedelta) -> None:
    """Every datetime is a Timestamp and every timedelta a Duration, to the microsecond."""
    made: Any = SCHEMA.convert({"time": moment, "duration": span}, M)
    assert made.time.ToDatetime() == moment.replace(tzinfo=None)
    assert made.duration.ToTimedelta() == span
