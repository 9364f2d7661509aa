"""Files that stand in for ones that are missing, so that the rest of a schema can be built.

A server may not tell of a file that another one imports. What the missing file declares is known
only by its uses: each type that is used and nowhere declared is declared here with nothing in it.
Its messages can be parsed, and written as they came; all that is in them is unknown fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .descriptors import message_class

__all__ = ["placeholders"]

_END = 536870912  # one past the highest field number


def placeholders(missing: Iterable[str], types: Mapping[str, bool]) -> list[bytes]:
    """Files with nothing in them of the names ``missing``, and files that declare ``types``.

    Args:
        missing: the names of files that are imported.
        types: full names of types, and whether each is an enum.

    Returns:
        Each serialised as a ``FileDescriptorProto``.
    """
    make = message_class("FileDescriptorProto")
    files = [make(name=name) for name in missing]
    prefix = files[0].name if files else next(iter(types), "")
    files += _declaring(f"{prefix}.placeholder", types)
    return [bytes(file.SerializeToString()) for file in files]


def _declaring(prefix: str, types: Mapping[str, bool]) -> Iterator[Any]:
    """A file for the messages of each package, and one for its enums.

    Messages are of proto2, so that they may have extensions, and enums of proto3, so that they take
    any number.
    """
    made: dict[tuple[str, bool], Any] = {}
    messages: dict[str, Any] = {}
    for name, is_enum in sorted(types.items()):  # what holds others comes before them
        package, _, last = name.rpartition(".")
        holder = messages.get(package)
        if holder is None:
            key = package, is_enum
            if key not in made:
                made[key] = message_class("FileDescriptorProto")(
                    name=f"{prefix}/{len(made)}.proto",
                    package=package,
                    syntax="proto3" if is_enum else "proto2",
                )
            holder = made[key]
        if is_enum:
            enum = holder.enum_type.add(name=last)
            enum.value.add(name=f"{last.upper()}_UNKNOWN", number=0)
        else:
            group = holder.nested_type if package in messages else holder.message_type
            messages[name] = group.add(name=last)
            messages[name].extension_range.add(start=1, end=_END)
    yield from made.values()
