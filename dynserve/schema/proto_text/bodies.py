"""What the bodies of files, messages, enums and services have alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from dynserve.errors import DescriptorError

from .fields import FieldTexts
from .literals import bracketed
from .names import Names
from .options import OptionTexts, Setting
from .order import Rank, Statement, arranged
from .source import Locations, Path
from .writer import Writer

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.message import Message

    from dynserve.schema.schema import Schema

__all__ = ["Bodies"]

_VISIBILITIES = {1: "local ", 2: "export "}  # SymbolVisibility


class Bodies:
    """Writes statements of one file to ``out``, with the comments that are ``at`` them."""

    def __init__(self, schema: Schema, file: FileDescriptorProto, names: Names) -> None:
        self.out = Writer()
        self.at = Locations(file.source_code_info)
        self._options = OptionTexts(schema, names)
        self.fields = FieldTexts(file, names, self._options)
        self._file = file.name

    def error(self, problem: str) -> DescriptorError:
        """For what no .proto file can have."""
        return DescriptorError(self._file, problem)

    def head(self, keyword: str, name: str, visibility: int = 0) -> list[str]:
        """The line in front of a body."""
        return [f"{_VISIBILITIES.get(visibility, '')}{keyword} {self.fields.identifier(name)}"]

    def ended(self, lines: Sequence[str], path: Path, statement: int = 0) -> None:
        """A statement without a body; ``statement`` tells it from others that have its path."""
        self.out.statement([*lines[:-1], f"{lines[-1]};"], self.at.comments(path, statement))

    def bracketed(self, head: str, options: Message, scope: str) -> list[str]:
        """A statement with its options in brackets; ``scope`` is the element's full name."""
        settings, remarks = self._options.read(options, scope)
        return bracketed(head, [setting.text() for setting in settings], remarks)

    def options(self, options: Message, scope: str, path: Path) -> None:
        """``option`` statements in the order of the source, else of their numbers."""
        settings, remarks = self._options.read(options, scope)
        self.out.remark(remarks)
        self.write(self._setting((*path, *setting.path), setting) for setting in settings)
        if settings:
            self.out.gap()

    def _setting(self, path: Path, setting: Setting) -> Statement:
        first, *rest = setting.text()
        write = partial(self.ended, [f"option {first}", *rest], path)
        element = (setting.name, setting.path[-1])  # the values of a repeated option have an order
        return Statement(self.at.start(path), Rank.OPTION, [element], write)

    def reserved(self, path: Path, texts: Sequence[str]) -> Iterator[Statement]:
        """``reserved`` statements as they stood in the source, else one.

        ``path`` is that of numbers or of names, ``texts`` has each of them.
        """

        def statement_of(index: int) -> int:
            return self.at.statement(path, (*path, index))

        for statement, group in itertools.groupby(range(len(texts)), statement_of):
            items = list(group)
            line = f"reserved {', '.join(texts[index] for index in items)}"
            write = partial(self.ended, [line], path, statement)
            elements = [(f"reserved {path[-1]}", index) for index in items]
            yield Statement(self.at.start((*path, items[0])), Rank.RESERVED, elements, write)

    def write(self, statements: Iterable[Statement]) -> None:
        """All of them, arranged."""
        for statement in arranged(statements):
            statement.write()
