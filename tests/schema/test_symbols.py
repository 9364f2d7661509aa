"""dynserve.schema.symbols."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from dynserve import Schema
from dynserve.schema.symbols import symbols_of


def test_every_name_that_a_file_defines() -> None:
    """Everything with a name is found, to any depth; an enum's value by both of its names."""
    schema = Schema.load(
        """
syntax = "proto2";
package p;
message M {
  optional int32 a = 1;
  oneof o { string b = 2; }
  message N { optional string c = 1; }
  enum F { ZERO = 0; }
  extensions 10;
  extend M { optional int32 y = 10; }
}
enum E { ONE = 1; }
extend M { optional int32 x = 11; }
service S { rpc Get(M) returns (M); }
""".replace("extensions 10;", "extensions 10 to 11;")
    )
    file = FileDescriptorProto.FromString(schema.index.stripped("inline_1.proto"))
    assert list(symbols_of(file)) == [
        *("p.M", "p.M.a", "p.M.b", "p.M.o", "p.M.y", "p.M.F", "p.M.ZERO", "p.M.F.ZERO"),
        *("p.M.N", "p.M.N.c", "p.E", "p.ONE", "p.E.ONE", "p.x", "p.S", "p.S.Get"),
    ]


def test_a_file_without_a_package() -> None:
    """Names of a file that has no package have no dot in front."""
    file = FileDescriptorProto()
    file.message_type.add(name="M")
    file.service.add(name="S")
    assert list(symbols_of(file)) == ["M", "S"]
