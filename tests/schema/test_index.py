"""dynserve.schema.index: what a descriptor set holds, damaged sets included."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dynserve import DescriptorError, Schema
from dynserve.schema.index import Index

RICH = """
edition = "2024";
package p;
import "google/protobuf/descriptor.proto";
// A message.
message M {
  int32 n = 1;
  map<string, M> children = 2;
  enum Inner { ZERO = 0; }
  extensions 100 to 200;
  message Nested { extend M { string more = 101; } }
  oneof kind { string a = 3; M b = 4; }
}
enum E { NONE = 0; SOME = 1; }
extend M { int32 extra = 100; }
extend google.protobuf.MethodOptions { string note = 50000; }
// A service.
service S {
  // A method.
  rpc Get(M) returns (stream M) { option (note) = "hello"; }
}
"""


def made(*files: FileDescriptorProto) -> bytes:
    """The bytes of a descriptor set."""
    return FileDescriptorSet(file=files).SerializeToString()


def file(name: str = "a.proto", **fields: Any) -> FileDescriptorProto:
    """A file of a descriptor set."""
    return FileDescriptorProto(name=name, syntax="proto3", **fields)


def message(name: str, **fields: Any) -> descriptor_pb2.DescriptorProto:
    """A message type of a file."""
    return descriptor_pb2.DescriptorProto(name=name, **fields)


def rich_set() -> bytes:
    """A set with a bit of everything, without the well-known file that it imports."""
    index = Schema.load(RICH).index
    return made(FileDescriptorProto.FromString(index.raw("inline_1.proto")))


def use_all(schema: Schema) -> None:
    """Ask a schema for everything that it has."""
    schema.build()
    for name in schema.services:
        service = schema.service(name)
        assert list(schema.method_kinds(name)) == list(service.methods)
        dict(service.options)
        for method in service.methods.values():
            dict(method.options)
    for name in schema.index.symbols():
        if schema.has_message(name):
            schema.message(name)().SerializePartialToString()
    for name in schema.index.files:
        schema.comments(name)


# ---- what is in it


def test_names_of_a_set() -> None:
    """Files, services, symbols and extensions are known without building anything."""
    index = Schema.load(RICH).index
    assert list(index.files) == ["google/protobuf/descriptor.proto", "inline_1.proto"]
    assert index.services == {"p.S": "inline_1.proto"}
    ours = [name for name in index.symbols() if name.startswith("p.")]
    assert ours == ["p.M", "p.E", "p.S", "p.extra", "p.note", "p.NONE", "p.SOME"]
    assert {n: e.name for n, e in index.extensions("p.M").items()} == {
        100: "p.extra",
        101: "p.M.Nested.more",
    }
    assert index.extensions("p.None") == {}
    assert index.dependencies("inline_1.proto") == ["google/protobuf/descriptor.proto"]
    assert index.missing() == {}


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("p.M", "inline_1.proto"),
        ("p.M.children", "inline_1.proto"),
        ("p.M.no.such.thing", "inline_1.proto"),
        ("p.S.Get", "inline_1.proto"),
        ("p.SOME", "inline_1.proto"),
        ("p", None),
        ("p.MM", None),
        ("", None),
    ],
)
def test_the_file_of_a_symbol(symbol: str, expected: str | None) -> None:
    """An inner symbol is looked for in the file of its outermost one."""
    assert Schema.load(RICH).index.file_of(symbol) == expected


def test_option_imports_are_not_dependencies() -> None:
    """What edition 2024 imports for options only is known apart."""
    index = Index()
    index.add_set("x", made(file(dependency=["b"], option_dependency=["c", "d"])))
    assert index.dependencies("a.proto") == ["b"]
    assert index.option_dependencies("a.proto") == ["c", "d"]
    assert index.missing() == {"b": ["a.proto"]}


def test_bytes_are_given_back_as_they_came() -> None:
    """The bytes of a file are the set's own, and only source locations can be left out."""
    data = file(message_type=[message("M")])
    plain = data.SerializeToString()
    data.source_code_info.location.add(path=[4, 0], leading_comments=" Hello.")
    data.public_dependency.append(0)
    index = Index()
    assert index.add_set("x", made(data)) == ["a.proto"]
    assert index.raw("a.proto") == data.SerializeToString()
    data.ClearField("source_code_info")
    assert index.stripped("a.proto") == data.SerializeToString() != plain
    with pytest.raises(KeyError):
        index.raw("b.proto")


# ---- the same file twice


def test_a_file_twice_is_taken_once() -> None:
    """The same file may come again, with or without source locations and derived names."""
    one = file(message_type=[message("M")])
    one.message_type[0].field.add(name="a_b", number=1, type=9, label=1)
    one.message_type[0].extension.add(name="x_y", number=1, type=9, label=1, extendee="M")
    again = FileDescriptorProto.FromString(one.SerializeToString())
    again.message_type[0].field[0].json_name = "aB"
    again.message_type[0].extension[0].json_name = "xY"
    again.source_code_info.location.add(path=[4, 0])
    again.MergeFromString(b"\xd2\xf6\x03\x02\x08\x01")  # field 8042: buf's facts about a file
    index = Index()
    index.add_set("x", made(one, again))
    assert index.add_set("y", made(again)) == ["a.proto"]
    assert index.raw("a.proto") == one.SerializeToString()


def test_the_first_well_known_file_will_do() -> None:
    """Sets made by several releases of protobuf mix, though each has a descriptor.proto."""
    ours = FileDescriptorProto.FromString(descriptor_pb2.DESCRIPTOR.serialized_pb)
    other = FileDescriptorProto.FromString(descriptor_pb2.DESCRIPTOR.serialized_pb)
    other.message_type.add(name="OfTheFuture")
    Schema.load(made(ours), made(other)).build()


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (
            [file(), file(message_type=[message("M")])],
            "descriptor set: 'a.proto' is there already, with other content",
        ),
        (
            [file("a", message_type=[message("M")]), file("b", message_type=[message("M")])],
            "descriptor set: 'M' is defined in 'a' and in 'b'",
        ),
        ([], "descriptor set: the descriptor set has no file in it"),
        (
            [file(dependency=["b.proto"])],
            "descriptor set: 'a.proto' imports 'b.proto', which is missing"
            " (make the set with `protoc --include_imports` or `buf build`)",
        ),
    ],
)
def test_what_contradicts_itself(files: list[FileDescriptorProto], text: str) -> None:
    """Conflicting duplicates, an empty set and a missing import are refused at once."""
    with pytest.raises(DescriptorError) as caught:
        Schema.load(made(*files))
    assert str(caught.value) == text


def test_a_missing_import_is_found_among_the_sources() -> None:
    """A set need not carry what another source, or the installation, has."""
    data = file(dependency=["google/protobuf/any.proto", "b.proto", "google/rpc/status.proto"])
    schema = Schema.load(made(data), made(file("b.proto")))
    schema.build()
    assert schema.declared_files == ("a.proto", "b.proto")
    assert "google/rpc/status.proto" in schema.index.files


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../etc/passwd", "x" * 5000, "nul\0", "google/rpc/status_pb2.py"]
)
def test_an_import_of_a_set_reaches_nothing_else(name: str) -> None:
    """What a set says that it imports is looked for among the installed .proto files only."""
    with pytest.raises(DescriptorError) as caught:
        Schema.load(made(file(dependency=[name])))
    assert str(caught.value) == (
        f"descriptor set: 'a.proto' imports {name!r}, which is missing"
        " (make the set with `protoc --include_imports` or `buf build`)"
    )


def test_an_import_that_no_set_has_is_told_once() -> None:
    """With several sets, the error speaks of them all."""
    with pytest.raises(DescriptorError) as caught:
        Schema.load(made(file(dependency=["x.proto"])), made(file("b.proto")))
    assert str(caught.value) == (
        "descriptor sets: 'a.proto' imports 'x.proto', which is missing"
        " (make the set with `protoc --include_imports` or `buf build`)"
    )


# ---- damage


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the descriptor set has no file in it"),
        (b"\x08\x01", "the descriptor set has no file in it"),
        (b"\x11" + bytes(8) + b"\x1d" + bytes(4), "the descriptor set has no file in it"),
        (b"\x0a\x05ab", "cut off: a field at byte 0 needs 3 bytes more"),
        (b"\x0a", "cut off within a varint"),
        (b"\x09\x00", "cut off: a field at byte 0 needs 7 bytes more"),
        (b"\x0b", "wire type 3 at byte 0"),
        (b"\xff" * 11, "a varint of more than ten bytes at byte 0"),
        (b"\x0a\x02\x0a\x05", "cut off: a field at byte 0 needs 5 bytes more"),
        (b"\x0a\x03\x0a\x01\xff", "a name in it is not UTF-8"),
        (b"\x0a\x03\x1a\x01\xff", "a name in it is not UTF-8"),
        (b"\x0a\x05\x22\x03\x0a\x01\xff", "a name in it is not UTF-8"),
    ],
)
def test_damaged_sets(data: bytes, text: str) -> None:
    """Bytes that are no descriptor set are an error that says where they stop making sense."""
    with pytest.raises(DescriptorError) as caught:
        Schema.load(data)
    prefix = "" if text.startswith("the ") else "not a descriptor set, or damaged: "
    assert str(caught.value) == f"descriptor set: {prefix}{text}"


def protobufs_reason(message: type[Message], data: bytes) -> str:
    """What protobuf itself says of bytes that it cannot parse; its releases differ."""
    with pytest.raises(DecodeError) as caught:
        message.FromString(data)
    return str(caught.value)


def test_a_damaged_file_of_a_set() -> None:
    """A file that protobuf cannot parse is an error with protobuf's reason."""
    raw = b"\x22\x02\x0a\x05"
    with pytest.raises(DescriptorError) as caught:
        Schema.load(b"\x0a\x04" + raw)
    reason = protobufs_reason(FileDescriptorProto, raw)
    assert str(caught.value) == f"descriptor set: not a descriptor set, or damaged: {reason}"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
@example(b"\x0a\x00")
def test_random_bytes(data: bytes) -> None:
    """Any bytes are a schema that works or a DescriptorError, nothing else."""
    try:
        use_all(Schema.load(data))
    except DescriptorError as error:
        assert str(error)  # noqa: PT017 - that there is no other error is what is shown


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_set_with_bytes_changed(chance: random.Random) -> None:
    """A good set with some bytes changed, cut or doubled is a schema or a DescriptorError."""
    data = bytearray(_RICH)
    for _ in range(chance.randint(1, 3)):
        where = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                del data[where : where + chance.randint(1, 9)]
            case 1:
                data[where:where] = data[where : where + chance.randint(1, 9)]
            case _:
                data[where] = chance.randrange(256)
    try:
        use_all(Schema.load(bytes(data)))
    except DescriptorError as error:
        assert str(error)  # noqa: PT017 - as above


@pytest.fixture(autouse=True, scope="module")
def _rich(cache: object) -> None:
    global _RICH  # noqa: PLW0603 - hypothesis runs a test many times within one fixture
    _RICH = rich_set()


_RICH = b""


def test_every_cut_of_a_set() -> None:
    """A set that is cut off anywhere is an error or, between two files, a smaller set."""
    for end in range(0, len(_RICH), 7):
        with pytest.raises(DescriptorError):
            Schema.load(_RICH[:end])


# ---- what only shows when it is built


def test_an_import_cycle_in_a_set() -> None:
    """A cycle in a set is an error that shows the path, when something in it is asked for."""
    schema = Schema.load(
        made(
            file("a", dependency=["b"], message_type=[message("M")]),
            file("b", dependency=["c"]),
            file("c", dependency=["b"]),
        )
    )
    with pytest.raises(DescriptorError) as caught:
        schema.message("M")
    assert str(caught.value) == "b: imports itself: b -> c -> b"


@pytest.mark.parametrize(
    "hostile",
    [
        file("a", dependency=["a"]),
        file("a", message_type=[message("a-b")]),
        file("a", package="p.\0", message_type=[message("M")]),
        file("nul\0", message_type=[message("M")]),
        FileDescriptorProto(name="a", syntax="proto4"),
        FileDescriptorProto(name="a", syntax="editions"),
        FileDescriptorProto(
            name="a", syntax="editions", edition=descriptor_pb2.EDITION_99999_TEST_ONLY
        ),
        file(
            "a",
            message_type=[
                message(
                    "M",
                    field=[
                        {"name": f"f{n}", "number": n, "type": 9, "label": 1}
                        for n in (*range(1, 19_000), *range(20_000, 60_000))
                    ],
                )
            ],
        ),
    ],
)
def test_files_that_no_pool_takes(hostile: FileDescriptorProto) -> None:
    """Whatever protobuf refuses in a file, it is an error that names the file."""
    schema = Schema.load(made(hostile, file("b")))
    with pytest.raises(DescriptorError) as caught:
        schema.build()
    assert caught.value.source == hostile.name


def test_a_type_that_is_not_there() -> None:
    """A file that cannot be built is an error when it is asked for, and the others work."""
    bad = message("Bad")
    bad.field.add(name="x", number=1, type=11, label=1, type_name=".None")
    schema = Schema.load(
        made(file("a", message_type=[bad]), file("b", message_type=[message("Good")]))
    )
    for _ in range(2):
        with pytest.raises(DescriptorError) as caught:
            schema.message("Bad")
        assert str(caught.value) == ("a: cannot be built: couldn't resolve name '.None'")
    assert schema.message("Good").DESCRIPTOR.full_name == "Good"


def test_damaged_locations() -> None:
    """Source locations are read when a comment is asked for, and then their damage is an error."""
    data = file(service=[descriptor_pb2.ServiceDescriptorProto(name="S")])
    # field 9, source_code_info, with an unfinished location in it
    raw = data.SerializeToString() + b"\x4a\x02\x0a\x05"
    schema = Schema.load(b"\x0a" + bytes([len(raw)]) + raw)
    service = schema.service("S")
    reason = protobufs_reason(FileDescriptorProto, raw)
    for ask in (lambda: service.doc, lambda: service.options, lambda: schema.comments("a.proto")):
        with pytest.raises(DescriptorError) as caught:
            ask()
        assert str(caught.value) == f"a.proto: damaged source locations: {reason}"
