"""Maps in JSON come in the order of their keys, wherever they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dynserve import Schema

SOURCE = """
    syntax = "proto2";
    package m;
    import "google/protobuf/any.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/wrappers.proto";
    message M {
      map<string, int32> by_name = 1;
      map<int32, M> by_number = 2;
      map<bool, string> by_truth = 3 [json_name = "yesNo"];
      optional M one = 4;
      repeated M many = 5;
      optional google.protobuf.Any any = 6;
      optional google.protobuf.Struct struct = 7;
      optional google.protobuf.Value value = 8;
      optional google.protobuf.ListValue list = 9;
      optional google.protobuf.StringValue text = 10;
      extensions 100 to 200;
    }
    extend M { optional M more = 100; }
"""
schema = Schema.load(SOURCE, cache=False)
M: Any = schema.message("m.M")

NAMES = [f"k{number}" for number in range(20)]
STRUCT = {name: {"b": [{"d": 1, "c": 2}], "a": 1} for name in NAMES}
NUMBERS = [-10, -9, 0, 2, 10]


def keys(form: Any) -> list[str]:
    return list(form)


def full() -> Any:
    """A message with a map, or what is like one, in every place."""
    message: Any = schema.convert({"by_name": dict.fromkeys(NAMES, 1)}, M)
    inner = M.FromString(message.SerializeToString())
    for number in NUMBERS:
        message.by_number[number].CopyFrom(inner)
    message.by_truth.update({True: "yes", False: "no"})
    message.one.CopyFrom(inner)
    message.many.append(inner)
    message.any.Pack(inner)
    message.struct.update(STRUCT)
    message.value.struct_value.update(STRUCT)
    message.list.extend([STRUCT])
    message.text.value = "x"
    message.Extensions[schema.extension("m.more")].CopyFrom(inner)
    return message


@pytest.mark.parametrize("preserving", [True, False])
def test_maps_are_sorted_by_key(preserving: bool) -> None:
    """Text as text, numbers by their value; in fields, lists, maps, Any, extensions and Struct."""
    form = json.loads(schema.to_json(full(), preserving_proto_field_name=preserving))
    name, number, truth = (
        ("by_name", "by_number", "by_truth") if preserving else ("byName", "byNumber", "yesNo")
    )
    assert keys(form[number]) == list(map(str, NUMBERS))
    assert keys(form[truth]) == ["false", "true"]
    for holder in (
        form, form["one"], form["many"][0], form["any"], form["[m.more]"], form[number]["10"],
    ):  # fmt: skip
        assert keys(holder[name]) == sorted(NAMES)
    for struct in (form["struct"], form["value"], form["list"][0]):
        assert keys(struct) == sorted(NAMES)
        assert keys(struct["k0"]["b"][0]) == ["c", "d"]
    assert form["text"] == "x"
    again = schema.from_json(json.dumps(form), M)
    assert schema.to_dict(again) == schema.to_dict(full())


def test_fields_keep_their_order() -> None:
    """Only maps are sorted."""
    assert keys(schema.to_dict(full()))[:4] == ["by_name", "by_number", "by_truth", "one"]


def test_an_any_holds_what_has_a_form_of_its_own() -> None:
    """A Struct in an Any is its value."""
    message = M()
    struct = schema.convert(STRUCT, schema.message("google.protobuf.Struct"))
    message.any.Pack(struct)
    assert keys(schema.to_dict(message)["any"]["value"]) == sorted(NAMES)


def test_a_well_known_type_alone() -> None:
    """A Struct, a ListValue, a wrapper and an empty Any as the whole message."""
    struct = schema.convert(STRUCT, schema.message("google.protobuf.Struct"))
    assert keys(schema.to_dict(struct)) == sorted(NAMES)
    values = schema.convert([STRUCT], schema.message("google.protobuf.ListValue"))
    assert keys(schema.to_dict(values)[0]) == sorted(NAMES)  # type: ignore[index]
    assert schema.to_json(schema.message("google.protobuf.Any")()) == "{}"
    text: Any = schema.convert("x", schema.message("google.protobuf.StringValue"))
    assert schema.to_json(text) == '"x"'
    assert schema.to_json(M(text=text), indent=None) == '{"text": "x"}'


def test_options_of_the_text() -> None:
    """Those of MessageToJson: indent, sort_keys, ensure_ascii."""
    message = M(by_name={"ä": 1})
    assert schema.to_json(message) == '{\n  "byName": {\n    "\\u00e4": 1\n  }\n}'
    assert schema.to_json(message, indent=None, ensure_ascii=False) == '{"byName": {"ä": 1}}'
