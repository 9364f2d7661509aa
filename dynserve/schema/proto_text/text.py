"""The text of a whole file, and of one element of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from google.protobuf.message import DecodeError

from dynserve.errors import DescriptorError, SymbolError
from dynserve.schema.descriptors import parse_file
from dynserve.schema.symbols import symbols_of

from .names import FullNames, Names, join
from .printer import Printer
from .scope import Scope

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    from dynserve.schema.schema import Schema

__all__ = ["file_text", "symbol_text"]

_Element: TypeAlias = tuple[str, Callable[[], None]]  # a full name, and what writes it


def file_text(schema: Schema, file: str) -> str:
    """The .proto text of a file of the schema, which compiles to equal descriptors again.

    Comments stand where they stood, as ``//`` lines. An option that the schema does not know has a
    comment in its place, so has an ``import option`` of a file that is not there.

    Raises:
        KeyError: there is no such file.
        DescriptorError: it has something that no .proto file can have, or is damaged.
    """
    printer = _printer(schema, file, Names)
    printer.file()
    return printer.out.text()


def symbol_text(schema: Schema, symbol: str) -> str:
    """The .proto text of one element with its comments; types and options have full names.

    An extension comes in its ``extend`` block. A map's entry is the map field, a group and its type
    are one.

    Args:
        schema: where it is looked up.
        symbol: the full name of a service, method, message, field, oneof, enum, value or extension.

    Raises:
        SymbolError: there is no such element.
        DescriptorError: its file has something that no .proto file can have, or is damaged.
    """
    file = schema.index.file_of(symbol)
    if file is None:
        raise SymbolError("symbol", symbol, schema.index.symbols())
    printer = _printer(schema, file, FullNames)
    write = dict(_elements(printer)).get(symbol)
    if write is None:
        raise SymbolError("symbol", symbol, symbols_of(parse_file(schema.index.stripped(file))))
    write()
    return printer.out.text()


def _printer(schema: Schema, file: str, names: Callable[..., Names]) -> Printer:
    try:
        parsed = parse_file(schema.index.raw(file))
    except DecodeError as error:  # all else was parsed when the schema was loaded
        raise DescriptorError(file, f"damaged source locations: {error}") from error
    try:
        known = names(schema.index, parsed)
    except TypeError as error:  # a name came as bytes, which is what protobuf makes of it
        raise DescriptorError(file, "a name in it is not UTF-8") from error
    return Printer(schema, parsed, known)


def _elements(printer: Printer) -> Iterator[_Element]:
    """Every element of a file; of two with one name the later one counts."""
    root = printer.root
    for index, service in enumerate(root.holder.service):
        name = join(root.name, service.name)
        yield name, partial(printer.service, index)
        for number, method in enumerate(service.method):
            yield join(name, method.name), partial(printer.method, index, number)
    yield from _in_scope(printer, root)


def _in_scope(printer: Printer, scope: Scope) -> Iterator[_Element]:
    for index, message in enumerate(scope.types):
        yield join(scope.name, message.name), partial(printer.message, scope, index)
        inner = scope.inner(index)
        yield from _in_scope(printer, inner)
        yield from _fields(printer, inner)
    for index, enum in enumerate(scope.holder.enum_type):
        yield join(scope.name, enum.name), partial(printer.enums.enum, scope, index)
        for number, value in enumerate(enum.value):
            write = partial(printer.enums.value, scope, index, number)
            yield join(scope.name, value.name), write
            yield join(join(scope.name, enum.name), value.name), write
    for index, extension in enumerate(scope.holder.extension):
        write = partial(printer.extend, scope, [index])
        yield join(scope.name, extension.name), write
        yield from _made(printer, scope, extension, write)


def _fields(printer: Printer, scope: Scope) -> Iterator[_Element]:
    oneofs = scope.holder.oneof_decl
    for number, members in printer.oneofs(scope).items():
        yield join(scope.name, oneofs[number].name), partial(printer.oneof, scope, members)
    for index, field in enumerate(scope.holder.field):
        write = partial(printer.field, scope, index)
        yield join(scope.name, field.name), write
        if field.proto3_optional and field.HasField("oneof_index"):  # which was made for it
            yield join(scope.name, oneofs[field.oneof_index].name), write
        yield from _made(printer, scope, field, write)


def _made(
    printer: Printer, scope: Scope, field: FieldDescriptorProto, write: Callable[[], None]
) -> Iterator[_Element]:
    """The type that a field's own declaration makes."""
    made = printer.fields.made_by(scope, field)
    if made is not None:
        yield join(scope.name, scope.types[made].name), write
