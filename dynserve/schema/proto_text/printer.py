"""One method for each element of a .proto file: descriptor → statement.

https://protobuf.dev/reference/protobuf/proto2-spec/, …/proto3-spec/, …/edition-2023-spec/
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .bodies import Bodies
from .enums import EnumPrinter
from .literals import is_full_name, quote, ranges
from .names import Names, join
from .order import Rank, Statement
from .scope import Scope
from .source import Path

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        FieldDescriptorProto,
        FileDescriptorProto,
        MethodDescriptorProto,
    )

    from dynserve.schema.schema import Schema

__all__ = ["Printer"]

# Field numbers of google/protobuf/descriptor.proto, for the paths of source locations.
_PACKAGE, _DEPENDENCY, _SERVICE, _FILE_OPTIONS, _SYNTAX, _OPTION_DEPENDENCY = 2, 3, 6, 8, 12, 15
_FIELD, _RANGE, _MESSAGE_OPTIONS, _ONEOF, _RESERVED, _RESERVED_NAME = 2, 5, 7, 8, 9, 10
_ONEOF_OPTIONS = 2
_METHOD, _SERVICE_OPTIONS, _METHOD_OPTIONS = 2, 3, 4

_MAX_NUMBER, _MAX_INT32 = (1 << 29) - 1, (1 << 31) - 1  # the former is that of a field
_FIRST_EDITION = 1000  # of those that a file can name


class Printer:
    """Writes the elements of one file to ``out``.

    Raises:
        DescriptorError: the file has something that no .proto file can have.
    """

    def __init__(self, schema: Schema, file: FileDescriptorProto, names: Names) -> None:
        self._bodies = Bodies(schema, file, names)
        self._at = self._bodies.at
        self.out = self._bodies.out
        self.fields = self._bodies.fields
        self.enums = EnumPrinter(self._bodies)
        self.root = Scope.of_file(file)
        self._file = file
        self._names = names

    # ---- the file

    def file(self) -> None:
        """All of it."""
        package = self._file.package
        self.out.statement([self._syntax()], self._at.comments((_SYNTAX,)))
        if package:
            if not is_full_name(package):
                raise self._bodies.error(f"{package!r} cannot be a package in a .proto file")
            self.out.gap()
            self.out.statement([f"package {package};"], self._at.comments((_PACKAGE,)))
        self.out.gap()
        self._imports()
        self.out.gap()
        self._bodies.options(self._file.options, package, (_FILE_OPTIONS,))
        self._bodies.write(self._file_statements())

    def _syntax(self) -> str:
        syntax = self._file.syntax or "proto2"
        if syntax in ("proto2", "proto3"):
            return f'syntax = "{syntax}";'
        editions: Any = self._file.DESCRIPTOR.fields_by_name["edition"].enum_type
        edition = self._file.edition
        if syntax != "editions" or edition < _FIRST_EDITION:
            problem = f"its syntax {syntax!r} or its edition is not known to this protobuf"
            raise self._bodies.error(problem)
        name = editions.values_by_number[edition].name.removeprefix("EDITION_")
        return f'edition = "{name}";'

    def _imports(self) -> None:
        file = self._file
        words = dict.fromkeys(file.weak_dependency, "weak ")
        words.update(dict.fromkeys(file.public_dependency, "public "))
        for number, name in enumerate(file.dependency):
            text = f"import {words.get(number, '')}{quote(name)};"
            self.out.statement([text], self._at.comments((_DEPENDENCY, number)))
        for number, name in enumerate(file.option_dependency):
            text = f"import option {quote(name)};"
            if self._names.sees(name):
                self.out.statement([text], self._at.comments((_OPTION_DEPENDENCY, number)))
            else:  # a schema may be without: only option values need it
                self.out.remark([f"{text} is not in the schema"])

    def _file_statements(self) -> Iterator[Statement]:
        for index in range(len(self._file.service)):
            position = self._at.start((_SERVICE, index))
            write = partial(self.service, index)
            yield Statement(position, Rank.SERVICE, [("service", index)], write)
        yield from self._types_and_extensions(self.root)

    # ---- services

    def service(self, index: int) -> None:
        """A service with its methods."""
        service = self._file.service[index]
        path = (_SERVICE, index)
        head = self._bodies.head("service", service.name)
        with self.out.block(head, self._at.comments(path)):
            scope = join(self.root.name, service.name)
            self._bodies.options(service.options, scope, (*path, _SERVICE_OPTIONS))
            for number in range(len(service.method)):
                self.method(index, number)

    def method(self, service: int, index: int) -> None:
        """A method of a service, both by their positions."""
        owner = self._file.service[service]
        method = owner.method[index]
        path = (_SERVICE, service, _METHOD, index)
        head = self._method_head(method, join(self.root.name, owner.name))
        comments = self._at.comments(path)
        if not method.HasField("options"):  # an empty body, too, makes some
            self.out.statement([f"{head};"], comments)
            return
        with self.out.block([head], comments):
            scope = join(join(self.root.name, owner.name), method.name)
            self._bodies.options(method.options, scope, (*path, _METHOD_OPTIONS))

    def _method_head(self, method: MethodDescriptorProto, scope: str) -> str:
        request, response = (
            ("stream " if is_stream else "") + self.fields.reference(name, scope)
            for is_stream, name in (
                (method.client_streaming, method.input_type),
                (method.server_streaming, method.output_type),
            )
        )
        return f"rpc {self.fields.identifier(method.name)}({request}) returns ({response})"

    # ---- messages

    def message(self, scope: Scope, index: int) -> None:
        """A message type that is declared by itself, not by a field."""
        message = scope.types[index]
        if message.options.map_entry:
            raise self._bodies.error(f"{message.name!r} is a map's entry, but no map has it")
        inner = scope.inner(index)
        head = self._bodies.head("message", message.name, message.visibility)
        with self.out.block(head, self._at.comments(inner.path)):
            self._message_body(inner)

    def _message_body(self, scope: Scope) -> None:
        message = scope.holder
        self._bodies.options(message.options, scope.name, (*scope.path, _MESSAGE_OPTIONS))
        maximum = _max_number(message)
        spans = [ranges([(each.start, each.end - 1)], maximum) for each in message.reserved_range]
        names = self.fields.reserved_names(message.reserved_name)
        self._bodies.write(
            itertools.chain(
                self._field_statements(scope),
                self._types_and_extensions(scope),
                self._range_statements(scope),
                self._bodies.reserved((*scope.path, _RESERVED), spans),
                self._bodies.reserved((*scope.path, _RESERVED_NAME), names),
            )
        )

    def _field_statements(self, scope: Scope) -> Iterator[Statement]:
        for index, field in enumerate(scope.holder.field):
            if not self.fields.in_oneof(field):
                yield self._field_statement(scope, [index], partial(self.field, scope, index))
        for members in self.oneofs(scope).values():
            yield self._field_statement(scope, members, partial(self.oneof, scope, members))

    def _field_statement(
        self, scope: Scope, members: Sequence[int], write: Callable[[], None]
    ) -> Statement:
        """One of a field, or of the fields of a oneof."""
        fields = [scope.holder.field[index] for index in members]
        elements = [("field", index) for index in members]
        elements += [("type", made) for made in self._made(scope, fields)]
        if self.fields.in_oneof(fields[0]):
            elements.append(("oneof", fields[0].oneof_index))
        position = self._at.start((*scope.path, _FIELD, members[0]))
        return Statement(position, Rank.FIELD, elements, write)

    def _made(self, scope: Scope, fields: Iterable[FieldDescriptorProto]) -> list[int]:
        """The types that declarations of fields make."""
        made = (self.fields.made_by(scope, field) for field in fields)
        return [index for index in made if index is not None]

    def oneofs(self, scope: Scope) -> dict[int, list[int]]:
        """The positions of the fields of each oneof, those that proto3's ``optional`` makes not."""
        fields = scope.holder.field
        used = {field.oneof_index for field in fields if field.HasField("oneof_index")}
        if used != set(range(len(scope.holder.oneof_decl))):
            problem = f"{scope.name!r} has a oneof without fields, or a field without its oneof"
            raise self._bodies.error(problem)
        members: dict[int, list[int]] = {}
        for index, field in enumerate(fields):
            if self.fields.in_oneof(field):
                members.setdefault(field.oneof_index, []).append(index)
        return members

    def oneof(self, scope: Scope, members: Sequence[int]) -> None:
        """The oneof that these fields are of, by their positions."""
        number = scope.holder.field[members[0]].oneof_index
        oneof = scope.holder.oneof_decl[number]
        path = (*scope.path, _ONEOF, number)
        head = self._bodies.head("oneof", oneof.name)
        with self.out.block(head, self._at.comments(path)):
            name = join(scope.name, oneof.name)
            self._bodies.options(oneof.options, name, (*path, _ONEOF_OPTIONS))
            for index in members:
                self.field(scope, index)

    def field(self, scope: Scope, index: int) -> None:
        """A field of a message, not of a oneof's alone."""
        self._declare(scope, scope.holder.field[index], (*scope.path, _FIELD, index))

    def _declare(self, scope: Scope, field: FieldDescriptorProto, path: Path) -> None:
        """A field or an extension; of a group with its body."""
        lines = self.fields.lines(scope, field)
        made = self.fields.made_by(scope, field)
        if made is None or not self.fields.is_group(field):
            self._bodies.ended(lines, path)
            return
        inner = scope.inner(made)
        with self.out.block(lines, self._at.comments(inner.path)):
            self._message_body(inner)

    def _range_statements(self, scope: Scope) -> Iterator[Statement]:
        """Extension ranges; options in brackets are those of all ranges of a statement."""
        message = scope.holder
        path = (*scope.path, _RANGE)

        def statement_of(index: int) -> tuple[int, bytes]:
            options = message.extension_range[index].options
            return self._at.statement(path, (*path, index)), options.SerializeToString()

        indexes = range(len(message.extension_range))
        for (statement, _), group in itertools.groupby(indexes, statement_of):
            items = list(group)
            write = partial(self._extension_ranges, scope, items, statement)
            elements = [("range", index) for index in items]
            yield Statement(self._at.start((*path, items[0])), Rank.RANGE, elements, write)

    def _extension_ranges(self, scope: Scope, indexes: Sequence[int], statement: int) -> None:
        declared = [scope.holder.extension_range[index] for index in indexes]
        pairs = ((each.start, each.end - 1) for each in declared)
        head = f"extensions {ranges(pairs, _max_number(scope.holder))}"
        lines = self._bodies.bracketed(head, declared[0].options, scope.name)
        self._bodies.ended(lines, (*scope.path, _RANGE), statement)

    # ---- what files and messages have alike

    def _types_and_extensions(self, scope: Scope) -> Iterator[Statement]:
        holder = scope.holder
        fields = [*holder.extension, *getattr(holder, "field", ())]
        made = set(self._made(scope, fields))
        for index in range(len(scope.types)):
            if index not in made:
                position = self._at.start((*scope.path, scope.types_number, index))
                write = partial(self.message, scope, index)
                yield Statement(position, Rank.TYPE, [("type", index)], write)
        for index in range(len(holder.enum_type)):
            position = self._at.start((*scope.path, scope.enum_number, index))
            write = partial(self.enums.enum, scope, index)
            yield Statement(position, Rank.ENUM, [("enum", index)], write)
        path = (*scope.path, scope.extension_number)

        def block_of(index: int) -> tuple[int, str]:
            return self._at.statement(path, (*path, index)), holder.extension[index].extendee

        for _, group in itertools.groupby(range(len(holder.extension)), block_of):
            items = list(group)
            elements = [("extension", index) for index in items]
            made_here = self._made(scope, (holder.extension[index] for index in items))
            elements += [("type", index) for index in made_here]
            position = self._at.start((*path, items[0]))
            yield Statement(position, Rank.EXTENSION, elements, partial(self.extend, scope, items))

    def extend(self, scope: Scope, indexes: Sequence[int]) -> None:
        """Extensions of one message type, by their positions in the scope that declares them."""
        path = (*scope.path, scope.extension_number)
        first = scope.holder.extension[indexes[0]]
        head = f"extend {self.fields.reference(first.extendee, scope.name)}"
        statement = self._at.statement(path, (*path, indexes[0]))
        with self.out.block([head], self._at.comments(path, statement)):
            for index in indexes:
                self._declare(scope, scope.holder.extension[index], (*path, index))


def _max_number(message: DescriptorProto) -> int:
    """What ``max`` is in a message: the last number of a field; a message set has its own."""
    return _MAX_INT32 - 1 if message.options.message_set_wire_format else _MAX_NUMBER
