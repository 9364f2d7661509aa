"""dynserve.schema.schema: services and message classes of any .proto."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import message_factory

from dynserve import Kind, MessageError, Schema, SymbolError
from dynserve.schema.comments import comments_of
from dynserve.schema.imports import builtin_roots

P2, P3 = 'syntax = "proto2";\n', 'syntax = "proto3";\n'

ECHO = Schema.load(
    """
syntax = "proto3";
package p;
import "google/protobuf/empty.proto";
message Request { string name = 1; }
message Reply { message Inner { int32 n = 1; } Inner inner = 1; Level level = 2; }
enum Level { LOW = 0; HIGH = 1; }
service Echo {
  rpc UnaryUnary(Request) returns (Reply);
  rpc UnaryStream(Request) returns (stream Reply);
  rpc StreamUnary(stream Request) returns (Reply);
  rpc StreamStream(stream google.protobuf.Empty) returns (stream Reply.Inner);
}
service Another {}
""",
    cache=False,
)


# ---- services and symbols


def test_services_and_methods() -> None:
    """A service has its methods in the order of the file, each with its kind and its messages."""
    service = ECHO.service("p.Echo")
    assert (service.name, service.file, service.doc) == ("p.Echo", "inline_1.proto", "")
    assert [
        (method.path, method.kind, method.request.DESCRIPTOR.full_name,
         method.response.DESCRIPTOR.full_name)
        for method in service.methods.values()
    ] == [
        ("/p.Echo/UnaryUnary", Kind.UNARY_UNARY, "p.Request", "p.Reply"),
        ("/p.Echo/UnaryStream", Kind.UNARY_STREAM, "p.Request", "p.Reply"),
        ("/p.Echo/StreamUnary", Kind.STREAM_UNARY, "p.Request", "p.Reply"),
        ("/p.Echo/StreamStream", Kind.STREAM_STREAM, "google.protobuf.Empty", "p.Reply.Inner"),
    ]  # fmt: skip
    assert ECHO.method_kinds("p.Echo") == {
        name: method.kind for name, method in service.methods.items()
    }
    assert ECHO.method("p.Echo/UnaryUnary") is ECHO.method("/p.Echo/UnaryUnary")
    assert ECHO.method("p.Echo/UnaryUnary").request is ECHO.message("p.Request")
    assert ECHO.services == ECHO.declared_services == ("p.Another", "p.Echo")
    assert repr(ECHO) == "<Schema inline_1.proto: 2 services>"


def test_declared_services_are_those_asked_for(tmp_path: Path) -> None:
    """Services of imported files are known, but they are not what was asked for."""
    (tmp_path / "lib.proto").write_text(P3 + "package lib; message M {} service S {}")
    (tmp_path / "a.proto").write_text(P3 + 'package a; import "lib.proto"; service S {}')
    schema = Schema.load(tmp_path / "a.proto")
    assert schema.services == ("a.S", "lib.S")
    assert schema.declared_services == ("a.S",)
    assert schema.declared_files == ("a.proto",)


@pytest.mark.parametrize(
    ("ask", "name", "text"),
    [
        (ECHO.service, "p.Ecko", "no service 'p.Ecko' in the schema; did you mean 'p.Echo'?"),
        (ECHO.service, "p.Request", "no service 'p.Request' in the schema"),
        (ECHO.method_kinds, "q", "no service 'q' in the schema"),
        (
            ECHO.method,
            "p.Echo/unary_unary",
            "no method 'p.Echo/unary_unary' in the schema; did you mean 'p.Echo/UnaryUnary'?",
        ),
        (ECHO.method, "UnaryUnary", "no service '' in the schema"),
        (
            ECHO.message,
            "p.Requst",
            "no message type 'p.Requst' in the schema; did you mean 'p.Request'?",
        ),
        (
            ECHO.message,
            "Request",
            "no message type 'Request' in the schema; did you mean 'p.Request'?",
        ),
        (ECHO.message, "p.Reply.Iner", "no message type 'p.Reply.Iner' in the schema"),
        (
            ECHO.message,
            "p.Level",
            "no message type 'p.Level' in the schema",
        ),
        (ECHO.enum, "q.level", "no enum 'q.level' in the schema; did you mean 'p.Level'?"),
        (ECHO.extension, "xyz", "no extension 'xyz' in the schema"),
    ],
)
def test_what_is_not_there(ask: Any, name: str, text: str) -> None:
    """A name that a schema does not have is an error with the nearest that it has."""
    with pytest.raises(SymbolError) as caught:
        ask(name)
    assert str(caught.value) == text


def test_messages_and_enums() -> None:
    """A message type has one class, nested ones too; an enum gives names and numbers."""
    assert ECHO.message("p.Reply.Inner") is ECHO.message("p.Reply.Inner")
    reply: Any = ECHO.message("p.Reply")(inner={"n": 1}, level="HIGH")
    assert type(reply.inner) is ECHO.message("p.Reply.Inner")
    assert [ECHO.has_message(name) for name in ("p.Reply", "p.Reply.Inner", "p.Level", "x")] == [
        True, True, False, False,
    ]  # fmt: skip
    level = ECHO.enum("p.Level")
    assert level.items() == [("LOW", 0), ("HIGH", 1)]
    assert level.Name(1) == "HIGH"
    assert level.Value("HIGH") == 1


def test_the_label_is_short() -> None:
    """A schema of many sources is named by the first few."""
    schema = Schema.load(*[P3 + f"message M{n} {{}}" for n in range(5)])
    assert repr(schema) == (
        "<Schema inline_1.proto, inline_2.proto, inline_3.proto and 2 more: 0 services>"
    )


# ---- the language


def test_proto2() -> None:
    """proto2: groups, extensions, required fields and defaults."""
    schema = Schema.load(
        P2
        + """
package p;
message M {
  required int32 id = 1;
  optional string name = 2 [default = "nobody"];
  optional double ratio = 3 [default = inf];
  optional bytes data = 4 [default = "\\x01\\xff"];
  optional Level level = 5 [default = HIGH];
  optional group Place = 6 { optional int32 x = 1; }
  repeated group Item = 7 { required string name = 1; }
  repeated int32 packed = 8 [packed = true];
  extensions 100 to max;
}
enum Level { LOW = -1; HIGH = 5; }
extend M { optional int32 extra = 100; repeated M more = 101; }
"""
    )
    message: Any = schema.message("p.M")
    empty = message()
    assert (empty.name, empty.ratio, empty.data, empty.level) == (
        "nobody", math.inf, b"\x01\xff", 5,
    )  # fmt: skip
    assert not empty.IsInitialized()
    made: Any = schema.convert(
        {"id": 1, "place": {"x": 2}, "item": [{"name": "a"}], "packed": [1, 2], "level": "LOW"},
        message,
    )
    made.Extensions[schema.extension("p.extra")] = 7
    made.Extensions[schema.extension("p.more")].add(id=3)
    again: Any = message.FromString(made.SerializeToString())
    assert again == made
    assert schema.to_dict(again) == {
        "id": 1,
        "place": {"x": 2},
        "item": [{"name": "a"}],
        "packed": [1, 2],
        "level": "LOW",
        "[p.extra]": 7,
        "[p.more]": [{"id": 3}],
    }
    # a closed enum keeps a number that it does not know out of the field
    assert not message.FromString(b"\x08\x01\x28\x63").HasField("level")


def test_proto3() -> None:
    """proto3: optional, maps, oneofs, open enums and packed fields."""
    schema = Schema.load(
        P3
        + """
package p;
message M {
  optional int32 maybe = 1;
  int32 always = 2;
  map<string, M> by_name = 3;
  map<int64, Level> by_number = 4;
  oneof choice { string text = 5; M message = 6; bool flag = 7; }
  repeated Level levels = 8;
}
enum Level { LOW = 0; HIGH = 5; }
"""
    )
    message: Any = schema.message("p.M")
    assert not message().HasField("maybe")
    made: Any = schema.convert(
        {
            "maybe": 0,
            "by_name": {"a": {"flag": False}},
            "by_number": {-1: "HIGH", 2: 99},
            "message": {"text": ""},
            "levels": ["HIGH", 0, 99],
        },
        message,
    )
    assert made.HasField("maybe")
    assert made.WhichOneof("choice") == "message"
    assert made.message.WhichOneof("choice") == "text"
    assert message.FromString(made.SerializeToString()) == made
    assert schema.to_dict(made) == {
        "maybe": 0,
        "by_name": {"a": {"flag": False}},
        "by_number": {"-1": "HIGH", "2": 99},
        "message": {"text": ""},
        "levels": ["HIGH", "LOW", 99],
    }


def test_edition_2023() -> None:
    """Edition 2023: presence, closed enums, packing and delimited messages as features say."""
    schema = Schema.load(
        """
edition = "2023";
package p;
option features.field_presence = IMPLICIT;
message M {
  int32 implicit = 1;
  int32 explicit = 2 [features.field_presence = EXPLICIT];
  repeated int32 expanded = 3 [features.repeated_field_encoding = EXPANDED];
  M delimited = 4 [features.message_encoding = DELIMITED];
  Closed closed = 5 [features.field_presence = EXPLICIT];
}
enum Closed { option features.enum_type = CLOSED; ONE = 1; }
"""
    )
    message: Any = schema.message("p.M")
    made: Any = schema.convert({"implicit": 0, "explicit": 0, "expanded": [1, 2]}, message)
    assert made.SerializeToString() == b"\x10\x00\x18\x01\x18\x02"
    assert message(delimited=message(implicit=1)).SerializeToString() == b"\x23\x08\x01\x24"
    assert not message.FromString(b"\x28\x09").HasField("closed")


def test_edition_2024(tmp_path: Path) -> None:
    """Edition 2024: symbol visibility and imports that are for options only."""
    (tmp_path / "opt.proto").write_text(
        'edition = "2024"; package o; import "google/protobuf/descriptor.proto";'
        " extend google.protobuf.MessageOptions { string tag = 50000; }"
    )
    (tmp_path / "lib.proto").write_text(
        'edition = "2024"; package lib; export message Open {} local message Hidden {}'
        " message Default { message Inner {} export message Shown {} }"
    )
    (tmp_path / "a.proto").write_text(
        'edition = "2024"; package p; import "lib.proto"; import option "opt.proto";'
        ' message M { option (o.tag) = "yes"; lib.Open open = 1; lib.Default.Shown shown = 2; }'
    )
    schema = Schema.load(tmp_path / "a.proto")
    made: Any = schema.convert({"open": {}, "shown": {}}, schema.message("p.M"))
    assert made.SerializeToString() == b"\x0a\x00\x12\x00"
    assert schema.message("lib.Hidden")().SerializeToString() == b""
    assert schema.index.option_dependencies("a.proto") == ["opt.proto"]
    assert "opt.proto" in schema.index.files


def test_well_known_types_keep_their_methods() -> None:
    """Well-known types of a schema have what generated ones have."""
    schema = Schema.load(
        P3 + 'import "google/protobuf/any.proto"; import "google/protobuf/struct.proto";'
        ' import "google/protobuf/timestamp.proto"; message M {}'
    )
    timestamp: Any = schema.message("google.protobuf.Timestamp")()
    timestamp.FromJsonString("2020-01-01T00:00:00Z")
    assert timestamp.ToJsonString() == "2020-01-01T00:00:00Z"
    struct: Any = schema.message("google.protobuf.Struct")()
    struct.update({"a": [1, None]})
    assert struct["a"][0] == 1
    packed: Any = schema.message("google.protobuf.Any")()
    packed.Pack(timestamp)
    assert packed.Is(timestamp.DESCRIPTOR)


# ---- JSON


ANY = Schema.load(
    P3
    + """
package p;
import "google/protobuf/any.proto";
message M { google.protobuf.Any any = 1; int64 long_number = 2; bytes data = 3; }
""",
    cache=False,
)


def test_any_in_json_is_of_the_schemas_own_pool() -> None:
    """An Any goes to JSON and back by the types of its schema, which nobody else knows."""
    message: Any = ANY.message("p.M")
    made = ANY.convert({"any": message(long_number=5), "data": b"\xff"}, message)
    form = {"any": {"@type": "type.googleapis.com/p.M", "long_number": "5"}, "data": "/w=="}
    assert ANY.to_dict(made) == form
    text = ANY.to_json(made, indent=None)
    assert text == (
        '{"any": {"@type": "type.googleapis.com/p.M", "longNumber": "5"}, "data": "/w=="}'
    )
    assert ANY.from_json(text, message) == made
    assert ANY.from_json(text.encode(), message) == made


def test_a_message_without_a_json_form() -> None:
    """An Any of a type that the schema does not have is a MessageError, as text and as a dict."""
    made: Any = ANY.message("p.M")(any={"type_url": "x/p.None"})
    for convert in (ANY.to_json, ANY.to_dict):
        with pytest.raises(MessageError) as caught:
            convert(made)
        assert str(caught.value) == ("p.M: Can not find message descriptor by type_url: x/p.None")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "p.M: Failed to load JSON: Expecting value: line 1 column 1 (char 0)."),
        ("{", "p.M: Failed to load JSON: Expecting property name enclosed in double quotes:"
              " line 1 column 2 (char 1)."),
        ('{"x": 1}', 'p.M: Message type "p.M" has no field named "x" at "M".\n'
                     ' Available Fields(except extensions): "[\'any\', \'longNumber\', \'data\']"'),
        (b"\xff", "p.M: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)  # fmt: skip
def test_json_that_does_not_fit(text: str | bytes, problem: str) -> None:
    """Whatever is wrong with JSON, it is a MessageError that names the message."""
    with pytest.raises(MessageError) as caught:
        ANY.from_json(text, ANY.message("p.M"))
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"any": {"@type": 3}}', '{"any": {"@type": "x/p.N"}}', "3", "null"]
)
def test_json_that_json_format_trips_over(text: str) -> None:
    """What protobuf answers with an error of another sort is a MessageError too."""
    with pytest.raises(MessageError) as caught:
        ANY.from_json(text, ANY.message("p.M"))
    assert caught.value.path == "p.M"


# ---- everything that is installed


def each_message(schema: Schema) -> list[Any]:
    """The class of every message type of a schema, nested ones too."""
    todo = [schema.message(n).DESCRIPTOR for n in schema.index.symbols() if schema.has_message(n)]
    found = []
    while todo:
        descriptor = todo.pop()
        todo += descriptor.nested_types
        if not descriptor.GetOptions().map_entry:
            found.append(schema.message(descriptor.full_name))
    return found


def filled(message: Any) -> Any:
    """A message with every field set, to a depth of one."""
    made = message()
    for field in made.DESCRIPTOR.fields:
        if field.message_type is None:
            value = {9: "text", 12: b"\xff", 8: True, 14: None}.get(field.type, 1)
            if value is None:
                value = field.enum_type.values[-1].number
            if field.is_repeated:
                getattr(made, field.name).append(value)
            else:
                setattr(made, field.name, value)
        elif not field.is_repeated:
            getattr(made, field.name).SetInParent()
        elif not field.message_type.GetOptions().map_entry:
            getattr(made, field.name).add()
    return made


@pytest.mark.parametrize(
    "sources",
    [
        ["package:googleapis-common-protos"],
        ["package:grpc_tools/_proto"],
        ["grpc_health.v1.health_pb2"],
        ["grpc_reflection.v1alpha.reflection_pb2"],
        ["package:googleapis-common-protos", "package:grpc_tools/_proto",
         "grpc_health.v1.health_pb2", "grpc_reflection.v1alpha.reflection_pb2"],
    ],
)  # fmt: skip
def test_everything_installed_loads(sources: list[str]) -> None:
    """Every installed .proto loads; every message is made, filled, serialised and parsed back."""
    schema = Schema.load(
        *[
            source if source.startswith("package:") else importlib.import_module(source)
            for source in sources
        ]
    )
    schema.build()
    messages = each_message(schema)
    assert len(messages) > 1
    for message in messages:
        made = filled(message)
        data = made.SerializePartialToString()
        assert data or not message.DESCRIPTOR.fields or message.DESCRIPTOR.fields[0].is_repeated
        again = message.FromString(data)
        assert again.SerializePartialToString() == data
        assert again == made
        assert message is message_factory.GetMessageClass(message.DESCRIPTOR)


def test_every_installed_file_is_there() -> None:
    """What 'everything' means above: no .proto in the installed folders is left out."""
    schema = Schema.load("package:googleapis-common-protos", "package:grpc_tools/_proto")
    there = {
        path.relative_to(root).as_posix()
        for root in builtin_roots()
        for path in Path(root, "google").rglob("*.proto")
    }
    assert set(schema.declared_files) == there
    assert len(there) > 60


def test_a_file_of_many_services_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Describing all services of a file costs in proportion to their number."""
    read = []

    def counted(file: Any) -> dict[str, str]:
        read.append(file.name)
        return comments_of(file)

    monkeypatch.setattr("dynserve.schema.declarations.comments_of", counted)
    services = "".join(f"// {n}\nservice S{n} {{ rpc Get(M) returns (M); }}\n" for n in range(20))
    schema = Schema.load(f'syntax = "proto3"; message M {{}}\n{services}')
    assert [schema.service(f"S{n}").doc for n in range(20)] == [str(n) for n in range(20)]
    assert len(schema.comments("inline_1.proto")) == 20
    assert read == ["inline_1.proto"]
