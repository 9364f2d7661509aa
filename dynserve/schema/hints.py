"""What a .proto file with an error lacks: the file that was meant, the type, the import for it."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from functools import cached_property

from dynserve.errors import nearest

from .imports import (
    COMMENT,
    STRING,
    SourceTree,
    builtin_roots,
    find_root,
    from_here,
    imports_of,
    is_canonical,
    names_below,
)
from .sources import read

__all__ = ["Hints"]

_MAX_HINTS = 20  # imports, and names, that are looked for: enough to see what is wrong
_MAX_COMPARED = 1000  # names that are compared with the scalars
_MAX_DEPTH = 100  # of braces; protoc takes no more
_MAX_SCANNED = 8 << 20  # bytes of sources that are searched for a name
_DECLARED = re.compile(
    rb"(?:" + COMMENT + rb"|" + STRING + rb")"
    rb"|\bpackage\s+(?P<package>[\w.]+)"
    rb"|\b(?:message|enum)\s+(?P<type>\w+)\s*\{"
    rb"|\b(?P<extend>extend)\s+[\w.]+\s*\{"
    rb"|(?P<open>\{)|(?P<close>\})"
    rb"|\b(?P<field>\w+)\s*="
)
_SCALARS = (
    *("string", "bytes", "bool", "double", "float", "int32", "int64", "uint32", "uint64"),
    *("sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64"),
)
_ELSEWHERE = {  # what scalars are called in other languages
    **dict.fromkeys(("int", "integer", "short", "i32"), "int32"),
    **dict.fromkeys(("long", "i64"), "int64"),
    **dict.fromkeys(("uint", "u32"), "uint32"),
    **dict.fromkeys(("ulong", "u64"), "uint64"),
    **dict.fromkeys(("str", "text", "varchar"), "string"),
    **dict.fromkeys(("float32", "f32"), "float"),
    **dict.fromkeys(("float64", "f64", "number", "decimal"), "double"),
    **dict.fromkeys(("boolean",), "bool"),
    **dict.fromkeys(("byte", "blob"), "bytes"),
    **dict.fromkeys(("datetime",), "google.protobuf.Timestamp"),
}


class Hints:
    """Hints on a tree that did not compile; what takes a search is searched once, and bounded."""

    def __init__(self, tree: SourceTree) -> None:
        self.tree = tree
        self._imports: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._like_scalars: dict[str, bool] = {}

    def of_import(self, name: str) -> str:
        """On an import that is not found."""
        if name not in self._imports:
            enough = len(self._imports) >= _MAX_HINTS
            self._imports[name] = "" if enough else "\n".join(self._find_file(name))
        return self._imports[name]

    def of_name(self, name: str, file: str) -> str:
        """On a type, or an option in its parentheses, that the file uses and does not know."""
        if (name, file) not in self._names:
            enough = len(self._names) >= _MAX_HINTS
            self._names[name, file] = "" if enough else self._find_name(name, file)
        return self._names[name, file]

    def is_apart(self, name: str, failed: Iterable[str]) -> bool:
        """Whether a name that is not defined is none that the failed imports can have defined."""
        if name in self._installed or name.removeprefix(".") in self._installed:
            return not any(other.startswith("google/") for other in failed)
        if name not in self._like_scalars and len(self._like_scalars) < _MAX_COMPARED:
            near = name.islower() and "." not in name
            near = near and bool(nearest(name, (*_SCALARS, *_ELSEWHERE), 1))
            self._like_scalars[name] = near
        return self._like_scalars.get(name, False)

    # ---- files

    def _find_file(self, name: str) -> Iterator[str]:
        root = None
        if not is_canonical(name):
            yield "an import names a file below a root: it has no '\\', '.', '..' or empty part"
        else:
            folders = map(os.path.dirname, self.tree.paths.values())
            root = find_root(name, (os.getcwd(), *folders))
        if root is None:
            meant = posixpath.normpath(name.replace("\\", "/")).lstrip("./").removesuffix(".proto")
            files = {file.removesuffix(".proto"): file for file in self._files}
            near = nearest(meant, _beside(meant, files, "/"), 2)
            if near:
                yield f"did you mean {_quoted(files[other] for other in near)}?"
        roots = [root for root in self.tree.roots if root not in builtin_roots()]
        yield f"searched: {', '.join((*map(_shown, roots), 'the installed google/… files'))}"
        if root is not None:
            yield f"this import would resolve with `-I {_path(root)}`"

    @cached_property
    def _files(self) -> list[str]:
        own = (root for root in self.tree.roots if root not in builtin_roots())
        return [*self.tree.texts, *names_below(own), *names_below(builtin_roots())]

    # ---- names

    def _find_name(self, name: str, file: str) -> str:
        package, own = _declared(self.tree.texts.get(file, b""))
        inner = name.strip("()")
        scopes = [""] if inner.startswith(".") else [*_scopes(package)]
        for scope in scopes:
            full = scope + inner.removeprefix(".")
            full = f"({full})" if inner != name else full
            if full in self._known:
                return self._import_for(full, file)
        if inner != name:
            return ""
        prefix = f"{package}." if package else ""
        here = [other.removeprefix(prefix) for other in own if not other.startswith("(")]
        types = [other.removeprefix(prefix) for other in self._known if not other.startswith("(")]
        also = _ELSEWHERE.get(inner.lower())
        # scalars are lower-case: 'Missing' is no mistyped 'string', but 'String' is
        scalars = _SCALARS if inner.islower() or inner.lower() in _SCALARS else ()
        names = dict.fromkeys((*here, *scalars, *_beside(inner, types, ".")))
        near = [also] if also else nearest(inner, names, 2)
        if not near:
            return ""
        if near[0] in (*here, *_SCALARS):
            return f"did you mean {_quoted(near)}?"
        full = near[0] if near[0] in self._known else prefix + near[0]
        return f"did you mean {_quoted(near[:1])}? {self._import_for(full, file)}".rstrip()

    def _import_for(self, full: str, file: str) -> str:
        other = self._known[full]
        imported = other == file or other in imports_of(self.tree.texts.get(file, b""))
        return "" if imported else f'add import "{other}";'

    @cached_property
    def _known(self) -> dict[str, str]:
        """The files by what they declare: those of this tree, and those installed."""
        known: dict[str, str] = {}
        left = _MAX_SCANNED
        for file, text in self.tree.texts.items():
            left -= len(text)
            if left < 0:
                break
            known.update(dict.fromkeys(_declared(text)[1], file))
        return self._installed | known

    @cached_property
    def _installed(self) -> dict[str, str]:
        known = {}
        for file in names_below(builtin_roots()):
            for root in builtin_roots():
                path = os.path.join(root, *file.split("/"))
                if os.path.isfile(path):
                    known.update(dict.fromkeys(_declared(read(path))[1], file))
        return known


def _declared(text: bytes) -> tuple[str, list[str]]:
    """The package, and the full names of messages, enums and, in parentheses, extensions."""
    package, names = "", []
    scopes: list[str | None] = []  # of the open braces: a type's name, or an extend's None
    for token in _DECLARED.finditer(text):
        if len(scopes) > _MAX_DEPTH:
            break
        kind, word = token.lastgroup, token[token.lastgroup or 0].decode(errors="replace")
        inside = [package, *filter(None, scopes)]
        if kind == "package" and not scopes:
            package = word
        elif kind == "type":
            names.append(".".join(filter(None, (*inside, word))))
            scopes.append(word)
        elif kind in ("extend", "open"):
            scopes.append(None if kind == "extend" else "")
        elif kind == "close" and scopes:
            scopes.pop()
        elif kind == "field" and scopes[-1:] == [None]:
            names.append(f"({'.'.join(filter(None, (*inside, word)))})")
    return package, names


def _scopes(package: str) -> Iterator[str]:
    """What may stand in front of a name in the package, the innermost first."""
    while package:
        yield f"{package}."
        package = package.rpartition(".")[0]
    yield ""


def _beside(name: str, others: Iterable[str], separator: str) -> list[str]:
    """Those of the same folder or package, and those of the same last part anywhere."""
    above, _, last = name.rpartition(separator)
    parts = ((other, other.rpartition(separator)) for other in others)
    return [o for o, part in parts if part[0] == above or part[2].lower() == last.lower()]


def _quoted(names: Iterable[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)


def _shown(path: str) -> str:
    return "the working directory" if path == os.getcwd() else from_here(path)


def _path(path: str) -> str:
    return "." if path == os.getcwd() else from_here(path)
