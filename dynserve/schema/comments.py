"""The comments of a .proto file, by the full name of what they stand in front of.

google/protobuf/descriptor.proto, ``SourceCodeInfo.Location``, says how a path leads to an element.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, SourceCodeInfo

__all__ = ["comments_of"]

# Which repeated field of a descriptor holds named elements of which sort: number → (attribute,
# what is in it). Enum values are siblings of their enum in a symbol's full name.
_FILE = {4: "message_type", 5: "enum_type", 6: "service", 7: "extension"}
_MESSAGE = {2: "field", 3: "nested_type", 4: "enum_type", 6: "extension", 8: "oneof_decl"}
_INSIDE: dict[str, dict[int, str]] = {
    "message_type": _MESSAGE,
    "nested_type": _MESSAGE,
    "enum_type": {2: "value"},
    "service": {2: "method"},
}


def comments_of(file: FileDescriptorProto) -> dict[str, str]:
    """Every comment of the file: full name → text, with the comment signs and indent taken off.

    The comment in front of an element counts, else the one behind it on its line.
    """
    found = {}
    for location in file.source_code_info.location:
        text = _text(location)
        if text and len(location.path) % 2 == 0:
            try:
                name = ".".join(_names(file, location.path))
            except IndexError:  # another compiler's mistake; the file is good without the comment
                continue
            if name:
                found[f"{file.package}.{name}" if file.package else name] = text
    return found


def _text(location: SourceCodeInfo.Location) -> str:
    text: str | bytes = location.leading_comments or location.trailing_comments
    if isinstance(text, bytes):  # what protobuf makes of a text that is not UTF-8
        text = text.decode(errors="replace")
    lines = text.rstrip().splitlines()
    if all(line.startswith(" ") for line in lines if line):
        lines = [line[1:] for line in lines]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def _names(file: FileDescriptorProto, path: Sequence[int]) -> Iterator[str]:
    """The names along the path; none at all where it leads to something without a name."""
    holder: Any = file
    fields, names = _FILE, []
    for number, position in zip(path[::2], path[1::2], strict=True):
        attribute = fields.get(number)
        if attribute is None:
            return
        if position < 0:
            raise IndexError(position)
        holder = getattr(holder, attribute)[position]
        names.append(holder.name)
        if attribute == "value":
            del names[-2]
        fields = _INSIDE.get(attribute, {})
    yield from names
