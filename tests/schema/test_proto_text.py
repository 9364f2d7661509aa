"""dynserve.schema.proto_text: descriptors as the text that compiles to them."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    Edition,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynserve import DescriptorError, Schema
from dynserve.errors import SymbolError
from dynserve.schema.descriptors import parse_file
from dynserve.schema.proto_text import file_text, symbol_text
from dynserve.schema.proto_text.literals import decimal, quote
from dynserve.schema.symbols import symbols_of

from .conftest import Tree

PROTOS = Path(__file__).parents[2] / "protos"

# ---- what equal means


def again(schema: Schema, folder: Path) -> Schema:
    """The text of every file of a schema, compiled."""
    paths = []
    for file in schema.index.files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file_text(schema, file), encoding="utf-8", newline="\n")
        paths.append(str(path))
    return Schema.load(*paths, include=[folder], cache=False)


def descriptor(schema: Schema, file: str) -> bytes:
    """The descriptor of a file without its source, every option read by its type.

    protoc derives a JSON name and says nothing of proto2; other makers of descriptors differ.
    """
    name = "google.protobuf.FileDescriptorProto"
    parsed: Any = parse_file(schema.index.raw(file))
    if schema.has_message(name):
        parsed = schema.message(name).FromString(schema.index.raw(file))
    parsed.ClearField("source_code_info")
    if parsed.syntax == "proto2":
        parsed.ClearField("syntax")
    todo = [parsed]
    while todo:
        holder = todo.pop()
        todo += holder.message_type if holder is parsed else holder.nested_type
        for field in [*holder.extension, *getattr(holder, "field", ())]:
            first, *rest = field.name.split("_")
            derived = first + "".join(part[:1].upper() + part[1:] for part in rest)
            if field.json_name == derived:
                field.ClearField("json_name")
    data: bytes = parsed.SerializeToString(deterministic=True)
    return data


def comments(schema: Schema, file: str) -> list[Any]:
    """Every comment by the path of what it is on: leading, trailing, detached."""

    def lines(text: str) -> list[str]:
        return [line.rstrip() for line in text.splitlines()]

    found = [
        (
            list(location.path),
            lines(location.leading_comments),
            lines(location.trailing_comments),
            [lines(text) for text in location.leading_detached_comments],
        )
        for location in parse_file(schema.index.raw(file)).source_code_info.location
    ]
    return sorted(comment for comment in found if any(comment[1:]))


def assert_same(schema: Schema, folder: Path) -> int:
    """All descriptors and all comments survive; the number of files."""
    compiled = again(schema, folder)
    for file in schema.index.files:
        assert descriptor(compiled, file) == descriptor(schema, file), file
        assert comments(compiled, file) == comments(schema, file), file
        assert compiled.comments(file) == schema.comments(file)
    return len(schema.index.files)


def one_file(text: str) -> tuple[Schema, str]:
    """A schema of one inline file, and its text printed."""
    schema = Schema.load(text, cache=False)
    return schema, file_text(schema, "inline_1.proto")


# ---- whole files


@pytest.mark.parametrize(
    ("sources", "least"),
    [
        (["package:googleapis-common-protos"], 60),
        (["package:grpc_tools/_proto"], 14),
        (["grpc_health.v1.health_pb2", "grpc_reflection.v1alpha.reflection_pb2"], 2),
        ([str(PROTOS)], 5),
    ],
    ids=lambda value: Path(value[0]).name if isinstance(value, list) else "",
)
def test_installed_files(sources: list[str], least: int, tmp_path: Path) -> None:
    """Every .proto that is installed comes back equal, with its comments."""
    modules = [importlib.import_module(s) if s.endswith("_pb2") else s for s in sources]
    assert assert_same(Schema.load(*modules), tmp_path) >= least


def without_source(schema: Schema) -> Schema:
    """The same without source locations, as a server's reflection has it."""
    files = [FileDescriptorProto.FromString(schema.index.stripped(n)) for n in schema.index.files]
    return Schema.load(FileDescriptorSet(file=files))


@pytest.mark.parametrize(
    "sources", [["package:googleapis-common-protos"], ["package:grpc_tools/_proto"]]
)
def test_installed_files_without_a_source(sources: list[str], tmp_path: Path) -> None:
    """Without source locations the order of a file is not known, yet descriptors are equal."""
    assert assert_same(without_source(Schema.load(*sources)), tmp_path) >= 14


PROTO2 = r"""
syntax = "proto2";
package t.two;
message Defaults {
  enum Choice { ZERO = 0; MINUS = -1; }
  required double a = 1 [default = 1.5];
  optional double b = 2 [default = inf];
  optional double c = 3 [default = -inf];
  optional float d = 4 [default = nan];
  optional float e = 5 [default = 1e-7];
  optional float f = 6 [default = -0.1];
  optional double g = 7 [default = 12345678901234567890];
  optional int32 h = 8 [default = -0x80000000];
  optional int64 i = 9 [default = -9223372036854775808];
  optional uint32 j = 10 [default = 4294967295];
  optional uint64 k = 11 [default = 18446744073709551615];
  optional sint32 l = 12 [default = -1];
  optional sint64 m = 13 [default = 0];
  optional fixed32 n = 14 [default = 017];
  optional fixed64 o = 15 [default = 1];
  optional sfixed32 p = 16 [default = -2];
  optional sfixed64 q = 17 [default = -3];
  optional bool r = 18 [default = true];
  optional bool s = 19 [default = false];
  optional string t = 20 [default = "a\"b'\\c\n\t\r\001\x7f \u00e4 ä 🙂 ?? \? " 'and "more"'];
  optional string u = 21 [default = ""];
  optional bytes v = 22 [default = "\000\377\x7f'\"\\\a\b\f\v\n1\0012ä"];
  optional Choice w = 23 [default = MINUS];
  optional int32 json = 24 [json_name = "a \"name\" ä"];
  optional int64 js = 25 [jstype = JS_STRING, deprecated = true, default = 5];
  repeated int32 packed = 26 [packed = true];
  optional bytes cord = 27 [ctype = CORD];
  optional Defaults lazy = 28 [lazy = true, unverified_lazy = false, debug_redact = true];
  optional int32 _x__y_ = 29;
  optional int32 last = 536870911;
}
message Groups {
  optional group One = 1 [deprecated = true] {
    option deprecated = true;
    repeated group Deeper = 1 { required int32 x = 1; }
    extensions 10 to 20;
    oneof o { int32 a = 2; group InOneof = 3 { optional One again = 1; } string b = 4; }
  }
  message Before {}
  map<string, Before> before = 2;
  message Between {}
  map<int32, Groups.One.Deeper> between = 3;
  enum Choice { A = 0; }
  map<bool, Choice> choices = 4;
  extend One { optional int32 inside = 10; repeated group InExtend = 11 { optional int32 y = 1; } }
  extend Ranges { optional string other = 5; }
  extend One { optional Groups back = 12; }
  message After {}
}
extend Groups.One { optional group AtTop = 15 { optional AtTop again = 1; } optional int32 z = 16; }
message Ranges {
  extensions 5, 7 to 9;
  extensions 100 to 199 [verification = UNVERIFIED];
  extensions 200 to 299 [
    declaration = { number: 200, full_name: ".t.two.declared", type: ".t.two.Ranges" },
    declaration = { number: 201, full_name: ".t.two.many", type: "int32", repeated: true },
    declaration = { number: 202, reserved: true },
    verification = DECLARATION
  ];
  extensions 1000 to max;
  reserved 1, 3 to 4, 20;
  reserved "foo", "bar";
  reserved 300 to 400;
  reserved "baz";
}
extend Ranges { optional Ranges declared = 200; repeated int32 many = 201; }
message Set { option message_set_wire_format = true; extensions 4 to max; }
message Set2 { option message_set_wire_format = true; extensions 4 to 536870911; reserved 1 to 3; }
message AllReserved { reserved 1 to max; }
enum Numbers {
  option allow_alias = true;
  FIRST = 1;
  ALSO_FIRST = 1;
  LAST = 99 [deprecated = true];
  LEAST = -2147483648;
  reserved 5, 7 to 9, -20 to -10;
  reserved "NAME", "OTHER";
  reserved 100 to max;
}
"""

PROTO3 = """
syntax = "proto3";
package t.three;
import public "two.proto";
import weak "empty.proto";
import "google/protobuf/timestamp.proto";
option java_package = "x";
option optimize_for = CODE_SIZE;
option cc_enable_arenas = false;
message M {
  optional int32 a = 1;
  int32 b = 2;
  optional M c = 3;
  repeated int32 d = 4 [packed = false];
  oneof choice { string e = 5; M f = 6; bytes g = 7; google.protobuf.Timestamp h = 8; }
  map<string, google.protobuf.Timestamp> i = 9;
  map<fixed64, N> j = 10;
  message N { message O { N n = 1; O o = 2; M m = 3; } map<int32, O> os = 1; }
  optional N.O k = 11;
  oneof other { int32 l = 12; }
  t.two.Defaults m = 13;
  reserved 20 to 30, 40;
  reserved "x", "y";
}
enum E { ZERO = 0; NEGATIVE = -5; reserved -4 to -1; }
message Empty {}
service Nothing {}
service S {
  rpc Unary(M) returns (M.N);
  rpc Empty(t.three.Empty) returns (t.three.Empty) {}
  rpc Up(stream M) returns (M);
  rpc Down(M) returns (stream M.N.O);
  rpc Both(stream M) returns (stream google.protobuf.Timestamp) {
    option deprecated = true;
    option idempotency_level = NO_SIDE_EFFECTS;
  }
  option deprecated = true;
}
"""

EDITION_2023 = """
edition = "2023";
package t.e2023;
option features.field_presence = IMPLICIT;
option features.enum_type = CLOSED;
message M {
  option features.json_format = LEGACY_BEST_EFFORT;
  int32 a = 1 [features.field_presence = EXPLICIT, default = 7];
  int32 b = 2 [features.field_presence = LEGACY_REQUIRED];
  M c = 3 [features.message_encoding = DELIMITED];
  N n = 4 [features = { message_encoding: DELIMITED }];
  message N {}
  repeated int32 d = 5 [features.repeated_field_encoding = EXPANDED];
  string e = 6 [features.utf8_validation = NONE];
  map<string, string> f = 7 [features.utf8_validation = NONE];
  oneof o { int32 g = 8; string h = 9; }
  extensions 100 to 200;
  reserved foo, bar;
  reserved 50;
}
enum E { option features.enum_type = OPEN; ZERO = 0; reserved OLD; }
enum F { ONE = 1; }
extend M { int32 x = 100; repeated M y = 101; F z = 102; }
"""

EDITION_2024 = """
edition = "2024";
package t.e2024;
import option "google/protobuf/cpp_features.proto";
import option "google/protobuf/java_features.proto";
option features.(pb.cpp).string_type = VIEW;
option features.default_symbol_visibility = LOCAL_ALL;
option features.enforce_naming_style = STYLE_LEGACY;
export message Shown {
  local message hidden {}
  export enum Kind { option features.(pb.java).nest_in_file_class = YES; KIND_UNSPECIFIED = 0; }
  string name = 1 [
    features.(pb.cpp).string_type = CORD, features.(pb.java).utf8_validation = VERIFY
  ];
  hidden secret = 2;
  Kind kind = 3;
}
local enum Inner { INNER_UNSPECIFIED = 0; }
message Plain { Inner inner = 1; }
"""

KEYWORDS = """
syntax = "proto3";
package t.message.option;
message message {
  .t.message.option.message message = 1;
  string option = 2;
  .t.message.option.t t = 3;
}
message t {
  int32 reserved = 1;
  oneof oneof { string repeated = 2; .t.message.option.t optional = 3; }
}
message map {
  map<string, .t.message.option.map> map = 1;
  repeated .t.message.option.map group = 2;
}
message string { .t.message.option.string string = 1; bytes bytes = 2; }
message stream {
  .t.message.option.stream.rpc r = 1;
  message rpc { enum enum { max = 0; to = 1; } .t.message.option.stream.rpc.enum x = 1; }
}
enum syntax { inf = 0; nan = 1; true = 2; rpc = 3; }
service service {
  rpc rpc(.t.message.option.stream) returns (stream .t.message.option.stream);
  rpc option(.t.message.option.map) returns (stream .t.message.option.stream.rpc);
  rpc map(.t.message.option.map) returns (.t.message.option.t);
}
"""

SHADOWS = """
syntax = "proto2";
package a.b;
import "google/protobuf/duration.proto";
message X { optional X x = 1; }
message a {
  optional .a.b.X c = 1;
  message X { optional .a.b.X x = 1; optional X y = 2; }
  message b { optional .a.b.X one = 1; optional .a.b.a.X two = 2; optional b three = 3; }
  message google { optional .google.protobuf.Duration d = 1; }
  optional X inner = 4;
  optional int32 Y = 5;
  optional .a.b.Y outer = 6;
  map<string, .a.b.Y> value = 7;
  extensions 10;
}
message Y {}
extend a { optional a ext = 10; }
service a_service { rpc X(.a.b.X) returns (.a.b.a); rpc Y(.a.b.Y) returns (.a.b.a.X); }
"""


def test_every_syntax(tree: Tree, tmp_path: Path) -> None:
    """What each syntax and edition has comes back equal."""
    files = {
        "two.proto": PROTO2,
        "three.proto": PROTO3,
        "e2023.proto": EDITION_2023,
        "e2024.proto": EDITION_2024,
        "keywords.proto": KEYWORDS,
        "shadows.proto": SHADOWS,
        "deep.proto": "".join(f"message M{n} {{ " for n in range(31)) + "}" * 31,
        "empty.proto": "",
        "package.proto": 'syntax = "proto3"; package only.this;',
        "no/package.proto": 'syntax = "proto3"; message M { N n = 1; message N { M m = 1; } }',
    }
    tree(files)
    schema = Schema.load(*files, include=["."], cache=False)
    assert assert_same(schema, tmp_path / "a") > len(files)
    assert assert_same(without_source(schema), tmp_path / "b") > len(files)


# ---- options

OPTIONS = r"""
syntax = "proto2";
package o;
import "google/protobuf/descriptor.proto";
import "google/protobuf/any.proto";
enum Level { LOW = 0; HIGH = 5; ALIAS_OF = -1; }
message Rule {
  optional string path = 1;
  repeated int32 codes = 2;
  repeated Rule more = 3;
  map<string, int32> counts = 4;
  map<int64, Rule> rules = 5;
  optional Level level = 6;
  optional bytes data = 7;
  optional float f = 8;
  optional double d = 9;
  optional bool b = 10;
  optional group Place = 11 {
    optional int32 x = 1;
    repeated group Deep = 2 { optional uint64 y = 1; }
  }
  optional google.protobuf.Any any = 12;
  oneof one { string first = 13; Rule second = 14; }
  optional string option = 15;
  map<bool, bytes> flags = 16;
  repeated Level levels = 17 [packed = true];
  extensions 100 to 200;
}
message Set { option message_set_wire_format = true; extensions 4 to max; }
message Item { extend Set { optional Item item = 1000; } optional int32 x = 1; }
message Scope {
  extend google.protobuf.FileOptions { optional string inside = 50100; }
  extend Rule { optional Rule nested = 101; }
}
extend Rule { optional string extra = 100; repeated group Grouped = 102 { optional int32 z = 1; } }
extend google.protobuf.FileOptions {
  optional double a_double = 50001;
  optional float a_float = 50002;
  optional int64 an_int64 = 50003;
  optional uint64 a_uint64 = 50004;
  optional int32 an_int32 = 50005;
  optional fixed64 a_fixed64 = 50006;
  optional fixed32 a_fixed32 = 50007;
  optional bool a_bool = 50008;
  optional string a_string = 50009;
  optional group AGroup = 50010 { optional int32 x = 1; }
  optional Rule a_rule = 50011;
  optional bytes some_bytes = 50012;
  optional uint32 a_uint32 = 50013;
  optional Level a_level = 50014;
  optional sfixed32 an_sfixed32 = 50015;
  optional sfixed64 an_sfixed64 = 50016;
  optional sint32 an_sint32 = 50017;
  optional sint64 an_sint64 = 50018;
  repeated double doubles = 50019;
  repeated float floats = 50020;
  repeated string strings = 50021;
  repeated Rule rules = 50022;
  repeated Level levels = 50023 [packed = true];
  repeated group Many = 50024 { optional int32 x = 1; }
  optional Set set = 50025;
  optional google.protobuf.Any any = 50026;
  optional string source_only = 50027 [retention = RETENTION_SOURCE];
  repeated int32 packed = 50028 [packed = true];
}
extend google.protobuf.MessageOptions { optional Rule m = 50001; optional string ms = 50002; }
extend google.protobuf.FieldOptions { optional Rule f = 50001; repeated string fs = 50002; }
extend google.protobuf.OneofOptions { optional Rule o = 50001; }
extend google.protobuf.EnumOptions { optional Rule e = 50001; }
extend google.protobuf.EnumValueOptions { optional Rule v = 50001; }
extend google.protobuf.ServiceOptions { optional Rule s = 50001; }
extend google.protobuf.MethodOptions { optional Rule r = 50001; }
extend google.protobuf.ExtensionRangeOptions { optional Rule x = 50001; }
"""

USES = r"""
syntax = "proto2";
package p;
import "o.proto";
// in front of one
option (o.a_double) = 1.5;
option (o.a_float) = 0.1;
option (o.an_int64) = -9223372036854775808;
option (o.a_uint64) = 18446744073709551615;
option (o.an_int32) = -1;
option (o.a_fixed64) = 0xffff;
option (o.a_fixed32) = 1;
option (o.a_bool) = true;
option (o.a_string) = "a \"quoted\" \\ \n\001" "ä 🙂";  // behind one
option (o.agroup) = { x: 1 };
option (o.a_rule) = {
  path: "/a" codes: [1, 2, -3] more { path: "b" more { } } more: < codes: 4 >
  counts { key: "z" value: 1 } counts { key: "a\n" value: 2 } rules { key: -5 value { path: "c" } }
  level: HIGH data: "\000\377\"" f: -inf d: nan b: false
  Place { x: 1 Deep { y: 18446744073709551615 } Deep { } }
  any { type_url: "type.googleapis.com/o.Rule" value: "\n\001a" }
  second { first: "s" } option: "keyword" flags { key: true value: "\001" } flags { key: false }
  levels: [HIGH, LOW]
  [o.extra]: "extended" [o.Scope.nested] { path: "/n" [o.extra]: "deep" }
  [o.grouped] { z: 1 } [o.grouped] { z: 2 }
};
option (o.some_bytes) = "\000\001\377'\"";
option (o.a_uint32) = 4294967295;
option (o.a_level) = ALIAS_OF;
option (o.an_sfixed32) = -2147483648;
option (o.an_sfixed64) = -1;
option (o.an_sint32) = -5;
option (o.an_sint64) = 0;
option (o.doubles) = inf;
option (o.doubles) = -inf;
option (o.doubles) = nan;
option (o.doubles) = 1e300;
option (o.doubles) = -0.0;
option (o.doubles) = 123456789;
option (o.floats) = 3.4028235e38;
option (o.floats) = 1e-45;
option (o.floats) = 16777217;
option (o.floats) = -inf;
option (o.strings) = "";
option (o.strings) = "two";
option (o.rules) = { };
option (o.rules) = { path: "x", any { [type.googleapis.com/p.M] { a: 1 } } };
option (o.levels) = HIGH;
option (o.levels) = LOW;
option (o.many) = { x: 1 };
option (o.many) = { };
option (o.set) = { [o.Item.item] { x: 5 } };
option (o.any) = { [type.googleapis.com/o.Rule] { path: "in any" } };
option (o.source_only) = "kept";
option (o.packed) = 1;
option (o.packed) = 2;
option (o.Scope.inside) = "inside";
message M {
  option (o.m).path = "/m";
  option (o.m).more = { codes: 1 };
  option (o.m).(o.extra) = "x";
  option (.o.ms) = "ms";
  optional int32 a = 1 [(o.f) = { path: "/f" }, (o.fs) = "1", (o.fs) = "2", deprecated = true];
  optional string b = 2 [
    default = "d", json_name = "j",
    (o.f) = {
      path: "a long one that does not fit in a line" more { path: "and another one" }
      data: "and a third one" more { path: "and a fourth" more { path: "and within it a fifth" }
      more { path: "and a sixth one that makes it too much" } }
    }
  ];
  map<string, M> c = 3 [(o.f).path = "map"];
  optional group G = 4 [(o.f).path = "group"] { option (o.m).path = "of the group"; }
  oneof one { option (o.o).path = "oneof"; int32 d = 5 [(o.f).codes = 1]; }
  extensions 10, 20 to 30 [(o.x).path = "range", verification = UNVERIFIED];
  extensions 40 to 50 [(o.x).path = "other"];
}
extend M { optional int32 ext = 10 [(o.f).path = "ext"]; }
enum E {
  option (o.e).path = "enum";
  A = 0 [(o.v).path = "value", deprecated = true, (o.v).more = { counts { key: "k" value: 1 } }];
}
message Empty { option (o.m) = { }; }
service S {
  option (o.s) = { path: "service" };
  rpc Get(M) returns (M) { option (o.r) = { path: "method" }; option deprecated = true; }
  rpc Put(M) returns (M) { option (o.r) = { }; }
}
"""

HIDDEN = """
edition = "2024";
package p.o;
import option "o.proto";
option (.o.a_string) = "the package is called as the one of the option";
message M { int32 a = 1 [(.o.f).path = "x", (.o.f).codes = 1]; }
"""


def test_custom_options(tree: Tree, tmp_path: Path) -> None:
    """Options of every type on every element have equal values, and their comments."""
    tree({"o.proto": OPTIONS, "p.proto": USES, "hidden.proto": HIDDEN})
    schema = Schema.load("o.proto", "p.proto", "hidden.proto", cache=False)
    assert assert_same(schema, tmp_path) == 5


def test_options_that_are_not_known(tree: Tree, tmp_path: Path) -> None:
    """In the place of an option without a declaration stands a comment, and the rest compiles."""
    tree(
        {
            "o.proto": OPTIONS,
            "p.proto": """
syntax = "proto3";
package p;
import "o.proto";
option (o.a_string) = "x";
// A message.
message M {
  option (o.ms) = "x";
  // A field.
  int32 a = 1 [(o.fs) = "1"];
  int32 b = 2 [(o.fs) = "1", deprecated = true];
  oneof one { option (o.o) = { path: "x" }; int32 c = 3; }
  map<string, M> d = 4 [
    deprecated = true, (o.f) = {},
    json_name = "a long name of more than a line is longer than a line"
  ];
}
enum E { option (o.e) = {}; A = 0 [(o.v) = {}]; }
service S {
  option (o.s) = {};
  option deprecated = true;
  rpc Get(M) returns (M) { option (o.r) = {}; }
}
""",
        }
    )
    full = Schema.load("p.proto", cache=False)
    file = FileDescriptorProto.FromString(full.index.raw("p.proto"))
    file.ClearField("dependency")
    schema = Schema.load(FileDescriptorSet(file=[file]))
    assert (
        file_text(schema, "p.proto")
        == """\
syntax = "proto3";

package p;

// option 50009 is not known to the schema

// A message.
message M {

  // option 50002 is not known to the schema

  // A field.
  int32 a = 1
      // option 50002 is not known to the schema
      ;

  int32 b = 2
      // option 50002 is not known to the schema
      [deprecated = true];

  oneof one {

    // option 50001 is not known to the schema

    int32 c = 3;
  }

  map<string, M> d = 4
      // option 50001 is not known to the schema
      [
        json_name = "a long name of more than a line is longer than a line",
        deprecated = true
      ];
}

enum E {

  // option 50001 is not known to the schema

  A = 0
      // option 50001 is not known to the schema
      ;
}

service S {

  // option 50001 is not known to the schema

  option deprecated = true;

  rpc Get(M) returns (M) {

    // option 50001 is not known to the schema
  }
}
"""
    )
    compiled = again(schema, tmp_path)
    assert compiled.comments("p.proto") == schema.comments("p.proto")


def edited(schema: Schema, name: str, edit: Callable[[FileDescriptorProto], object]) -> Schema:
    """The same schema with one of its files edited."""
    files = [FileDescriptorProto.FromString(schema.index.raw(n)) for n in schema.index.files]
    edit(next(file for file in files if file.name == name))
    return Schema.load(FileDescriptorSet(file=files))


def test_options_of_another_release(tree: Tree, tmp_path: Path) -> None:
    """A standard option that the schema's own descriptor.proto does not have is not set."""
    text = 'syntax = "proto3"; import "google/protobuf/descriptor.proto";'
    tree({"p.proto": f"{text} message M {{ option deprecated = true; }}"})

    def without_deprecated(file: FileDescriptorProto) -> None:
        options = next(each for each in file.message_type if each.name == "MessageOptions")
        del options.field[[field.name for field in options.field].index("deprecated")]

    name = "google/protobuf/descriptor.proto"
    schema = edited(Schema.load("p.proto", cache=False), name, without_deprecated)
    assert (
        symbol_text(schema, "M")
        == """\
message M {

  // option 3 is not known to the schema
}
"""
    )
    again(schema, tmp_path)


def test_options_of_files_that_are_not_imported(tree: Tree, tmp_path: Path) -> None:
    """An option is not set where its declaration is known but not imported."""
    tree({"o.proto": OPTIONS, "c.proto": """
syntax = "proto2";
import "google/protobuf/descriptor.proto";
import "o.proto";
message Box { optional o.Rule rule = 1; }
extend google.protobuf.FileOptions { optional Box box = 60000; }
""", "p.proto": """
syntax = "proto3";
import "o.proto";
import "c.proto";
option (o.a_string) = "x";
option (box) = { rule { path: "x" [o.extra]: "y" } };
"""})  # fmt: skip
    schema = edited(
        Schema.load("p.proto"), "p.proto", lambda file: file.dependency.remove("o.proto")
    )
    assert (
        file_text(schema, "p.proto")
        == """\
syntax = "proto3";

import "c.proto";

// option (o.a_string) cannot be set: the file that declares o.a_string is not imported
// option (box) cannot be set: the file that declares o.extra is not imported
"""
    )
    again(schema, tmp_path)


def test_import_option_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    """An ``import option`` may be missing from a schema; its place is kept by a comment."""
    file = FileDescriptorProto(name="a.proto", syntax="editions", edition=Edition.EDITION_2024)
    file.option_dependency.append("b\n.proto")
    schema = Schema.load(FileDescriptorSet(file=[file]))
    assert (
        file_text(schema, "a.proto")
        == """\
edition = "2024";

// import option "b\\n.proto"; is not in the schema
"""
    )
    again(schema, tmp_path)


def test_options_that_are_hidden(tree: Tree, tmp_path: Path) -> None:
    """An extension within a value has no dot in front, so a hidden one cannot be set."""
    tree({"o.proto": """
syntax = "proto2";
package o;
import "google/protobuf/descriptor.proto";
message Box { extensions 1 to 10; optional int32 x = 11; }
extend google.protobuf.FileOptions { optional Box box = 50000; }
""", "e.proto": """
syntax = "proto2";
package e;
import "o.proto";
extend o.Box { optional string extra = 1; }
""", "p.proto": """
syntax = "proto2";
package o.e;
import "o.proto";
import "e.proto";
option (.o.box).(.e.extra) = "x";
option (.o.box).x = 1;
"""})  # fmt: skip
    schema = Schema.load("p.proto", cache=False)
    assert (
        file_text(schema, "p.proto")
        == """\
syntax = "proto2";

package o.e;

import "o.proto";
import "e.proto";

// option (o.box) cannot be set: the name e.extra means something else in o.Box
"""
    )
    again(schema, tmp_path)


def test_values_without_a_text(tree: Tree, tmp_path: Path) -> None:
    """A number that its enum has no name for is written where it can be; unknown fields nowhere."""
    tree({"o.proto": """
syntax = "proto3";
import "google/protobuf/descriptor.proto";
enum Open { ZERO = 0; ONE = 1; }
message Box { Open open = 1; repeated Open many = 2; map<string, Box> boxes = 3; }
extend google.protobuf.FileOptions {
  Open open = 50000;
  repeated Open opens = 50001;
  Box box = 50002;
}
extend google.protobuf.FieldOptions { int32 number = 50000; }
""", "p.proto": """
syntax = "proto3";
import "o.proto";
option (open) = ONE;
option (opens) = ONE;
option (opens) = ZERO;
option (box) = { open: 7 many: [1, 8] boxes { key: "a" value { open: 9 } } };
"""})  # fmt: skip
    schema = Schema.load("p.proto", cache=False)
    assert (
        'option (box) = { open: 7, many: ONE, many: 8, boxes { key: "a", value { open: 9 } } };'
        in (file_text(schema, "p.proto"))
    )
    assert assert_same(schema, tmp_path / "a") == 3
    options = schema.message("google.protobuf.FileOptions")()
    handle = schema.extension
    options.Extensions[handle("open")] = 7
    options.Extensions[handle("opens")].extend([1, 8, 1])
    box = options.Extensions[handle("box")]
    box.open = 1
    box.boxes["a"].MergeFromString(b"\xf8\x07\x01")
    options.features.MergeFromString(b"\xc2\x3e\x01x")
    options.uninterpreted_option.add(identifier_value="x")
    data = options.SerializePartialToString()
    made = edited(
        without_source(schema), "p.proto", lambda file: file.options.ParseFromString(data)
    )
    assert (
        file_text(made, "p.proto")
        == """\
syntax = "proto3";

import "o.proto";

// option features.1000 is not known to the schema
// option box.boxes.127 is not known to the schema
// an option was not looked up by what made this file
// option (open) cannot be set: its enum has no name for 7
// option (opens) cannot be set: its enum has no name for 8

option (opens) = ONE;
option (opens) = ONE;
option (box) = { open: ONE, boxes { key: "a", value {} } };
"""
    )


# ---- comments

COMMENTED = """
// A licence,
// in two lines.

/* Another one,
 * of another sort. */

// Of the syntax.
syntax = "proto2"; // behind the syntax
// Of the package.
package p;  // behind the package

// Apart.

// Of an import.
import "google/protobuf/any.proto";  /* behind the import */
// Of an option.
option java_package = "x";
// behind the option
// in two lines

//No space, and "quotes", /* signs */ and \\ a backslash\\
//
//   indented
// */
message M {  // behind the message
  // Of a field.
  optional int32 a = 1;  // behind the field
  // behind a field that follows
  // and another line

  /**
   * JavaDoc, ä 🙂 \u2028 still.
   *
   *   indented
   **/
  optional int32 b = 2 [deprecated = true];  /* one */

  // Apart.

  // Apart, too.

  optional int32 c = 3;
  // Of a group.
  optional group G = 4 { // behind the group
    // In the group.
    optional int32 d = 1;

    // lost: nothing follows
  }
  // Of a map.
  map<string, M> e = 5;  // behind the map
  // Of a oneof.
  oneof o {  // behind the oneof
    // In the oneof.
    string f = 6;  // behind its field
  }
  // Of numbers.
  reserved 10;  // ten
  // Of more numbers.
  reserved 11, 12;  // more
  // Of names.
  reserved "x";  // a name
  // Of a range.
  extensions 100 to 199;  // a range
  // Of another range.
  extensions 200;
  // Of an extend.
  extend M {  // behind it
    // Of an extension.
    optional int32 ga = 100;  // behind the extension
  }

  // Apart within.

  extend M { optional int32 gb = 101; }
  // Of a message within.
  message N {
    // behind it, in
    // two lines

    // Apart in it.

    option deprecated = true;
  }
}
// Of an enum.
enum E {
  // Of an option of it.
  option deprecated = true;
  // Of a value.
  ONE = 1;  // behind the value

  // Of the other.
  TWO = 2;
  // Of numbers.
  reserved 5;
  // Of names.
  reserved "X";  // a name
}
// Of a service.
service S {
  // Of an option of it.
  option deprecated = true;
  // Of a method.
  rpc Get(M) returns (M);  // behind the method

  // Of a method with a body.
  rpc Put(M) returns (M) {  // behind its brace
    // Of the option.
    option deprecated = true;
  }
}
/* odd: ; } message Evil { */ message Odd { /* nobody's */ }

//
message Bare {}
// the end
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_comments(line_end: str, tree: Tree, tmp_path: Path) -> None:
    """Comments come back to where they stood, whatever they look like."""
    folder = tree({})
    (folder / "p.proto").write_text(COMMENTED, encoding="utf-8", newline=line_end)
    schema = Schema.load("p.proto", cache=False)
    assert len(comments(schema, "p.proto")) == 36
    assert assert_same(schema, tmp_path) == 2


def test_what_a_file_looks_like() -> None:
    """Elements stand as in the source, with an empty line around what has a body or a comment."""
    _, text = one_file("""\
syntax="proto3";package p;
enum E{A=0;} // Of M.
message M{string a=1;E e=2;M m=3;// Of b.

// Of c.
.p.M.N c=4;message N{} map<string,.p.M>d=5;oneof o{string x=6;} reserved 7 , 8; reserved "y";}
service S{rpc A(M)returns(M.N);rpc B(stream M)returns(stream M){option deprecated=true;}}
extend google.protobuf.MethodOptions{string name=50000;}
import "google/protobuf/descriptor.proto";
""")
    assert (
        text
        == """\
syntax = "proto3";

package p;

import "google/protobuf/descriptor.proto";

enum E {
  A = 0;
}

message M {
  string a = 1;
  E e = 2;
  M m = 3;  // Of b.

  // Of c.
  N c = 4;

  message N {}

  map<string, M> d = 5;

  oneof o {
    string x = 6;
  }

  reserved 7, 8;
  reserved "y";
}

service S {
  rpc A(M) returns (M.N);

  rpc B(stream M) returns (stream M) {
    option deprecated = true;
  }
}

extend google.protobuf.MethodOptions {
  string name = 50000;
}
"""
    )


@pytest.mark.parametrize("mark", ["\0", "\r", "\x0b", "\x0c", "\x1b[2K", "\x85", "\u2028"])
def test_comments_cannot_end_early(mark: str, tmp_path: Path) -> None:
    """Nothing in a comment is a line end, or the end, to anything that reads the text."""
    file = FileDescriptorProto(name="a.proto")
    file.message_type.add(name="M")
    text = f" a{mark}message Evil {{}}\n"
    file.source_code_info.location.add(
        path=[4, 0], leading_comments=text, trailing_comments=text, leading_detached_comments=[text]
    )
    schema = Schema.load(FileDescriptorSet(file=[file]))
    lines = [line.strip() for line in file_text(schema, "a.proto").splitlines()]
    declared = [line for line in lines if line and not line.startswith("//")]
    assert declared in (
        ['syntax = "proto2";', "message M {", "}"],
        ['syntax = "proto2";', "message M {  // a\ufffdmessage Evil {}", "}"],
        ['syntax = "proto2";', "message M {  // a\ufffd[2Kmessage Evil {}", "}"],
    )
    compiled = again(schema, tmp_path)
    assert descriptor(compiled, "a.proto") == descriptor(schema, "a.proto")


def test_locations_that_are_wrong(tmp_path: Path) -> None:
    """Positions that contradict the order of a descriptor, or lead nowhere, do no harm."""
    file = FileDescriptorProto(name="a.proto")
    for name in ("A", "B", "C"):
        file.message_type.add(name=name)
    for n, span in enumerate(([9, 0, 1], [5], [])):
        file.source_code_info.location.add(path=[4, n], span=span)
    file.source_code_info.location.add(path=[4, 7, -1], span=[1, 2, 3, 4])
    data = file.SerializeToString()
    file.source_code_info.location.add(path=[4, 0], leading_comments="12345")
    file.source_code_info.location[0].leading_comments = "12345"
    raw = file.SerializeToString().replace(b"12345", b"\xff2345")
    schema = Schema.load(FileDescriptorSet.FromString(b"\n" + bytes([len(raw)]) + raw))
    assert [line for line in file_text(schema, "a.proto").splitlines() if line] == [
        'syntax = "proto2";', "//�2345", "message A {}", "message B {}", "message C {}",
    ]  # fmt: skip
    assert data


# ---- one element

ELEMENTS = """
syntax = "proto3";
package p;
import "google/protobuf/descriptor.proto";
// A message.
message M {
  // A field.
  optional int32 a = 1 [deprecated = true];  // behind it
  // A map.
  map<string, N> b = 2;
  // A choice.
  oneof c { N d = 3; string e = 4; }
  // Within.
  message N { M m = 1; }
  // An enum within.
  enum F { ZERO = 0; }
}
enum E { ONE = 0; }
extend google.protobuf.MethodOptions {
  // An option.
  M.N note = 50000;
  M.N other = 50001;
}
// A service.
service S {
  // A method.
  rpc Get(stream M) returns (M.N) { option (note) = { m { e: "x" } }; }
  rpc Put(M) returns (M);
}
"""


@pytest.mark.parametrize(
    ("symbol", "text"),
    [
        ("p.M.a", "// A field.\noptional int32 a = 1 [deprecated = true];  // behind it\n"),
        ("p.M._a", "// A field.\noptional int32 a = 1 [deprecated = true];  // behind it\n"),
        ("p.M.b", "// A map.\nmap<string, p.M.N> b = 2;\n"),
        ("p.M.BEntry", "// A map.\nmap<string, p.M.N> b = 2;\n"),
        ("p.M.BEntry.value", "p.M.N value = 2;\n"),
        ("p.M.c", "// A choice.\noneof c {\n  p.M.N d = 3;\n  string e = 4;\n}\n"),
        ("p.M.d", "p.M.N d = 3;\n"),
        ("p.M.N", "// Within.\nmessage N {\n  p.M m = 1;\n}\n"),
        ("p.M.N.m", "p.M m = 1;\n"),
        ("p.M.F", "// An enum within.\nenum F {\n  ZERO = 0;\n}\n"),
        ("p.M.ZERO", "ZERO = 0;\n"),
        ("p.M.F.ZERO", "ZERO = 0;\n"),
        ("p.E.ONE", "ONE = 0;\n"),
        ("p.ONE", "ONE = 0;\n"),
        (
            "p.note",
            "extend google.protobuf.MethodOptions {\n  // An option.\n  p.M.N note = 50000;\n}\n",
        ),
        (
            "p.S.Get",
            "// A method.\nrpc Get(stream p.M) returns (p.M.N) {\n"
            '  option (p.note) = { m { e: "x" } };\n}\n',
        ),
        (
            "p.S",
            "// A service.\nservice S {\n  // A method.\n"
            "  rpc Get(stream p.M) returns (p.M.N) {\n"
            '    option (p.note) = { m { e: "x" } };\n  }\n\n'
            "  rpc Put(p.M) returns (p.M);\n}\n",
        ),
    ],
)
def test_one_element(symbol: str, text: str) -> None:
    """An element comes with its comments, and with full names for what it refers to."""
    assert symbol_text(Schema.load(ELEMENTS), symbol) == text


def test_every_element_has_a_text(tree: Tree) -> None:
    """Whatever is a symbol of a schema can be asked for."""
    tree({"two.proto": PROTO2, "o.proto": OPTIONS, "p.proto": USES, "shadows.proto": SHADOWS})
    schema = Schema.load("two.proto", "o.proto", "p.proto", "shadows.proto")
    found = 0
    for file in schema.index.files:
        for symbol in symbols_of(parse_file(schema.index.stripped(file))):
            assert symbol_text(schema, symbol).endswith("\n")
            found += 1
    assert found > 600
    assert symbol_text(schema, "t.two.Groups.One") == symbol_text(schema, "t.two.Groups.one")
    assert symbol_text(schema, "t.two.AtTop") == symbol_text(schema, "t.two.attop")
    assert symbol_text(schema, "t.two.AtTop").startswith(
        "extend t.two.Groups.One {\n  optional group"
    )


def test_options_of_one_element_need_no_import(tree: Tree) -> None:
    """What an option is set to can be read whether its file imports the declaration or not."""
    tree({"o.proto": OPTIONS, "p.proto": USES})
    schema = edited(
        Schema.load("p.proto"), "p.proto", lambda file: file.dependency.remove("o.proto")
    )
    assert symbol_text(schema, "p.Empty") == "message Empty {\n  option (o.m) = {};\n}\n"


@pytest.mark.parametrize(
    ("symbol", "near"),
    [("p.M.aa", ("p.M.a", "p.M.a")), ("p.S.get", ("p.S.Get",)), ("P", ()), ("p.N", ())],
)
def test_no_such_element(symbol: str, near: tuple[str, ...]) -> None:
    """What is not there is an error that names what is most like it."""
    with pytest.raises(SymbolError) as caught:
        symbol_text(Schema.load(ELEMENTS), symbol)
    assert caught.value.name == symbol
    assert set(near) <= set(caught.value.nearest)


def test_no_such_file() -> None:
    """A file that is not there is a KeyError."""
    with pytest.raises(KeyError, match=r"none\.proto"):
        file_text(Schema.load(ELEMENTS), "none.proto")


# ---- descriptors that no compiler made


def of(edit: Callable[[FileDescriptorProto], object], **fields: Any) -> Schema:
    """A schema of one file with a message M of one field, edited."""
    file = FileDescriptorProto(name="a.proto", package="p", **fields)
    message = file.message_type.add(name="M")
    message.field.add(name="f", number=1, label=1, type=5)
    edit(file)
    return Schema.load(FileDescriptorSet(file=[file]))


NOT_A_NAME = "M {} message\nEvil"


@pytest.mark.parametrize(
    "edit",
    [
        lambda file: setattr(file, "package", NOT_A_NAME),
        lambda file: setattr(file.message_type[0], "name", NOT_A_NAME),
        lambda file: setattr(file.message_type[0], "name", "é"),
        lambda file: setattr(file.message_type[0], "name", ""),
        lambda file: setattr(file.message_type[0].field[0], "name", NOT_A_NAME),
        lambda file: file.message_type[0].enum_type.add(name=NOT_A_NAME),
        lambda file: file.message_type[0].enum_type.add(name="E").value.add(name=NOT_A_NAME),
        lambda file: file.message_type[0].enum_type.add(name="E").value.add(name="option"),
        lambda file: file.message_type[0].enum_type.add(name="E").value.add(name="reserved"),
        lambda file: file.message_type[0].nested_type.add(name="1"),
        lambda file: file.service.add(name=NOT_A_NAME),
        lambda file: file.service.add(name="S").method.add(
            name="*/ evil", input_type=".p.M", output_type=".p.M"
        ),
        lambda file: file.service.add(name="S").method.add(
            name="Get", input_type=".p.M) evil", output_type=".p.M"
        ),
        lambda file: file.service.add(name="S").method.add(
            name="Get", input_type=".p.M", output_type=""
        ),
        lambda file: file.extension.add(name="e", number=5, type=5, extendee=".p.M {} evil"),
        lambda file: file.extension.add(name="e;", number=5, label=1, type=5, extendee=".p.M"),
        lambda file: file.message_type[0].field.add(
            name="g", number=2, label=1, type_name=".p.M evil", type=11
        ),
        lambda file: file.message_type[0].field.add(name="g", number=2, label=1),
        lambda file: file.message_type[0].oneof_decl.add(name="o"),
        lambda file: setattr(file.message_type[0].field[0], "oneof_index", 0),
    ],
)
def test_what_is_no_name_is_refused(edit: Callable[[FileDescriptorProto], object]) -> None:
    """A name cannot end its statement, nor can a thing without a name be written."""
    with pytest.raises(DescriptorError) as caught:
        file_text(of(edit), "a.proto")
    assert caught.value.source == "a.proto"
    assert "\n" not in str(caught.value)


def group_of(name: str) -> Callable[[FileDescriptorProto], object]:
    """Adds a field that is a group of the type ``name``."""

    def edit(file: FileDescriptorProto) -> None:
        message = file.message_type[0]
        message.nested_type.add(name=name.rpartition(".")[2])
        message.field.add(name="g", number=2, label=1, type=10, type_name=name)

    return edit


def with_default(kind: int, text: str) -> Callable[[FileDescriptorProto], None]:
    """Gives the field a type and a default."""

    def edit(file: FileDescriptorProto) -> None:
        field = file.message_type[0].field[0]
        field.type = kind  # type: ignore[assignment]
        field.default_value = text
        if kind in (11, 14):
            field.type_name = ".p.M"

    return edit


def with_map_entry(file: FileDescriptorProto) -> None:
    """A map's entry without its value, with a map."""
    entry = file.message_type[0].nested_type.add(name="GEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=9)
    file.message_type[0].field.add(name="g", number=2, label=3, type=11, type_name=".p.M.GEntry")


def with_map_entry_of_one(file: FileDescriptorProto) -> None:
    """A map's entry with a field that is not repeated."""
    with_map_entry(file)
    file.message_type[0].field[1].label = 1  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("edit", "fields", "problem"),
    [
        (lambda file: None, {"syntax": "proto4"}, "syntax 'proto4' or its edition is not known"),
        (lambda file: None, {"syntax": "editions"}, "or its edition is not known"),
        (
            lambda file: None,
            {"syntax": "editions", "edition": "EDITION_PROTO2"},
            "or its edition is not known",
        ),
        (group_of(".p.M"), {}, "the group 'g' has a type that its declaration cannot make"),
        (group_of(".p.M.N"), {}, "the group 'g' has a type that its declaration cannot make"),
        (group_of(".p.M.G"), {"syntax": "proto3"}, "'g' is required or a group, which proto3"),
        (
            lambda file: setattr(file.message_type[0].field[0], "label", 2),
            {"syntax": "proto3"},
            "'f' is required or a group, which proto3 does not have",
        ),
        (with_default(5, "1; evil"), {}, "the default of 'f': '1; evil' is no value of its type"),
        (with_default(5, "0x10"), {}, "'0x10' is no value of its type"),
        (with_default(1, "inf; "), {}, "'inf; ' is no value of its type"),
        (with_default(8, "TRUE"), {}, "'TRUE' is no value of its type"),
        (with_default(12, "\\"), {}, r"'\\\\' is not an escape"),
        (with_default(12, "\\q"), {}, "is not an escape"),
        (with_default(12, "\\777"), {}, "is not an escape"),
        (with_default(14, "A B"), {}, "'A B' is no value of its type"),
        (with_default(11, "A"), {}, "a message has no default"),
        (
            lambda file: setattr(file.message_type[0].options, "map_entry", True),
            {},
            "'M' is a map's entry, but no map has it",
        ),
        (with_map_entry, {}, r"'p\.M\.GEntry' is not the entry of a map"),
        (
            with_map_entry_of_one,
            {},
            "'GEntry' is a map's entry, but no map has it",
        ),
        (
            lambda file: file.message_type[0].enum_type.add(name="E"),
            {},
            "the enum 'E' has no value",
        ),
        (
            lambda file: file.message_type[0].field.add(
                name="g", number=2, label=1, type=11, type_name=".q.None"
            ),
            {},
            r"the type 'q\.None' is not in the schema",
        ),
        (
            lambda file: file.message_type[0].reserved_name.append("a b"),
            {"syntax": "editions", "edition": "EDITION_2023"},
            "'a b' cannot be a name",
        ),
    ],
)
def test_what_has_no_text_is_refused(
    edit: Callable[[FileDescriptorProto], object], fields: Mapping[str, Any], problem: str
) -> None:
    """What no .proto file can say is an error, never text that says something else."""
    with pytest.raises(DescriptorError, match=problem):
        file_text(of(edit, **fields), "a.proto")


def test_bytes_that_are_not_text() -> None:
    """A name that is not UTF-8, and source locations that are damaged, are errors of the file."""
    file = FileDescriptorProto(name="a.proto")
    file.message_type.add(name="M").field.add(name="12345", number=1, label=1, type=5)
    raw = file.SerializeToString().replace(b"12345", b"\xff2345")
    schema = Schema.load(b"\n" + bytes([len(raw)]) + raw)
    with pytest.raises(DescriptorError, match=r"a\.proto: a name in it is not UTF-8"):
        file_text(schema, "a.proto")
    raw = FileDescriptorProto(name="a.proto").SerializeToString() + b"\x4a\x01\xff"
    schema = Schema.load(b"\n" + bytes([len(raw)]) + raw)
    with pytest.raises(DescriptorError, match=r"a\.proto: damaged source locations: "):
        file_text(schema, "a.proto")


def test_options_that_are_damaged(tree: Tree) -> None:
    """An option whose bytes do not fit its type is an error that names the element."""
    tree({"o.proto": OPTIONS, "p.proto": USES})
    schema = edited(
        Schema.load("p.proto"),
        "p.proto",
        lambda file: file.message_type[0].options.MergeFromString(b"\x8a\xb5\x18\x01\xff"),
    )
    with pytest.raises(DescriptorError, match=r"^p\.M: damaged options: "):
        file_text(schema, "p.proto")


def test_names_as_other_compilers_write_them(tmp_path: Path) -> None:
    """Relative type names, absent types, labels, JSON names and syntax are understood."""
    file = FileDescriptorProto(name="a.proto", package="p.q", syntax="proto2")
    message = file.message_type.add(name="M")
    entry = message.nested_type.add(name="MapEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=9)
    entry.field.add(name="value", number=2, label=1, type_name="M.E")
    message.enum_type.add(name="E").value.add(name="A", number=0)
    message.field.add(name="map", number=1, label=3, type=11, type_name="MapEntry")
    message.field.add(name="m", number=2, type_name="q.M")
    message.field.add(name="e", number=3, label=1, type_name="E", default_value="A")
    message.field.add(name="E_", number=4, label=1, type_name="p.q.M.E", json_name="")
    service = file.service.add(name="S")
    service.method.add(name="Get", input_type="M", output_type="p.q.M")
    schema = Schema.load(FileDescriptorSet(file=[file]))
    assert (
        file_text(schema, "a.proto")
        == """\
syntax = "proto2";

package p.q;

service S {
  rpc Get(M) returns (M);
}

message M {
  map<string, E> map = 1;
  optional M m = 2;
  optional E e = 3 [default = A];
  optional E E_ = 4 [json_name = ""];

  enum E {
    A = 0;
  }
}
"""
    )
    again(schema, tmp_path)


def test_orders_that_no_source_has(tmp_path: Path) -> None:
    """What cannot be in the order of the descriptor is there all the same."""
    file = FileDescriptorProto(name="a.proto", syntax="proto3")
    message = file.message_type.add(name="M")
    message.oneof_decl.add(name="one")
    for number, index in enumerate((0, None, 0, None)):
        field = message.field.add(name=f"f{number}", number=number + 1, label=1, type=5)
        if index is not None:
            field.oneof_index = index
    schema = Schema.load(FileDescriptorSet(file=[file]))
    lines = file_text(schema, "a.proto").split("\n\n", 1)[1]
    assert (
        lines
        == """\
message M {
  int32 f1 = 2;

  oneof one {
    int32 f0 = 1;
    int32 f2 = 3;
  }

  int32 f3 = 4;
}
"""
    )
    again(schema, tmp_path)


def test_depth() -> None:
    """A descriptor as deep as protobuf reads does not exhaust the stack."""
    file = FileDescriptorProto(name="a.proto")
    holder: Any = file.message_type
    for number in range(90):
        holder = holder.add(name=f"M{number}").nested_type
    schema = Schema.load(FileDescriptorSet(file=[file]))
    text = file_text(schema, "a.proto")
    assert text.count("message M") == 90
    deepest = ".".join(f"M{number}" for number in range(90))
    assert symbol_text(schema, deepest) == "message M89 {}\n"


# ---- whatever there may be

TEXTS = st.text() | st.text('"\\\n\r\t\0 1?äé\u2028🙂')
FEW = settings(max_examples=25, deadline=None)


def defaults(kind: str, literals: list[str]) -> list[Any]:
    """What protoc makes of literals, each the default of a field."""
    fields = "".join(
        f"optional {kind} f{number} = {number + 1} [default = {literal}];"
        for number, literal in enumerate(literals)
    )
    schema = Schema.load(f'syntax = "proto2"; message M {{ {fields} }}', cache=False)
    return [field.default_value for field in schema.message("M").DESCRIPTOR.fields]


@FEW
@given(st.lists(TEXTS, min_size=1, max_size=50))
def test_any_string(values: list[str]) -> None:
    """A string literal has one line, only what can be seen, and means its string to protoc."""
    literals = [quote(value) for value in values]
    assert all(literal.isprintable() for literal in literals)
    assert defaults("string", literals) == values


@FEW
@given(st.lists(st.binary() | TEXTS.map(str.encode), min_size=1, max_size=50))
def test_any_bytes(values: list[bytes]) -> None:
    """A literal of bytes is ASCII, and means these bytes to protoc."""
    literals = [quote(value) for value in values]
    assert all(literal.isascii() and literal.isprintable() for literal in literals)
    assert defaults("bytes", literals) == values


@FEW
@given(st.lists(st.floats(allow_subnormal=False), min_size=1, max_size=50))
def test_any_number(values: list[float]) -> None:
    """A floating-point number comes back as the very same.

    Those next to zero are left out: upb does not build a file that has one for a default.
    """
    assert list(map(repr, defaults("double", [decimal(value) for value in values]))) == [
        repr(math.nan) if math.isnan(value) else repr(value) for value in values
    ]


@FEW
@given(st.lists(st.floats(width=32, allow_subnormal=False), min_size=1, max_size=50))
def test_any_number_of_single_precision(values: list[float]) -> None:
    """A number of single precision takes no more digits than that needs."""
    literals = [decimal(value, is_single=True) for value in values]
    assert all(len(literal) <= len("-1.23456789e-38") for literal in literals)
    assert list(map(repr, defaults("float", literals))) == [
        repr(math.nan) if math.isnan(value) else repr(value) for value in values
    ]


COMMENT = st.text(" a*/\\\n\t;{}\"'\u00e9", min_size=1, max_size=12)
COMMENTS = st.tuples(COMMENT | st.just(""), COMMENT | st.just(""), st.lists(COMMENT, max_size=2))
COMMENTED_PATHS = (
    [12],
    [2],
    [4, 0],
    [4, 0, 2, 0],
    [4, 0, 2, 1],
    [4, 0, 3, 0],
    [4, 1],
    [5, 0, 2, 0],
)


@settings(FEW, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(COMMENTS, min_size=len(COMMENTED_PATHS), max_size=len(COMMENTED_PATHS)))
def test_any_comments(tmp_path: Path, texts: list[tuple[str, str, list[str]]]) -> None:
    """Whatever comments say and whichever elements have them, each is found where it was."""
    file = FileDescriptorProto(name="a.proto", package="p", syntax="proto3")
    message = file.message_type.add(name="M")
    message.field.add(name="a", number=1, label=1, type=5)
    message.field.add(name="b", number=2, label=1, type=5)
    message.nested_type.add(name="N")
    file.message_type.add(name="O")
    file.enum_type.add(name="E").value.add(name="A", number=0)
    for path, (leading, trailing, detached) in zip(COMMENTED_PATHS, texts, strict=True):
        location = file.source_code_info.location.add(path=path, leading_detached_comments=detached)
        if leading:
            location.leading_comments = leading
        if trailing:
            location.trailing_comments = trailing
    assert assert_same(Schema.load(FileDescriptorSet(file=[file])), tmp_path) == 1


class Generator:
    """Makes files in which names are few, so that one often hides another."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.messages: list[str] = []
        self.without_type: list[FieldDescriptorProto] = []
        self.numbers = itertools.count(100)

    def file(self, name: str, package: str) -> FileDescriptorProto:
        """A file that refers to messages of its own, and of those that were made before."""
        file = FileDescriptorProto(name=name, package=package)
        for each in self.names():
            self.message(file.message_type.add(name=each), package, 0)
        service = file.service.add(name="service")
        for each in self.names() if self.messages else ():
            one, other = self.random.choices(self.messages, k=2)
            service.method.add(name=each, input_type=one, output_type=other)
        for field in self.without_type:
            field.type_name = self.random.choice(self.messages)
            if field.number >= 100:
                field.extendee = self.random.choice(self.messages)
        self.without_type.clear()
        return file

    def names(self) -> list[str]:
        """Some of the few."""
        return self.random.sample("abcdef", self.random.randint(0, 5))

    def message(self, message: DescriptorProto, scope: str, depth: int) -> None:
        """Fill a message with fields, maps, extensions and messages."""
        full_name = f"{scope}.{message.name}"
        self.messages.append(f".{full_name}")
        message.extension_range.add(start=100, end=1 << 20)
        for number, name in enumerate(self.names(), 1):
            match self.random.choice(["field", "map", "extension", "message"]):
                case "message" if depth < 3:
                    self.message(message.nested_type.add(name=name), full_name, depth + 1)
                case "map":
                    entry = message.nested_type.add(name=f"{name.upper()}Entry")
                    entry.options.map_entry = True
                    entry.field.add(name="key", number=1, label=1, type=9)
                    self.without_type.append(
                        entry.field.add(name="value", number=2, label=1, type=11)
                    )
                    field = message.field.add(name=name, number=number, label=3, type=11)
                    field.type_name = f".{full_name}.{entry.name}"
                case "extension":
                    number = next(self.numbers)
                    extension = message.extension.add(name=name, number=number, label=1, type=11)
                    self.without_type.append(extension)
                case _:
                    field = message.field.add(name=name, number=number, label=1, type=11)
                    self.without_type.append(field)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.randoms(use_true_random=False))
def test_any_names(tmp_path: Path, random: Random) -> None:
    """Whatever a name is hidden by, every reference leads to the same type again."""
    generator = Generator(random)
    files = [generator.file("a.proto", "a.b"), generator.file("b.proto", "b.a")]
    files[1].dependency.append("a.proto")
    assert assert_same(Schema.load(FileDescriptorSet(file=files)), tmp_path) == 2
