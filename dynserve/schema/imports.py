"""Which file every import means, and under which name every file is compiled.

protoc knows a file by its path below an import root, so naming the roots is naming the files. With
``include`` the roots are given, searched in that order as protoc does. Without, they are inferred:
a file's imports are looked for in the folder that was named as a source, then in the folder of the
importing file and those above it, as far as the working directory or the repository; what a file
is imported as is its name, and one name cannot stand for two files. The well-known types and the
googleapis common protos always resolve, and buf/validate/validate.proto where protovalidate is
installed.

The result is closed: every text that a compilation can read is in it, so it can be hashed and laid
out anywhere.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dynserve.errors import SourceError

from .evidence import Evidence
from .sources import ProtoSource, read, tidy
from .validate_proto import NAME as RULES
from .validate_proto import rules_path, rules_text

__all__ = ["SourceTree", "find_root", "from_here", "resolve"]

# One pass over the text in time proportional to its length, whatever is in it: comments and strings
# are stepped over whole, and a comment may stand wherever a space may. Where a comment ends is
# never a choice, or a search that fails would try every choice. Expressions are compiled when they
# are first needed: that takes time, and a schema may have no import.
COMMENT = rb"//[^\n]*(?=\n|\Z)|/\*[^*]*(?:\*+[^*/][^*]*)*(?:\*+/|\**\Z)"
_DOUBLE, _SINGLE = rb"\"[^\"\\\n]*(?:\\.[^\"\\\n]*)*", rb"'[^'\\\n]*(?:\\.[^'\\\n]*)*"
STRING = _DOUBLE + rb"\"?|" + _SINGLE + rb"'?"  # one that is not closed ends with its line
_KINDS = (b"public", b"weak", b"option")
_MAX_SEARCHED = 20_000  # folder entries that the search for a hint may look at
_WAYS_OUT = "name the root that tells them apart (include=… or -I), or load them as two schemas"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class SourceTree(NamedTuple):
    """A closed set of .proto texts by name.

    ``wanted`` are the names that were asked for, ``texts`` has them and all they import. ``paths``
    has the place of each on disk (inline text has none), ``roots`` what was searched.
    """

    wanted: tuple[str, ...]
    texts: dict[str, bytes]
    paths: dict[str, str]
    roots: tuple[str, ...]

    def place(self, name: str) -> str:
        """The file as a person would write it: relative to the working directory, or whole."""
        path = self.paths.get(name)
        return name if path is None else from_here(path)


def resolve(
    protos: Sequence[ProtoSource], include: Sequence[str], evidence: Evidence
) -> SourceTree:
    """Name the files and follow their imports; ``include`` are absolute paths.

    An import that is found nowhere is left out: protoc reports it, with its line.

    Raises:
        SourceError: a file cannot be read, or two files would have one name.
    """
    return _Resolver(protos, include, evidence).run()


def from_here(path: str) -> str:
    """The path from the working directory on where it is in it, else the whole."""
    folder = os.getcwd()
    return _below(path, folder) if is_below(path, folder) else path


def is_below(path: str, folder: str) -> bool:
    """Whether the path leads to something in the folder, or in a folder in it."""
    return path.startswith(os.path.join(folder, ""))


def _below(path: str, folder: str) -> str:
    return path[len(os.path.join(folder, "")) :]


def _name_below(path: str, root: str) -> str:
    return _below(path, root).replace(os.sep, "/")


class _Resolver:
    def __init__(
        self, protos: Sequence[ProtoSource], include: Sequence[str], evidence: Evidence
    ) -> None:
        self.evidence = evidence
        self.protos = protos
        self.include = tuple(include)
        self.folders = tuple(dict.fromkeys(p.root for p in protos if p.root is not None))
        self.texts: dict[str, bytes] = {}
        self.paths: dict[str, str] = {}
        self.names: dict[str, str] = {}  # what a file is imported as
        self.roots: dict[str, None] = dict.fromkeys((*self.include, *self.folders))
        self.own_root: dict[str, str] = {}  # the root a file's imports were found in
        # by import and importing folder: the root that has it, and the file
        self.found: dict[tuple[str, str | None], tuple[str, str] | None] = {}
        self.above: dict[str | None, Sequence[str]] = {}  # inferred roots by importing folder
        self.read: dict[str, bytes] = {}
        self.rules: str | None = None  # what stands for the file that rules are written with

    def run(self) -> SourceTree:
        contents = {proto: self._text(proto) for proto in self.protos}
        for root in self.include:
            if not self.evidence.is_folder(root):
                raise SourceError(root, "an include root must be a folder")
        self._follow(contents)
        wanted = tuple(self._name(proto, text) for proto, text in contents.items())
        return SourceTree(wanted, self.texts, self.paths, (*self.roots, *builtin_roots()))

    def _text(self, proto: ProtoSource) -> bytes:
        return proto.text or b"" if proto.path is None else self._read(proto.path)

    def _read(self, path: str) -> bytes:
        if path not in self.read:
            self.evidence.uses(path)
            self.read[path] = text = rules_text() if path == self.rules else read(path)
            if text.startswith(_UTF16):
                raise SourceError(path, "is UTF-16; save it as UTF-8")
        return self.read[path]

    def _follow(self, contents: Mapping[ProtoSource, bytes]) -> None:
        todo = deque((str(proto), proto.path, text) for proto, text in contents.items())
        followed: set[str | None] = {path for _, path, _ in todo}
        while todo:
            label, importer, text = todo.popleft()
            folder = os.path.dirname(importer) if importer else None
            for name in imports_of(text):
                found = self._find(name, folder)
                if found is None:
                    continue
                root, path = found
                self._remember_root(importer, root)
                if self._is_new(name, path, label):
                    self.texts[name] = self._read(path)
                    self.paths[name] = path
                    self.names.setdefault(path, name)
                    if path not in followed:
                        followed.add(path)
                        todo.append((path, path, self.texts[name]))

    def _is_new(self, name: str, found: str, label: str) -> bool:
        """Whether to take this file for the import; another one of that name must be alike.

        Of an installed file and the user's own copy, of another version maybe, the copy counts.
        """
        if name not in self.texts:
            return True
        known = self.paths[name]
        if known == found or self._is_builtin(found, name):
            return False
        if not self._is_builtin(known, name) and self.texts[name] != self._read(found):
            problem = f"imports {found} as {name!r}, and so is {known}; {_WAYS_OUT}"
            raise SourceError(label, problem)
        return self._is_builtin(known, name)

    def _is_builtin(self, path: str, name: str) -> bool:
        installed = (os.path.join(root, *name.split("/")) for root in builtin_roots())
        return path == self.rules or path in installed

    def _find(self, name: str, folder: str | None) -> tuple[str, str] | None:
        """The root and the file for an import of a file in that folder; not each has a root."""
        if (name, folder) not in self.found:
            self.found[name, folder] = self._search(name, folder)
        return self.found[name, folder]

    def _search(self, name: str, folder: str | None) -> tuple[str, str] | None:
        if not is_canonical(name):
            return None  # protoc refuses it; nothing outside a root is ever touched
        if folder not in self.above:
            self.above[folder] = self._inferred(folder)
        for root in (*self.include, *self.folders, *self.above[folder], *builtin_roots()):
            path = os.path.join(root, *name.split("/"))
            if self.evidence.is_file(path):
                return root, path
        if name == RULES:
            self.rules = rules_path()
            if self.rules is not None and self.evidence.is_file(self.rules):
                return "", self.rules
        self.roots.update(dict.fromkeys(self.above[folder]))  # searched in vain: the error says so
        return None

    def _inferred(self, folder: str | None) -> Sequence[str]:
        """The folders from the importing file's up, as far as the working directory or repository.

        None where roots were given. The root of the file system is not one: ``import "etc/passwd"``
        reads nothing. Nor is one above the file in which every user can put files, such as /tmp.
        """
        cwd = os.getcwd()
        if folder is None:
            return (cwd,)
        climbed: list[str] = []
        if any(root == folder or is_below(folder, root) for root in self.include):
            return climbed

        def is_shared(folder_above: str) -> bool:
            own = folder_above in (folder, cwd)
            return not own and self.evidence.is_shared(folder_above)

        above = folder
        while above != os.path.dirname(above) and not is_shared(above):
            climbed.append(above)
            if above == cwd or self.evidence.exists(os.path.join(above, ".git")):
                break
            above = os.path.dirname(above)
        return climbed

    def _remember_root(self, importer: str | None, root: str) -> None:
        if not root or root in builtin_roots():
            return
        self.roots.setdefault(root)
        if importer is not None and importer not in self.own_root and is_below(importer, root):
            self.own_root[importer] = root

    def _name(self, proto: ProtoSource, text: bytes) -> str:
        name, path = self._name_of(proto), proto.path
        if name in self.texts and (path is None or self.paths.get(name) != path):
            if self.texts[name] == text:
                return name
            raise SourceError(
                str(proto),
                f"would be compiled as {name!r}, and so would {self.paths.get(name, name)};"
                f" {_WAYS_OUT}",
            )
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise SourceError(repr(str(proto)), "the file's name is not UTF-8") from error
        self.texts[name] = text
        if path is not None:
            self.paths[name] = path
        return name

    def _name_of(self, proto: ProtoSource) -> str:
        if proto.path is None:
            return proto.label
        if proto.path in self.names:
            return self.names[proto.path]
        for root in self.include:
            if is_below(proto.path, root):
                return _name_below(proto.path, root)
        for root in builtin_roots():
            if is_below(proto.path, os.path.join(root, "google")):
                return _name_below(proto.path, root)  # everyone imports these by this name
        root = self.own_root.get(proto.path) or proto.root or os.path.dirname(proto.path)
        self.roots.setdefault(root)
        return _name_below(proto.path, root)


def imports_of(text: bytes) -> list[str]:
    """The names that a .proto text imports."""
    names = (_unescaped(b"".join(strings)) for strings in _import_strings(text))
    return [name.decode(errors="replace") for name in names if name]


def _import_strings(text: bytes) -> Iterator[list[bytes]]:
    """The strings behind each word import; side by side they are one name."""
    last = text.rfind(b"import")
    if last < 0:
        return
    strings: list[bytes] | None = None  # behind the word that was found
    may_be_kind, end = False, 0
    for token in _token().finditer(text):
        word = token[1]
        if strings is not None:
            between, end = text[end : token.start()], token.end()
            if not between.strip():
                if text.startswith(b"/", token.start()):
                    continue
                if token[2] or token[3]:
                    strings.append(token[0][1:-1])
                    may_be_kind = False
                    continue
                if may_be_kind and word in _KINDS:
                    may_be_kind = False
                    continue
            yield strings
            strings = None
        if word == b"import":
            strings, may_be_kind, end = [], True, token.end()
        elif token.start() > last:
            return
    if strings is not None:
        yield strings


@functools.cache
def _token() -> re.Pattern[bytes]:
    """A comment, a word of an import (1), or a string, with the quote that closes it (2, 3)."""
    words = b"|".join((b"import", *_KINDS))
    return re.compile(
        COMMENT + rb"|\b(" + words + rb")\b|" + _DOUBLE + rb"(\")?|" + _SINGLE + rb"(')?"
    )


def _unescaped(name: bytes) -> bytes:
    if b"\\" not in name:
        return name
    return re.sub(rb"\\(?:[xX]([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", _character, name)


def _character(escape: re.Match[bytes]) -> bytes:
    """What an escape stands for; no name has one of those that a letter stands for."""
    if escape[3]:
        return escape[3]
    return bytes([int(escape[1], 16) if escape[1] else int(escape[2], 8) & 0xFF])


def is_canonical(name: str) -> bool:
    """Whether this is the name of a file below a root, as protoc sees it: nothing climbs out."""
    odd = {"", ".", ".."} & set(name.split("/"))
    return not odd and "\\" not in name and not os.path.splitdrive(name)[0]


@functools.cache
def builtin_roots() -> tuple[str, ...]:
    """Where the well-known types and the googleapis common protos are installed."""
    roots = []
    tools = importlib.util.find_spec("grpc_tools")
    if tools is not None and tools.submodule_search_locations:
        roots.append(tidy(os.path.join(tools.submodule_search_locations[0], "_proto")))
    common = importlib.util.find_spec("google.rpc")
    if common is not None and common.submodule_search_locations:
        folder = tidy(next(iter(common.submodule_search_locations)))
        roots.append(os.path.dirname(os.path.dirname(folder)))
    return tuple(roots)


def find_installed(name: str) -> ProtoSource | None:
    """The well-known or common file of that name, or that of rules; None where there is none."""
    if is_canonical(name) and name.endswith(".proto"):
        for root in builtin_roots():
            path = os.path.join(root, *name.split("/"))
            if os.path.isfile(path):
                return ProtoSource(path, root)
    if name == RULES and rules_path() is not None:
        return ProtoSource(None, text=rules_text(), label=RULES)
    return None


def find_root(name: str, near: Iterable[str]) -> str | None:
    """A folder below ``near`` that would make the import ``name`` resolve, for an error's hint."""
    if not is_canonical(name):
        return None
    folders = (folder for _, folder, _ in _walk(near))
    return next((f for f in folders if os.path.isfile(os.path.join(f, name))), None)


def names_below(roots: Iterable[str]) -> list[str]:
    """The names of .proto files below the roots, for an error's hint; of many files not all."""
    starts = {
        os.path.join(root, "google") if root in builtin_roots() else root: root for root in roots
    }
    return [
        os.path.relpath(os.path.join(folder, file), starts[start]).replace(os.sep, "/")
        for start, folder, files in _walk(starts)
        for file in files
        if file.endswith(".proto")
    ]


def _walk(starts: Iterable[str]) -> Iterator[tuple[str, str, list[str]]]:
    """Folders below the starts with their files: none that is hidden, and not too many."""
    left = _MAX_SEARCHED
    for start in dict.fromkeys(starts):
        for folder, folders, files in os.walk(start):
            yield start, folder, files
            folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "node_modules")
            left -= len(folders) + len(files)
            if left < 0:
                return
