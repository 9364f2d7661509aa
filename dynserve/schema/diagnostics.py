"""What protoc says, as diagnostics: with the source line, without its echoes, with what would help.

One mistake makes protoc say several things: a file that is not found is reported as missing, as a
failed import, and by every name that should have come from it. What only repeats is left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from dynserve.errors import Diagnostic

from .hints import Hints
from .imports import SourceTree

__all__ = ["parse"]

_MAX_SHOWN = 1000  # errors, and warnings: more say nothing, and a minified file has one per word
_TAB = 8  # protoc counts columns in bytes, and a tab as far as the next multiple of this
_MAX_NAME = 8192  # characters in which a file's name ends: no system has longer paths
_MISSING = ": File not found."
_END = re.compile(": ")
_POSITION = re.compile(r":(\d+):(\d+): ")
_NOT_FOUND = re.compile(r'Import "(.*)" was not found or had errors\.$', re.DOTALL)
_UNDEFINED = re.compile(
    r'"(?P<type>[\w.]+)" (?:(?P<only>is not defined\.)|is resolved to |seems to be defined in )'
    r'|Option "(?P<option>\([\w.]+\))" unknown\.'
)
_TWICE = re.compile(r'"[\w.]+" is already defined in file "(.*)"\.', re.DOTALL)
_NO_LABEL = 'Expected "required", "optional", or "repeated".'
_LOG = re.compile(r"[IWEF]\d{4} [\d:.]+ +\d+ [^\]]+\] (.*)", re.DOTALL)  # of protoc's own library
_LOG_HEAD = "WARNING: All log messages before absl::InitializeLog() is called"
_NO_SYNTAX = re.compile(r"No edition or syntax specified for the proto file: (.*)\. Please use .*")
_PROTO2 = "no syntax or edition is given, so it is proto2"


class _Line(NamedTuple):
    """What was said of which file; ``row`` and ``column`` are protoc's, 0 where it gave none."""

    name: str
    message: str
    row: int = 0
    column: int = 0

    @property
    def is_warning(self) -> bool:
        return self.message.startswith("warning: ")

    @property
    def imports(self) -> str | None:
        """The import that failed."""
        failed = _NOT_FOUND.match(self.message)
        return failed[1] if failed else None


def parse(text: str, tree: SourceTree) -> list[Diagnostic]:
    """protoc's lines as diagnostics, in its order."""
    for name in tree.texts:  # a name may hold a line break, but no NUL
        if "\n" in name:
            text = text.replace(name, name.replace("\n", "\0"))
    lines = dict.fromkeys(line for line in text.split("\n") if line.strip())
    said = [
        _parse_line(line.replace("\0", "\n"), tree)
        for line in lines
        if not line.startswith(_LOG_HEAD)
    ]
    hints = Hints(tree)
    return _shown(_without_echoes(said, tree, hints), tree, _Hinter(said, hints, tree))


def _parse_line(line: str, tree: SourceTree) -> _Line:
    logged = _LOG.fullmatch(line)
    if logged is not None:
        no_syntax = _NO_SYNTAX.fullmatch(logged[1])
        said = _PROTO2 if no_syntax else logged[1]
        return _Line(no_syntax[1] if no_syntax else "protoc", f"warning: {said}")
    if line.endswith(_MISSING):
        return _Line(line.removesuffix(_MISSING), _MISSING)
    position = _known(_POSITION.finditer(line, 0, _MAX_NAME), line, tree)
    if position is not None:
        place = int(position[1]), int(position[2])
        return _Line(line[: position.start()], line[position.end() :], *place)
    end = _known(_END.finditer(line, 0, _MAX_NAME), line, tree)
    return _Line(line[: end.start()], line[end.end() :]) if end else _Line("protoc", line)


def _known(ends: Iterable[re.Match[str]], line: str, tree: SourceTree) -> re.Match[str] | None:
    """Where a file's name ends: a name may look like a position, so one we know is preferred."""
    found = list(ends)
    known = (end for end in found if line[: end.start()] in tree.texts)
    return next(known, found[0] if found else None)


def _without_echoes(said: list[_Line], tree: SourceTree, hints: Hints) -> list[_Line]:
    wrong = {line.name for line in said if not line.is_warning}
    failed: defaultdict[str, set[str]] = defaultdict(set)  # by file: its imports that failed
    for line in said:
        if line.imports is not None:
            failed[line.name].add(line.imports)
    unfound = {name for names in failed.values() for name in names if name not in tree.texts}

    def is_echo(line: _Line) -> bool:
        if line.imports is not None:  # 'Import "x.proto" had errors', and these are shown
            return line.imports in tree.texts and line.imports in wrong
        if line.name in unfound:  # 'x.proto: File not found.'
            return True
        name = _UNDEFINED.match(line.message)
        if name is None or line.name not in failed:
            return False
        # It may be the failed import that defines it.
        return not hints.is_apart(name["type"] or name["option"], failed[line.name])

    return [line for line in said if not is_echo(line)] or said


class _Hinter:
    """What would help with a line; what was said of a file once is not said again."""

    def __init__(self, said: Iterable[_Line], hints: Hints, tree: SourceTree) -> None:
        self.hints = hints
        self.tree = tree
        self.old = {line.name for line in said if line.message == f"warning: {_PROTO2}"}
        self.given: set[tuple[str, str]] = set()

    def hint(self, line: _Line) -> str:
        if line.imports is not None:
            return "" if line.imports in self.tree.texts else self.hints.of_import(line.imports)
        if (line.name, line.message) in self.given:
            return ""
        self.given.add((line.name, line.message))
        return self._once(line)

    def _once(self, line: _Line) -> str:
        if line.message == _NO_LABEL and line.name in self.old:
            return 'without a syntax line a file is proto2; does it lack `syntax = "proto3";`?'
        twice = _TWICE.fullmatch(line.message)
        path = self.tree.paths.get(line.name)
        if twice is not None and path is not None and path == self.tree.paths.get(twice[1]):
            names = f'"{twice[1]}" and "{line.name}"'
            return f"it is one file that is imported as {names}; import it by one name"
        name = _UNDEFINED.match(line.message)
        if name is None or not (name["only"] or name["option"]):
            return ""
        return self.hints.of_name(name["type"] or name["option"], line.name)


def _shown(said: list[_Line], tree: SourceTree, hinter: _Hinter) -> list[Diagnostic]:
    lines = _SourceLines(tree)
    shown = []
    left = {True: _MAX_SHOWN, False: _MAX_SHOWN}
    for line in said:
        left[line.is_warning] -= 1
        if left[line.is_warning] < 0:
            continue
        source, decoded = lines.get(line.name, line.row)
        message = line.message
        if line.imports is not None and line.imports not in tree.texts:
            message = f'Import "{line.imports}" was not found.'
        column = _characters(source, line.column)
        place = tree.place(line.name)
        shown.append(Diagnostic(place, line.row, column, message, decoded, hinter.hint(line)))
    for is_warning, kind in ((False, "errors"), (True, "warning: warnings")):
        if left[is_warning] < 0:
            more = f"{kind} that are not shown: {-left[is_warning]}"
            shown.append(Diagnostic("protoc", 0, 0, more))
    return shown


class _SourceLines:
    """Lines of the texts; a text is split once, however many diagnostics are about it."""

    def __init__(self, tree: SourceTree) -> None:
        self.tree = tree
        self.split: dict[str, list[bytes]] = {}
        self.decoded: dict[tuple[str, int], str] = {}

    def get(self, name: str, row: int) -> tuple[bytes, str]:
        # An import can mean any file: one that is no .proto is not shown, it may hold a secret.
        if not row or not name.endswith(".proto"):
            return b"", ""
        if name not in self.split:
            self.split[name] = self.tree.texts.get(name, b"").split(b"\n")  # as protoc counts them
        lines = self.split[name]
        line = lines[row - 1] if row <= len(lines) else b""
        if (name, row) not in self.decoded:
            self.decoded[name, row] = line.decode(errors="replace").rstrip("\r")
        return line, self.decoded[name, row]


def _characters(line: bytes, column: int) -> int:
    """protoc's column of a source line, counted in characters."""
    if not line:
        return column
    width = position = 0
    while position < len(line) and width < column - 1:
        tab = line.find(b"\t", position)
        run = min((tab if tab >= 0 else len(line)) - position, column - 1 - width)
        position += run
        width += run
        if position == tab and width < column - 1:
            position += 1
            width += _TAB - width % _TAB
    return len(line[:position].decode(errors="ignore")) + 1
