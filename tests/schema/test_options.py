"""dynserve.schema.options: the options of methods and services, with their values."""

from __future__ import annotations

import gc
import math

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from dynserve import DescriptorError, Schema
from dynserve.schema.declarations import Declarations

from .conftest import Tree

OPTIONS = """
edition = "2023";
package o;
import "google/protobuf/descriptor.proto";
enum Level { LOW = 0; HIGH = 5; }
message Rule { string path = 1; repeated int32 codes = 2; Rule more = 3; extensions 100; }
extend google.protobuf.MethodOptions {
  string name = 50001;
  repeated int32 codes = 50002;
  Rule rule = 50003;
  repeated Rule rules = 50004;
  string kept = 50005 [retention = RETENTION_SOURCE];
  Level level = 50006;
}
message Scope { extend google.protobuf.ServiceOptions { bool nested = 50001; } }
"""
EXTENSION = 'edition = "2023"; package e; import "o.proto"; extend o.Rule { string extra = 100; }'
SERVICE = """
edition = "2024";
package s;
import option "e.proto";
import option "o.proto";
message M {}
service S {
  option (o.Scope.nested) = true;
  option deprecated = true;
  rpc Full(M) returns (M) {
    option (o.name) = "a name";
    option (o.codes) = 1;
    option (o.codes) = 2;
    option (o.rule) = { path: "/a" codes: [3, 4] more { path: "/b" } [e.extra]: "more" };
    option (o.rules) = { path: "/c" };
    option (o.rules) = { path: "/d" };
    option (o.kept) = "in the source only";
    option (o.level) = HIGH;
    option deprecated = true;
    option idempotency_level = IDEMPOTENT;
  }
  rpc Bare(M) returns (M);
}
"""


@pytest.fixture
def schema(tree: Tree) -> Schema:
    """A service of edition 2024 with options of every sort."""
    tree({"o.proto": OPTIONS, "e.proto": EXTENSION, "s.proto": SERVICE})
    return Schema.load("s.proto")


def test_options_have_their_values(schema: Schema) -> None:
    """Options go by name, custom ones by full name: scalars, tuples, messages, enum numbers."""
    options = schema.method("s.S/Full").options
    rule = schema.message("o.Rule")
    extra = schema.extension("e.extra")
    expected = rule(path="/a", codes=[3, 4], more={"path": "/b"})
    expected.Extensions[extra] = "more"
    assert dict(options) == {
        "deprecated": True,
        "idempotency_level": 2,
        "o.name": "a name",
        "o.codes": (1, 2),
        "o.rule": expected,
        "o.rules": (rule(path="/c"), rule(path="/d")),
        "o.kept": "in the source only",
        "o.level": 5,
    }
    assert options["o.rule"].Extensions[extra] == "more"
    assert len(options) == 8
    assert "o.name" in options
    assert "o.none" not in options
    assert options.get("o.none", "nothing") == "nothing"
    assert repr(schema.service("s.S").options) == "{'deprecated': True, 'o.Scope.nested': True}"
    assert dict(schema.method("s.S/Bare").options) == {}


def test_an_option_that_is_not_set(schema: Schema) -> None:
    """Asking for an option that is not set is a KeyError with the nearest that are."""
    with pytest.raises(KeyError) as caught:
        schema.method("s.S/Full").options["o.nam"]
    assert caught.value.args == ("option 'o.nam' is not set on s.S.Full; did you mean 'o.name'?",)
    with pytest.raises(KeyError) as caught:
        schema.method("s.S/Bare").options["o.name"]
    assert caught.value.args == ("option 'o.name' is not set on s.S.Bare",)


def test_google_api_http() -> None:
    """The option that half of the world's services have is there without being asked for."""
    schema = Schema.load(
        """
syntax = "proto3";
import "google/api/annotations.proto";
message M { string name = 1; }
service S { rpc Get(M) returns (M) { option (google.api.http) = { get: "/v1/{name}" }; } }
"""
    )
    assert schema.method("S/Get").options["google.api.http"].get == "/v1/{name}"


def test_options_of_a_set_without_descriptor_proto() -> None:
    """Standard options are read where nothing imports the file that declares them."""
    schema = Schema.load(
        'syntax = "proto3"; message M {}'
        " service S { rpc Get(M) returns (M) { option deprecated = true; } }"
    )
    assert list(schema.index.files) == ["inline_1.proto"]
    assert dict(schema.method("S/Get").options) == {"deprecated": True}


def test_options_beside_a_message_named_google() -> None:
    """A message named as the package of descriptor.proto is not taken for that file."""
    schema = Schema.load(
        'syntax = "proto3"; message google {}'
        " service S { rpc Get(google) returns (google) { option deprecated = true; } }"
    )
    assert dict(schema.method("S/Get").options) == {"deprecated": True}


def test_options_of_every_sort(tree: Tree) -> None:
    """Groups, required fields, maps, message sets, floats and closed enums go as others do."""
    tree(
        {
            "o.proto": """
syntax = "proto2";
package o;
import "google/protobuf/descriptor.proto";
import "google/protobuf/any.proto";
message R {
  required int32 id = 1;
  map<string, int32> counts = 2;
  optional group Place = 3 { optional int32 x = 1; }
  optional google.protobuf.Any any = 4;
}
message Set { option message_set_wire_format = true; extensions 4 to max; }
message Item { extend Set { optional Item item = 1000; } optional int32 x = 1; }
enum Level { LOW = 1; HIGH = 2; }
extend google.protobuf.MethodOptions {
  optional R r = 50001;
  repeated Level levels = 50002;
  optional double ratio = 50003;
  optional bytes data = 50004;
  optional string unset = 50005 [default = "not shown"];
  optional Set set = 50006;
  optional group Place = 50007 { optional int32 y = 1; }
  repeated int32 packed = 50008 [packed = true];
}
""",
            "s.proto": """
syntax = "proto3";
package s;
import "o.proto";
message M {}
service S {
  rpc Get(M) returns (M) {
    option (o.r) = {
      id: 1 counts { key: "a" value: 2 } Place { x: 3 }
      any { [type.googleapis.com/o.R] { id: 4 } }
    };
    option (o.levels) = LOW;
    option (o.levels) = HIGH;
    option (o.ratio) = inf;
    option (o.data) = "\\xff";
    option (o.set) = { [o.Item.item] { x: 5 } };
    option (o.place) = { y: 6 };
    option (o.packed) = 7;
    option (o.packed) = 8;
  }
}
""",
        }
    )
    schema = Schema.load("s.proto")
    options = dict(schema.method("s.S/Get").options)
    messages = {name: schema.to_dict(options.pop(name)) for name in ("o.r", "o.set", "o.place")}
    assert messages == {
        "o.r": {
            "id": 1,
            "counts": {"a": 2},
            "place": {"x": 3},
            "any": {"@type": "type.googleapis.com/o.R", "id": 4},
        },
        "o.set": {"[o.Item.item]": {"x": 5}},
        "o.place": {"y": 6},
    }
    assert options == {
        "o.levels": (1, 2), "o.ratio": math.inf, "o.data": b"\xff", "o.packed": (7, 8),
    }  # fmt: skip


def test_options_whose_declaration_is_not_there(schema: Schema) -> None:
    """A set without the files of its custom options has the standard ones."""
    file = FileDescriptorProto.FromString(schema.index.raw("s.proto"))
    file.ClearField("option_dependency")
    bare = Schema.load(FileDescriptorSet(file=[file]))
    assert dict(bare.method("s.S/Full").options) == {"deprecated": True, "idempotency_level": 2}


def test_options_that_are_damaged(schema: Schema) -> None:
    """Bytes of an option that do not fit its type are an error when the options are asked for."""
    files = [FileDescriptorProto.FromString(schema.index.raw(n)) for n in schema.index.files]
    data = FileDescriptorSet(file=files).SerializeToString()
    damaged = Schema.load(data.replace(b"a name", b"\xff" * 6))
    with pytest.raises(DescriptorError) as caught:
        dict(damaged.method("s.S/Full").options)
    assert isinstance(caught.value.__cause__, DecodeError)
    assert str(caught.value) == f"s.S.Full: damaged options: {caught.value.__cause__}"


def test_options_of_two_schemas(tree: Tree) -> None:
    """One option number may mean two things in two schemas of one process."""
    tree({})
    text = (
        'syntax = "proto3"; package p; import "google/protobuf/descriptor.proto"; message M {}'
        " extend google.protobuf.MethodOptions { optional TYPE note = 50000; }"
        " service S { rpc Get(M) returns (M) { option (note) = VALUE; } }"
    )
    one = Schema.load(text.replace("TYPE", "string").replace("VALUE", '"a"'))
    two = Schema.load(text.replace("TYPE", "int32").replace("VALUE", "7"))
    assert dict(one.method("p.S/Get").options) == {"p.note": "a"}
    assert dict(two.method("p.S/Get").options) == {"p.note": 7}


def test_options_do_not_keep_what_else_a_file_declares() -> None:
    """Those of many files are kept; of the comments and the rest, the last few files'."""
    text = 'syntax = "proto3"; message M{0} {{}} service S{0} {{ option deprecated = true; }}'
    schema = Schema.load(*(text.format(number) for number in range(20)), cache=False)
    kept = [schema.service(f"S{number}") for number in range(20)]
    assert all(service.options["deprecated"] for service in kept)
    gc.collect()
    alive = [each for each in gc.get_objects() if isinstance(each, Declarations)]
    assert sum(each._schema is schema for each in alive) == 8
