"""Which file every import means, and under which name every file is compiled.

protoc knows a file by its path below an import root, so naming the roots is naming the files. With
``include`` the roots are given, searched in that order as protoc does. Without, they are inferred:
a file's imports are looked for in the folder that was named as a source, then in the folder of the
importing file and those above it, as far as the working directory or the repository; what a file
is imported as is its name, and one name cannot stand for two files. The well-known types and the
googleapis common protos always resolve.

The result is closed: every text that a compilation can read is in it, so it can be hashed and laid
out anywhere.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dynserve.errors import SourceError

from .sources import ProtoSource, read

__all__ = ["SourceTree", "find_root", "resolve"]

# One pass over the text in time proportional to its length, whatever is in it: comments and strings
# are stepped over whole, and a comment may stand wherever a space may. Where a comment ends is
# never a choice, or a search that fails would try every choice.
COMMENT = rb"//[^\n]*(?=\n|\Z)|/\*[^*]*(?:\*+[^*/][^*]*)*(?:\*+/|\**\Z)"
_DOUBLE, _SINGLE = rb"\"[^\"\\\n]*(?:\\.[^\"\\\n]*)*", rb"'[^'\\\n]*(?:\\.[^'\\\n]*)*"
STRING = _DOUBLE + rb"\"?|" + _SINGLE + rb"'?"  # one that is not closed ends with its line
_CLOSED = rb"(?:" + _DOUBLE + rb"\"|" + _SINGLE + rb"')"
_TOKEN = re.compile(rb"(?:" + COMMENT + rb"|" + STRING + rb")|\b(import)\b")
_SPACE = rb"(?:\s|" + COMMENT + rb")*"
_KIND = rb"(?:(?:public|weak|option)\b" + _SPACE + rb")?"
# strings side by side are one
_IMPORTED = re.compile(_SPACE + _KIND + rb"(" + _CLOSED + rb"(?:" + _SPACE + _CLOSED + rb")*)")
_PIECE = re.compile(COMMENT + rb"|(" + _CLOSED + rb")")
_ESCAPE = re.compile(rb"\\(?:[xX]([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))")
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
    paths: dict[str, Path]
    roots: tuple[Path, ...]

    def place(self, name: str) -> str:
        """The file as a person would write it: relative to the working directory, or whole."""
        path = self.paths.get(name)
        if path is None:
            return name
        try:
            return str(path.relative_to(Path.cwd()))
        except ValueError:
            return str(path)


def resolve(protos: Sequence[ProtoSource], include: Sequence[Path] = ()) -> SourceTree:
    """Name the files and follow their imports.

    An import that is found nowhere is left out: protoc reports it, with its line.

    Raises:
        SourceError: a file cannot be read, or two files would have one name.
    """
    return _Resolver(protos, [Path(os.path.abspath(root)) for root in include]).run()


class _Found(NamedTuple):
    """A file, and the root that an import found it below."""

    root: Path
    path: Path


class _Resolver:
    def __init__(self, protos: Sequence[ProtoSource], include: Sequence[Path]) -> None:
        self.protos = protos
        self.include = tuple(include)
        self.folders = tuple(dict.fromkeys(p.root for p in protos if p.root is not None))
        self.texts: dict[str, bytes] = {}
        self.paths: dict[str, Path] = {}
        self.names: dict[Path, str] = {}  # what a file is imported as
        self.roots: dict[Path, None] = dict.fromkeys((*self.include, *self.folders))
        self.own_root: dict[Path, Path] = {}  # the root a file's imports were found in
        self.found: dict[tuple[str, Path | None], _Found | None] = {}  # by import, importing folder
        self.above: dict[Path | None, Sequence[Path]] = {}  # inferred roots by importing folder
        self.read: dict[Path, bytes] = {}

    def run(self) -> SourceTree:
        contents = {proto: self._text(proto) for proto in self.protos}
        for root in self.include:
            if not root.is_dir():
                raise SourceError(str(root), "an include root must be a folder")
        self._follow(contents)
        wanted = tuple(self._name(proto, text) for proto, text in contents.items())
        return SourceTree(wanted, self.texts, self.paths, (*self.roots, *builtin_roots()))

    def _text(self, proto: ProtoSource) -> bytes:
        return proto.text or b"" if proto.path is None else self._read(proto.path)

    def _read(self, path: Path) -> bytes:
        if path not in self.read:
            self.read[path] = text = read(path)
            if text.startswith(_UTF16):
                raise SourceError(str(path), "is UTF-16; save it as UTF-8")
        return self.read[path]

    def _follow(self, contents: Mapping[ProtoSource, bytes]) -> None:
        todo = deque((str(proto), proto.path, text) for proto, text in contents.items())
        followed: set[Path | None] = {path for _, path, _ in todo}
        while todo:
            label, importer, text = todo.popleft()
            folder = importer.parent if importer else None
            for name in imports_of(text):
                found = self._find(name, folder)
                if found is None:
                    continue
                self._remember_root(importer, found.root)
                if self._is_new(name, found.path, label):
                    self.texts[name] = self._read(found.path)
                    self.paths[name] = found.path
                    self.names.setdefault(found.path, name)
                    if found.path not in followed:
                        followed.add(found.path)
                        todo.append((str(found.path), found.path, self.texts[name]))

    def _is_new(self, name: str, found: Path, label: str) -> bool:
        """Whether to take this file for the import; another one of that name must be alike.

        Of an installed file and the user's own copy, of another version maybe, the copy counts.
        """
        if name not in self.texts:
            return True
        known = self.paths[name]
        if known == found or _is_builtin(found, name):
            return False
        if not _is_builtin(known, name) and self.texts[name] != self._read(found):
            problem = f"imports {found} as {name!r}, and so is {known}; {_WAYS_OUT}"
            raise SourceError(label, problem)
        return _is_builtin(known, name)

    def _find(self, name: str, folder: Path | None) -> _Found | None:
        """The file for an import of a file in that folder."""
        if (name, folder) not in self.found:
            self.found[name, folder] = self._search(name, folder)
        return self.found[name, folder]

    def _search(self, name: str, folder: Path | None) -> _Found | None:
        if not is_canonical(name):
            return None  # protoc refuses it; nothing outside a root is ever touched
        if folder not in self.above:
            self.above[folder] = self._inferred(folder)
        for root in (*self.include, *self.folders, *self.above[folder], *builtin_roots()):
            path = os.path.join(root, name)
            if os.path.isfile(path):  # unlike Path.is_file, False for a name no system can hold
                return _Found(root, Path(path))
        self.roots.update(dict.fromkeys(self.above[folder]))  # searched in vain: the error says so
        return None

    def _inferred(self, folder: Path | None) -> Sequence[Path]:
        """The folders from the importing file's up, as far as the working directory or repository.

        None where roots were given. The root of the file system is not one: ``import "etc/passwd"``
        reads nothing. Nor is one above the file in which every user can put files, such as /tmp.
        """
        cwd = Path.cwd()
        if folder is None:
            return (cwd,)
        climbed: list[Path] = []
        if any(root == folder or root in folder.parents for root in self.include):
            return climbed

        def is_shared(folder_above: Path) -> bool:
            own = folder_above in (folder, cwd)
            return not own and bool(folder_above.stat().st_mode & stat.S_ISVTX)

        above = folder
        while above != above.parent and not is_shared(above):
            climbed.append(above)
            if above == cwd or os.path.exists(above / ".git"):
                break
            above = above.parent
        return climbed

    def _remember_root(self, importer: Path | None, root: Path) -> None:
        if root in builtin_roots():
            return
        self.roots.setdefault(root)
        if importer is not None and importer not in self.own_root and root in importer.parents:
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
            if root in proto.path.parents:
                return proto.path.relative_to(root).as_posix()
        for root in builtin_roots():
            if root / "google" in proto.path.parents:  # everyone imports these by this name
                return proto.path.relative_to(root).as_posix()
        root = self.own_root.get(proto.path) or proto.root or proto.path.parent
        self.roots.setdefault(root)
        return proto.path.relative_to(root).as_posix()


def _is_builtin(path: Path, name: str) -> bool:
    return any(path == root / name for root in builtin_roots())


def imports_of(text: bytes) -> list[str]:
    """The names that a .proto text imports."""
    found = []
    for token in _TOKEN.finditer(text):
        strings = _IMPORTED.match(text, token.end()) if token[1] else None
        if strings is not None:
            pieces = (piece[1][1:-1] for piece in _PIECE.finditer(strings[1]) if piece[1])
            name = _ESCAPE.sub(_unescaped, b"".join(pieces)).decode(errors="replace")
            if name:
                found.append(name)
    return found


def _unescaped(escape: re.Match[bytes]) -> bytes:
    """A character of an import's name; no name has one of those that a letter stands for."""
    if escape[3]:
        return escape[3]
    return bytes([int(escape[1], 16) if escape[1] else int(escape[2], 8) & 0xFF])


def is_canonical(name: str) -> bool:
    """Whether this is the name of a file below a root, as protoc sees it: nothing climbs out."""
    odd = {"", ".", ".."} & set(name.split("/"))
    return not odd and "\\" not in name and not os.path.splitdrive(name)[0]


@functools.cache
def builtin_roots() -> tuple[Path, ...]:
    """Where the well-known types and the googleapis common protos are installed."""
    roots = []
    tools = importlib.util.find_spec("grpc_tools")
    if tools is not None and tools.submodule_search_locations:
        roots.append(Path(tools.submodule_search_locations[0]) / "_proto")
    common = importlib.util.find_spec("google.rpc")
    if common is not None and common.submodule_search_locations:
        roots.append(Path(next(iter(common.submodule_search_locations))).parents[1])
    return tuple(roots)


def find_installed(name: str) -> ProtoSource | None:
    """The well-known or common file of that name; None where there is none."""
    if is_canonical(name) and name.endswith(".proto"):
        for root in builtin_roots():
            if os.path.isfile(root / name):
                return ProtoSource(root / name, root)
    return None


def find_root(name: str, near: Iterable[Path]) -> Path | None:
    """A folder below ``near`` that would make the import ``name`` resolve, for an error's hint."""
    if not is_canonical(name):
        return None
    folders = (folder for _, folder, _ in _walk(near))
    return next((Path(f) for f in folders if os.path.isfile(os.path.join(f, name))), None)


def names_below(roots: Iterable[Path]) -> list[str]:
    """The names of .proto files below the roots, for an error's hint; of many files not all."""
    starts = {root / "google" if root in builtin_roots() else root: root for root in roots}
    return [
        Path(os.path.relpath(os.path.join(folder, file), starts[start])).as_posix()
        for start, folder, files in _walk(starts)
        for file in files
        if file.endswith(".proto")
    ]


def _walk(starts: Iterable[Path]) -> Iterator[tuple[Path, str, list[str]]]:
    """Folders below the starts with their files: none that is hidden, and not too many."""
    left = _MAX_SEARCHED
    for start in dict.fromkeys(starts):
        for folder, folders, files in os.walk(start):
            yield start, folder, files
            folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "node_modules")
            left -= len(folders) + len(files)
            if left < 0:
                return
