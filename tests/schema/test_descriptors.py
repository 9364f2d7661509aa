"""The messages of descriptor.proto, away from the process's default pool."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from dynserve.schema.descriptors import join, message_class, parse_file

OTHER = """
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto

other = FileDescriptorProto(
    name="other.proto", package="other", dependency=["google/protobuf/descriptor.proto"]
)
other.message_type.add(name="M").field.add(name="x", number=1, type=5, label=1)
for kind in ("Method", "Message", "Service", "File", "Field"):
    other.extension.add(
        name=kind, number=50001, type=11, type_name=".other.M", label=1,
        extendee=f".google.protobuf.{kind}Options",
    )
descriptor_pool.Default().AddSerializedFile(other.SerializeToString())

from dynserve import Schema

schema = Schema.load('''
syntax = "proto3";
package mine;
import "google/protobuf/descriptor.proto";
extend google.protobuf.MethodOptions { string method = 50001; }
extend google.protobuf.MessageOptions { string message = 50001; }
extend google.protobuf.ServiceOptions { string service = 50001; }
extend google.protobuf.FileOptions { string file = 50001; }
extend google.protobuf.FieldOptions { string field = 50001; }
option (file) = "zzz";
message Item {
  option (message) = "zzz";
  repeated Item items = 1 [(field) = "zzz"];
  map<string, Item> named = 2;
}
service Items {
  option (service) = "zzz";
  // Gets.
  rpc Get(Item) returns (Item) { option (method) = "zzz"; }
}
''')
method = schema.method("mine.Items/Get")
item = schema.convert({"items": [{}], "named": {"a": {}}}, method.request)
print(dict(method.options), dict(schema.service("mine.Items").options), method.doc)
print(schema.to_dict(item))
"""


def test_options_of_other_modules_do_not_matter() -> None:
    """A generated module that uses the same option numbers otherwise does not disturb a schema."""
    done = subprocess.run(
        [sys.executable, "-c", OTHER], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == (
        "{'mine.method': 'zzz'} {'mine.service': 'zzz'} Gets.\n"
        "{'items': [{}], 'named': {'a': {}}}\n",
        "",
    )


def test_a_file_is_parsed_and_written_byte_for_byte() -> None:
    """Custom options stay as they are, whatever they are."""
    data = FileDescriptorProto(name="a.proto", package="a").SerializeToString() + b"\x42\x04"
    data += b"\x8a\xb5\x18\x00"  # options: an unknown field 50001
    file = parse_file(data)
    assert (file.name, file.package, file.SerializeToString()) == ("a.proto", "a", data)
    assert (
        join([data, data])
        == FileDescriptorSet(file=[FileDescriptorProto.FromString(data)] * 2).SerializeToString()
    )


def test_what_is_no_file_is_refused() -> None:
    """Bytes that are no message raise protobuf's own error."""
    with pytest.raises(DecodeError):
        parse_file(b"\x0a\xff")


def test_classes_are_not_the_generated_ones() -> None:
    """They are of a pool of their own, and the same every time."""
    assert message_class("FileDescriptorProto") is not FileDescriptorProto
    assert message_class("FileDescriptorProto") is message_class("FileDescriptorProto")
