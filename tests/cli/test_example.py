"""The request that ``dynserve run`` makes up for its command to paste."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dynserve import Schema
from dynserve.cli.example import example_of

schema = Schema.load(
    """
    syntax = "proto3";
    package e;
    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    enum Colour { NONE = 0; RED = 1; }
    message Scalars { string text = 1; bool yes = 2; bytes data = 3; int32 more = 4; }
    message Numbers { int64 big = 1; double real = 2; repeated uint32 many = 3; }
    message Choice { oneof one { string a = 1; int32 b = 2; } Colour colour = 3; int32 c = 4; }
    message Optional { optional int32 a = 1; optional int32 b = 2; }
    message Tree { string name = 1; repeated Tree children = 2; map<string, int32> counts = 3; }
    message Deep { A a = 1; }
    message A { B b = 1; }
    message B { C c = 1; }
    message C { int32 x = 1; }
    message Times {
      google.protobuf.Timestamp at = 1;
      google.protobuf.Any any = 2;
      google.protobuf.Duration took = 3;
      google.protobuf.FieldMask mask = 4;
    }
    message Wrapped {
      google.protobuf.StringValue text = 1;
      google.protobuf.Int64Value number = 2;
      google.protobuf.Struct data = 3;
    }
    message Nothing {}
    """,
    """
    syntax = "proto2";
    package old;
    message Point { required int32 x = 1; }
    message L5 { required Point point = 1; }
    message L4 { required L5 next = 1; }
    message L3 { required L4 next = 1; }
    message Order {
      optional int32 a = 1;
      optional int32 b = 2;
      optional int32 c = 3;
      optional int32 d = 4;
      required L3 deep = 5;
      required string last = 6;
    }
    message Grouped { optional group Result = 1 { optional string url = 2; } }
    """,
    cache=False,
)


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("e.Scalars", {"text": "text", "yes": True, "data": "AA=="}),
        ("e.Numbers", {"big": 1, "real": 1, "many": [1]}),
        ("e.Choice", {"a": "text", "colour": "NONE", "c": 1}),
        ("e.Optional", {"a": 1, "b": 1}),
        ("e.Tree", {"name": "text"}),
        ("e.Deep", {"a": {"b": {}}}),
        (
            "e.Times",
            {"at": "2001-02-03T04:05:06Z", "took": "1.5s", "mask": "name"},
        ),
        ("e.Wrapped", {"text": "text", "number": "1", "data": {}}),
        ("e.Nothing", {}),
        (
            "old.Order",
            {
                "a": 1,
                "b": 1,
                "c": 1,
                "deep": {"next": {"next": {"point": {"x": 1}}}},
                "last": "text",
            },
        ),
        ("old.Grouped", {"result": {"url": "text"}}),
        ("google.protobuf.StringValue", "text"),
        ("google.protobuf.Timestamp", "2001-02-03T04:05:06Z"),
        ("google.protobuf.ListValue", []),
        ("google.protobuf.Empty", {}),
        ("google.protobuf.Any", {}),
    ],
)
def test_examples_have_real_names_and_what_is_required(name: str, example: Any) -> None:
    """A few fields by their names, one of a oneof, all that is required; protobuf reads it."""
    message = schema.message(name)
    assert example_of(message.DESCRIPTOR) == example
    read = schema.from_json(json.dumps(example), message)
    assert read.IsInitialized()
