"""dynserve.schema.comments."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from dynserve import Schema
from dynserve.schema.comments import comments_of


def test_every_element_has_its_comment() -> None:
    """Comments are found by the full name of what they stand in front of or, else, behind."""
    schema = Schema.load(
        """
syntax = "proto2";
// Of the package, which has no name of its own.
package p;
/* A message.
 * Of two lines.
 *
 *   indented
 */
message M {
  // A field.
  optional int32 a = 1;  // behind it
  optional int32 b = 2;  // only behind
  // A nested message.
  message N {
    // Deep.
    optional string c = 1;
  }
  // A nested enum.
  enum F {
    // Its value.
    ZERO = 0;
  }
  // A choice.
  oneof o { string d = 3; }
  extensions 10 to 20;
  // A group.
  optional group G = 4 {
    // In the group.
    optional int32 e = 5;
  }
}
// An enum.
enum E {
  ONE = 1; // A value.
}
// Not of an element.
extend M {
  // An extension.
  optional int32 x = 10;
}
// A service.
service S {
  // detached

  //No space in front,
  // one here.
  rpc Get(M) returns (M);
  rpc Bare(M) returns (M);
}
"""
    )
    assert schema.comments("inline_1.proto") == {
        "p.M": "A message.\nOf two lines.\n\n  indented",
        "p.M.a": "A field.",
        "p.M.b": "only behind",
        "p.M.N": "A nested message.",
        "p.M.N.c": "Deep.",
        "p.M.F": "A nested enum.",
        "p.M.ZERO": "Its value.",
        "p.M.o": "A choice.",
        "p.M.G": "A group.",
        "p.M.G.e": "In the group.",
        "p.E": "An enum.",
        "p.ONE": "A value.",
        "p.x": "An extension.",
        "p.S": "A service.",
        "p.S.Get": "No space in front,\n one here.",
    }
    assert schema.service("p.S").doc == "A service."
    assert schema.method("p.S/Get").doc == "No space in front,\n one here."
    assert schema.method("p.S/Bare").doc == ""


def test_locations_that_lead_nowhere() -> None:
    """A compiler's mistake in a location costs that comment and no other."""
    file = FileDescriptorProto(name="a.proto")
    file.message_type.add(name="M")
    for path in ([4, 7], [4, -1], [4], [4, 0, 99, 0], [99, 0], [4, 0]):
        file.source_code_info.location.add(path=path, leading_comments=f" {path}")
    assert comments_of(file) == {"M": "[4, 0]"}


def test_a_comment_that_is_not_unicode() -> None:
    """What is not UTF-8 in a comment is shown as such."""
    file = FileDescriptorProto(name="a.proto")
    file.message_type.add(name="M")
    file.source_code_info.location.add(path=[4, 0], leading_comments="12345")
    raw = file.SerializeToString().replace(b"12345", b"\xff2345")
    assert comments_of(FileDescriptorProto.FromString(raw)) == {"M": "�2345"}
