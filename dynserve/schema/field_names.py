"""What a field's type is called in a .proto, and what is named after a field."""

from __future__ import annotations

__all__ = ["SCALARS", "camel_case", "entry_name", "json_name"]

# google/protobuf/descriptor.proto, FieldDescriptorProto.Type; 10, 11 and 14 go by their names.
SCALARS = {
    1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 6: "fixed64", 7: "fixed32",
    8: "bool", 9: "string", 12: "bytes", 13: "uint32", 15: "sfixed32", 16: "sfixed64",
    17: "sint32", 18: "sint64",
}  # fmt: skip


def json_name(name: str) -> str:
    """https://protobuf.dev/programming-guides/json/#field-representation"""
    first, *rest = name.split("_")
    return first + camel_case("_".join(rest))


def entry_name(name: str) -> str:
    """Of the message that a map's entries are.

    https://protobuf.dev/programming-guides/proto3/#backwards
    """
    return f"{camel_case(name)}Entry"


def camel_case(name: str) -> str:
    """``some_name`` as ``SomeName``."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
