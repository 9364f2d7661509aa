"""Enums and their values as text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

from .bodies import Bodies
from .literals import ranges
from .names import join
from .order import Rank, Statement
from .scope import Scope

__all__ = ["EnumPrinter"]

_VALUE, _OPTIONS, _RESERVED, _RESERVED_NAME = 2, 3, 4, 5  # fields of EnumDescriptorProto
_MAX_INT32 = (1 << 31) - 1
_STATEMENTS = ("option", "reserved")  # what these are to protoc where a value may stand


class EnumPrinter:
    """Writes the enums of one file."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies

    def enum(self, scope: Scope, index: int) -> None:
        """An enum with its values."""
        bodies = self._bodies
        enum = scope.holder.enum_type[index]
        path = (*scope.path, scope.enum_number, index)
        if not enum.value:
            raise bodies.error(f"the enum {enum.name!r} has no value")
        head = bodies.head("enum", enum.name, enum.visibility)
        with bodies.out.block(head, bodies.at.comments(path)):
            bodies.options(enum.options, join(scope.name, enum.name), (*path, _OPTIONS))
            # unlike those of messages, these ranges have their last number in them
            spans = [ranges([(each.start, each.end)], _MAX_INT32) for each in enum.reserved_range]
            names = bodies.fields.reserved_names(enum.reserved_name)
            bodies.write(
                itertools.chain(
                    self._values(scope, index),
                    bodies.reserved((*path, _RESERVED), spans),
                    bodies.reserved((*path, _RESERVED_NAME), names),
                )
            )

    def _values(self, scope: Scope, enum: int) -> Iterator[Statement]:
        path = (*scope.path, scope.enum_number, enum, _VALUE)
        for index in range(len(scope.holder.enum_type[enum].value)):
            write = partial(self.value, scope, enum, index)
            position = self._bodies.at.start((*path, index))
            yield Statement(position, Rank.FIELD, [("value", index)], write)

    def value(self, scope: Scope, enum: int, index: int) -> None:
        """A value of an enum, both by their positions."""
        bodies = self._bodies
        value = scope.holder.enum_type[enum].value[index]
        if value.name in _STATEMENTS:
            raise bodies.error(f"{value.name!r} cannot be an enum's value in a .proto file")
        head = f"{bodies.fields.identifier(value.name)} = {value.number}"
        lines = bodies.bracketed(head, value.options, join(scope.name, value.name))
        bodies.ended(lines, (*scope.path, scope.enum_number, enum, _VALUE, index))
