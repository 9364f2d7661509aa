"""Files that stand in for missing ones."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from dynserve import Schema
from dynserve.schema.descriptors import join
from dynserve.schema.placeholders import placeholders


def schema_of(files: list[bytes]) -> Schema:
    return Schema.load(join(files))


def test_missing_files_are_there_and_empty() -> None:
    """What imports them can be built."""
    importer = FileDescriptorProto(name="a.proto", dependency=["x.proto", "y.proto"])
    files = [*placeholders(["x.proto", "y.proto"], {}), importer.SerializeToString()]
    schema = schema_of(files)
    schema.build()
    assert list(schema.index.files) == ["x.proto", "y.proto", "a.proto"]


def test_messages_keep_what_they_hold() -> None:
    """All of it is unknown fields, and is written as it came; extensions of them are possible."""
    schema = schema_of(placeholders(["x.proto"], {"a.b.Outer": False, "a.b.Outer.Inner": False}))
    for name in ("a.b.Outer", "a.b.Outer.Inner"):
        message = schema.message(name)
        assert message.FromString(b"\x08\x05").SerializeToString() == b"\x08\x05"
        assert message.DESCRIPTOR.is_extendable


def test_enums_take_any_number() -> None:
    """They are open, as those of proto3 are, so that no number is lost."""
    files = placeholders([], {"a.Colour": True, "a.Shade": True, "b.Thing": False})
    schema = schema_of(files)
    assert schema.enum("a.Colour").items() == [("COLOUR_UNKNOWN", 0)]
    descriptor: Any = schema._pool.FindEnumTypeByName("a.Shade")
    assert not descriptor.is_closed


@pytest.mark.parametrize(
    ("missing", "types", "names"),
    [
        (["x.proto"], {"a.M": False}, ["x.proto", "x.proto.placeholder/0.proto"]),
        ([], {"a.M": False, "a.E": True}, ["a.M.placeholder/0.proto", "a.M.placeholder/1.proto"]),
        ([], {}, []),
    ],
)
def test_their_names_are_their_own(
    missing: list[str], types: dict[str, bool], names: list[str]
) -> None:
    """A file for each that is missing, and one for the messages and the enums of each package."""
    files = [FileDescriptorProto.FromString(data).name for data in placeholders(missing, types)]
    assert files == names
