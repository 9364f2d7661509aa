"""Which file every import means, and under which name every file is compiled.

protoc knows a file by its path below an import root, so naming the roots is naming the files. With
``include`` the roots are given, searched in that order as protoc does. Without, they are inferred:
a file's imports are looked for in the folder that was named as a source, then in the folder of the
importing file and those above it, as far as the working directory or the repository; what a file
is imported as is its name. The well-known types and the googleapis common protos always resolve.

The result is closed: every text that a compilation can read is in it, so it can be hashed and laid
out anywhere.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dynserve.errors import SourceError

from .sources import ProtoSource

__all__ = ["SourceTree", "find_root", "resolve"]

# One pass over the text in time proportional to its length, whatever is in it: comments and strings
# are stepped over whole, and a comment may stand wherever a space may.
_COMMENT = rb"//[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/|\Z)"
_STRING = rb"\"(?:[^\"\\\n]|\\.)*\"?|'(?:[^'\\\n]|\\.)*'?"
_TOKEN = re.compile(rb"(?:" + _COMMENT + rb"|" + _STRING + rb")|\b(import)\b")
_SPACE = rb"(?:\s|" + _COMMENT + rb")*"
_IMPORTED = re.compile(
    _SPACE + rb"(?:(?:public|weak|option)\b" + _SPACE + rb")?(?:\"([^\"\n]+)\"|'([^'\n]+)')"
)
_MAX_SEARCHED = 20_000  # folder entries that the search for a hint may look at


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

    def run(self) -> SourceTree:
        contents = {proto: self._read_source(proto) for proto in self.protos}
        for root in self.include:
            if not root.is_dir():
                raise SourceError(str(root), "an include root must be a folder")
        self._follow((proto.path, text) for proto, text in contents.items())
        wanted = tuple(self._name(proto, text) for proto, text in contents.items())
        return SourceTree(wanted, self.texts, self.paths, (*self.roots, *builtin_roots()))

    @staticmethod
    def _read_source(proto: ProtoSource) -> bytes:
        return proto.text if proto.path is None else _read(proto.path)  # type: ignore[return-value]

    def _follow(self, contents: Iterable[tuple[Path | None, bytes]]) -> None:
        todo = deque(contents)
        while todo:
            importer, text = todo.popleft()
            for name in imports_of(text):
                if name in self.texts:
                    self._remember_root(importer, self.paths[name], name)
                    continue
                found = self._find(name, importer)
                if found is None:
                    continue
                self._remember_root(importer, found, name)
                self.texts[name] = _read(found)
                self.paths[name] = found
                self.names.setdefault(found, name)
                todo.append((found, self.texts[name]))

    def _find(self, name: str, importer: Path | None) -> Path | None:
        if not _is_canonical(name):
            return None  # protoc refuses it; nothing outside a root is ever touched
        roots = (*self.include, *self.folders, *self._above(importer), *builtin_roots())
        for root in roots:
            path = root / name
            if os.path.isfile(path):  # unlike Path.is_file, False for a name no system can hold
                return path
        return None

    def _above(self, importer: Path | None) -> Iterator[Path]:
        """Inferred roots: the folders from the importing file up; none where roots were given.

        The root of the file system is not one: ``import "etc/passwd"`` reads nothing.
        """
        if importer is None:
            yield Path.cwd()
        elif not any(root in importer.parents for root in self.include):
            cwd = Path.cwd()
            for folder in importer.parents[:-1]:
                yield folder
                if folder == cwd or (folder / ".git").exists():
                    return

    def _remember_root(self, importer: Path | None, found: Path, name: str) -> None:
        root = Path(str(found)[: -len(name) - 1] or "/")
        if root in builtin_roots():
            return
        self.roots.setdefault(root)
        if importer is not None and root in importer.parents:
            self.own_root.setdefault(importer, root)

    def _name(self, proto: ProtoSource, text: bytes) -> str:
        name, path = self._name_of(proto), proto.path
        if name in self.texts and (path is None or self.paths.get(name) != path):
            if self.texts[name] == text:
                return name
            raise SourceError(
                str(proto),
                f"would be compiled as {name!r}, and so would {self.paths.get(name, name)}; name"
                " the root that tells them apart (include=… or -I), or load them as two schemas",
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


def imports_of(text: bytes) -> list[str]:
    """The names that a .proto text imports."""
    found = []
    for token in _TOKEN.finditer(text):
        name = _IMPORTED.match(text, token.end()) if token[1] else None
        if name is not None:
            found.append((name[1] or name[2]).decode(errors="replace"))
    return found


def _is_canonical(name: str) -> bool:
    """Whether protoc takes this as the name of a file below a root."""
    return "\\" not in name and not {"", ".", ".."} & set(name.split("/"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(str(path), f"cannot be read: {error.strerror}") from error


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
    if _is_canonical(name) and name.endswith(".proto"):
        for root in builtin_roots():
            if os.path.isfile(root / name):
                return ProtoSource(root / name, root)
    return None


def find_root(name: str, near: Iterable[Path]) -> Path | None:
    """A folder below ``near`` that would make the import ``name`` resolve, for an error's hint."""
    if not _is_canonical(name):
        return None
    left = _MAX_SEARCHED
    for start in dict.fromkeys(near):
        for folder, folders, files in os.walk(start):
            if os.path.isfile(os.path.join(folder, name)):
                return Path(folder)
            folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "node_modules")
            left -= len(folders) + len(files)
            if left < 0:
                return None
    return None
