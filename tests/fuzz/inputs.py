"""What the fuzzers send: valid things that are spoilt a little, and noise."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.wire.served import KINDS, WORLDS, Node, schema

__all__ = ["calls", "descriptor_sets", "header_lists", "spoilt"]

INT32 = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.sampled_from(["", "fail", "ü", "\0", "a" * 300]) | st.text(max_size=20)


@st.composite
def spoilt(draw: DrawFn, source: SearchStrategy[bytes]) -> bytes:
    """Bytes with some cut out, put in, changed or repeated; often with none."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(0, 5))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(len(data), begin + 8)))
        match draw(st.sampled_from(["cut", "in", "change", "repeat", "bit"])):
            case "cut":
                del data[begin:end]
            case "in":
                data[begin:begin] = draw(st.binary(min_size=1, max_size=8))
            case "change":
                data[begin:end] = draw(st.binary(min_size=end - begin, max_size=end - begin))
            case "repeat":
                data[begin:begin] = data[begin:end] * draw(st.integers(1, 50))
            case _ if begin < len(data):
                data[begin] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


# ---- requests

_leaves = st.builds(
    Node,
    number=INT32,
    text=TEXTS,
    data=st.binary(max_size=50),
    table=st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.floats(), max_size=3),
    color=INT32,
    deltas=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    fixed=st.lists(st.integers(0, 2**32 - 1), max_size=4),
    names=st.lists(TEXTS, max_size=3),
    flag=st.none() | st.booleans(),
)


def _branches(nodes: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.builds(
        Node,
        text=TEXTS,
        child=nodes,
        children=st.lists(nodes, max_size=3),
        named=st.dictionaries(TEXTS, nodes, max_size=2),
        other=st.none() | nodes,
    )


def _serialized(node: Any) -> bytes:
    return bytes(node.SerializeToString())


@st.composite
def _nested(draw: DrawFn) -> bytes:
    """A message in a message …, by hand: no parser made it."""
    data = draw(st.binary(max_size=10))
    for _ in range(draw(st.integers(0, 300))):
        size, length = len(data), b""
        while size > 127:
            size, length = size >> 7, length + bytes([size & 127 | 128])
        data = b"\x22" + length + bytes([size]) + data
    return data


_messages = spoilt(st.recursive(_leaves, _branches, max_leaves=6).map(_serialized))
_requests = _messages | st.binary(max_size=200) | _nested()
# (world, kind, requests)
calls = st.tuples(
    st.sampled_from(WORLDS), st.sampled_from(KINDS), st.lists(_requests, min_size=1, max_size=3)
)

# ---- metadata

_NAMES = (
    b"te content-type grpc-timeout grpc-encoding grpc-accept-encoding grpc-message grpc-status "
    b"user-agent authorization cookie host x-request-id x-bin grpc-trace-bin traceparent "
    b":authority :scheme :method :status connection content-length grpc-previous-rpc-attempts"
).split()
_VALUES = (
    b"trailers application/grpc 1S 99999999999H -1m gzip identity deflate,gzip 0 16 \xff\xfe "
    b"AAAA= !!! POST GET https 200 chunked Bearer"
).split()
_names = (
    st.sampled_from(_NAMES)
    | st.from_regex(rb"[a-z0-9_.\-]{1,20}(-bin)?", fullmatch=True)
    | st.binary(max_size=20)
)
_values = st.sampled_from(_VALUES) | spoilt(st.sampled_from(_VALUES)) | st.binary(max_size=100)
# (method, headers beside the proper ones, request)
header_lists = st.tuples(
    st.sampled_from([f"wire.{world}/{kind}" for world in WORLDS for kind in KINDS]),
    st.lists(st.tuples(_names, _values), max_size=8),
    _requests,
)

# ---- descriptor sets


def _original() -> bytes:
    files = FileDescriptorSet()
    index = schema.index
    for name in index.files:
        files.file.add().ParseFromString(index.raw(name))
    return bytes(files.SerializeToString())


ORIGINAL = _original()
_WORDS = st.sampled_from(
    [
        ".wire.Node",
        "wire.Node",
        ".wire.Color",
        ".wire.Sync",
        "Node",
        "child",
        "",
        ".",
        "a.b",
        "a b",
        ".google.protobuf.Any",
        "google/protobuf/any.proto",
        "proto2",
        "proto3",
        "editions",
        "é",
    ]
)


def _parts(message: Any) -> list[Any]:
    """A message and all messages in it."""
    found = [message]
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in value if field.is_repeated else [value]:
                found += _parts(part)
    return found


def _scalar(draw: DrawFn, field: Any) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            word = draw(_WORDS | st.text(max_size=10))
            return word.encode() if field.type == FieldDescriptor.TYPE_BYTES else word
        case FieldDescriptor.CPPTYPE_BOOL:
            return draw(st.booleans())
        case FieldDescriptor.CPPTYPE_ENUM:
            return draw(st.sampled_from([value.number for value in field.enum_type.values]))
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return draw(st.floats(width=32))
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return draw(st.integers(0, 2**32 - 1))
        case _:
            return draw(st.sampled_from([0, 1, 2, -1, 19000, 2**29, 2**31 - 1]) | INT32)


def _change(draw: DrawFn, message: Any) -> None:
    """Spoil one field of one descriptor."""
    field = message.DESCRIPTOR.fields[draw(st.integers(0, len(message.DESCRIPTOR.fields) - 1))]
    values = getattr(message, field.name)
    if field.is_repeated:
        how = draw(st.sampled_from(["drop", "twice", "swap", "add"]))
        if how == "drop" and values:
            del values[draw(st.integers(0, len(values) - 1))]
        elif how == "twice" and values:
            values.append(values[draw(st.integers(0, len(values) - 1))])
        elif how == "swap" and len(values) > 1:
            values.append(values[0])
            del values[0]
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            values.append(_scalar(draw, field))
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        message.ClearField(field.name)
    elif draw(st.booleans()):
        setattr(message, field.name, _scalar(draw, field))
    else:
        message.ClearField(field.name)


@st.composite
def _changed_sets(draw: DrawFn) -> bytes:
    files = FileDescriptorSet.FromString(ORIGINAL)
    for _ in range(draw(st.integers(1, 4))):
        parts = _parts(files)
        _change(draw, parts[draw(st.integers(0, len(parts) - 1))])
    return bytes(files.SerializeToString())


descriptor_sets = _changed_sets() | spoilt(_changed_sets()) | spoilt(st.builds(_original))
