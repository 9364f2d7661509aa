"""What a schema can be loaded from, told apart and read.

A source is one of
  * a path: a .proto file, a folder or glob of them, or a descriptor set (plain or gzipped);
  * ``package:NAME/PATH``: a file or folder inside an installed package, NAME being an import name
    or a distribution's name;
  * the text of a .proto file;
  * a ``FileDescriptorSet``, or its bytes;
  * a module that protoc generated (``*_pb2``).

Nothing is compiled here and no import is followed: see ``imports`` for that.
"""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, Union

from google.protobuf.message import Message

from dynserve.errors import DescriptorError, SourceError

from .descriptors import join

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

__all__ = ["DescriptorSet", "ProtoSource", "Source", "collect", "read", "tidy"]

# Paths are plain texts here: pathlib takes 3 ms to import, a good part of a start from the cache.

Source: TypeAlias = Union[str, "os.PathLike[str]", bytes, Message, ModuleType]

SET_SUFFIXES = (".binpb", ".pb", ".protoset", ".desc", ".bin")
_MAX_SIZE = 1 << 30  # bytes of one file, and what a gzipped descriptor set may grow to
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class ProtoSource(NamedTuple):
    """One .proto file that was asked for.

    ``root`` is the import root that the source implies (the folder that was named), None where
    only the file itself was. Inline text has no ``path``, and ``text`` in its place.
    """

    path: str | None
    root: str | None = None
    text: bytes | None = None
    label: str = ""

    def __str__(self) -> str:
        return self.label or str(self.path)


class DescriptorSet(NamedTuple):
    """A serialised ``google.protobuf.FileDescriptorSet`` and what to call it in an error."""

    label: str
    data: bytes


def collect(
    sources: Iterable[Source], search: Sequence[str | os.PathLike[str]] = ()
) -> tuple[list[ProtoSource], list[DescriptorSet]]:
    """Tell the sources apart and find the files they stand for, in the order of the sources.

    ``search`` has the folders in which a relative path is looked up after the working directory.

    Raises:
        SourceError: a source is missing, empty or of a type that cannot be loaded.
        DescriptorError: a descriptor set cannot be unpacked.
    """
    protos: dict[object, ProtoSource] = {}
    sets: list[DescriptorSet] = []
    for source in sources:
        for item in _one(source, search, len(protos)):
            if isinstance(item, DescriptorSet):
                sets.append(item)
            else:
                known = protos.setdefault(item.path or item, item)
                if known.root is None:  # the folder named beside its file tells the root
                    protos[item.path or item] = item
    return list(protos.values()), sets


def _one(
    source: Source, search: Sequence[str | os.PathLike[str]], count: int
) -> Iterable[ProtoSource | DescriptorSet]:
    match source:
        case "":
            raise SourceError("''", "an empty text is no source; the working directory is '.'")
        case bytes():
            return [DescriptorSet("descriptor set", _inflate("descriptor set", source))]
        case str() if _is_text(source):
            label = f"inline_{count + 1}.proto"
            return [ProtoSource(None, text=source.encode(errors="surrogatepass"), label=label)]
        case str() if source.startswith("package:"):
            return _in_package(source)
        case str() | os.PathLike():
            return _paths(os.fspath(source), search)
        case Message() if source.DESCRIPTOR.full_name == "google.protobuf.FileDescriptorSet":
            return [DescriptorSet("FileDescriptorSet", source.SerializeToString())]
        case ModuleType() if hasattr(source, "DESCRIPTOR"):
            return [_module(source)]
    import reprlib  # only once something is wrong

    kind = type(source).__name__
    raise SourceError(
        reprlib.repr(source) or kind,  # an empty message has no text
        f"an object of type {kind} cannot be loaded; give a path, 'package:NAME/PATH', the text"
        " of a .proto file, a FileDescriptorSet or its bytes, or a generated _pb2 module",
    )


def _is_text(source: str) -> bool:
    return "\n" in source or (source.lstrip().startswith(("syntax", "edition")) and ";" in source)


def _paths(
    path: str, search: Sequence[str | os.PathLike[str]]
) -> Iterable[ProtoSource | DescriptorSet]:
    # An absolute path swallows what it is joined to; abspath() takes the '..' out of it.
    tried = [os.path.abspath(os.path.join(base, path)) for base in (os.getcwd(), *search)]
    tried = list(dict.fromkeys(tried))
    for candidate in tried:
        if os.path.isdir(candidate):
            return _folder(candidate, path)
        if os.path.exists(candidate):
            return [_file(candidate, None)]
        if _is_glob(path):
            import glob

            found = sorted(glob.glob(candidate, recursive=True))
            if found:  # a folder that '**' finds has a slash at its end
                return _flatten(map(tidy, found), _fixed_part(candidate))
    if _is_glob(path):
        raise SourceError(tidy(path), "matches no file")
    places = ", ".join(os.path.dirname(place) for place in tried)
    raise SourceError(tidy(path), f"no such file or folder (looked in {places})")


def tidy(path: str) -> str:
    """The path without what says nothing, as pathlib writes it; '..' stays, it may follow a link.

    Paths that are compared are all like this.
    """
    if os.path.normpath(path) == path:
        return path
    from pathlib import Path

    return str(Path(path))


def _is_glob(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _fixed_part(pattern: str) -> str:
    """The folder that a glob starts in: it tells files of one name in several folders apart."""
    folder = os.path.dirname(pattern)
    while _is_glob(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder


def _flatten(found: Iterable[str], root: str) -> Iterator[ProtoSource | DescriptorSet]:
    for path in found:
        if os.path.isdir(path):
            yield from _folder(path, path)
        else:
            yield _file(path, root)


def _folder(folder: str, label: str) -> list[ProtoSource]:
    files = [
        os.path.join(parent, name)
        for parent, folders, names in os.walk(folder)
        for name in names
        # hidden files are an editor's locks and a file manager's notes
        if not _prune(folders) and name.endswith(".proto") and not name.startswith(".")
    ]
    if not files:
        label = label if label.startswith("package:") else tidy(label)
        raise SourceError(label, "the folder has no .proto file in it")
    files.sort(key=lambda path: path.split(os.sep))  # what is in a folder stays together
    return [ProtoSource(path, folder) for path in files]


def _prune(folders: list[str]) -> bool:
    """Keep ``os.walk`` out of hidden folders; always False, so that it serves as a condition."""
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    return False


def _file(path: str, root: str | None) -> ProtoSource | DescriptorSet:
    name = os.path.basename(path).removesuffix(".gz")
    if name.endswith(".proto"):
        return ProtoSource(path, root)
    if name.endswith(SET_SUFFIXES):
        return DescriptorSet(path, _inflate(path, read(path)))
    known = ", ".join((".proto", *SET_SUFFIXES))
    raise SourceError(path, f"not a schema source by its name; expected one of {known}")


def read(path: str) -> bytes:
    """The content of a regular file; anything else could block for ever, or never end.

    Raises:
        SourceError: it is none, is too large or cannot be read.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise SourceError(path, f"cannot be read: {kind}, not a regular file")
        if status.st_size > _MAX_SIZE:
            raise SourceError(path, f"is larger than {_MAX_SIZE >> 20} MiB")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise SourceError(path, f"cannot be read: {error.strerror}") from error


def _inflate(label: str, data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    import zlib  # seldom needed

    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(data, _MAX_SIZE)
    except zlib.error as error:
        raise DescriptorError(label, f"damaged gzip data: {error}") from error
    if inflater.unconsumed_tail:
        raise DescriptorError(label, f"inflates to more than {_MAX_SIZE >> 20} MiB")
    if not inflater.eof:
        raise DescriptorError(label, "damaged gzip data: the end is missing")
    return inflated


def _in_package(source: str) -> Iterable[ProtoSource | DescriptorSet]:
    name, _, rest = source.removeprefix("package:").partition("/")
    if not name:
        raise SourceError(source, "no package is named; write package:NAME/PATH")
    if _leads_out(rest):
        raise SourceError(source, f"{rest!r} is not a path inside the package")
    folders = _package_folders(name)
    if not folders:
        return _in_distribution(source, name, rest)
    for folder in folders:
        path = tidy(os.path.join(folder, rest)) if rest else folder
        if os.path.isdir(path):
            return _folder(path, source)
        if os.path.isfile(path):
            return [_file(path, None)]
    lacks = f"has no {rest!r}" if rest else "is not a folder"
    places = ", ".join(folders)
    raise SourceError(source, f"package {name!r} {lacks} (looked in {places})")


def _leads_out(path: str) -> bool:
    parts = path.replace(os.sep, "/").split("/")
    return ".." in parts or os.path.isabs(path) or bool(os.path.splitdrive(path)[0])


def _package_folders(name: str) -> list[str]:
    """The folders of a package that can be imported; none where there is no such package."""
    if not all(part.isidentifier() for part in name.split(".")):
        return []
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: a module without a spec, as __main__ is
        return []
    return [tidy(place) for place in spec.submodule_search_locations or ()] if spec else []


def _in_distribution(source: str, name: str, rest: str) -> Sequence[ProtoSource | DescriptorSet]:
    """A file, or all .proto files below a folder, of what was installed under that name.

    The folder that it was installed to is the import root; it holds other distributions too.
    """
    from importlib import metadata  # slow to import, seldom needed

    try:
        distribution = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        raise SourceError(
            source, f"no package {name!r} is installed, by import or other name"
        ) from None
    root = tidy(str(distribution.locate_file("")))
    path = tidy(os.path.join(root, rest))
    if os.path.isfile(path):
        return [_file(path, root)]
    below = f"{rest.rstrip('/')}/" if rest else ""
    names = sorted(
        file.as_posix()
        for file in distribution.files or ()
        # what was installed outside the root ('../../bin/x') has no name below it
        if file.suffix == ".proto" and file.as_posix().startswith(below) and ".." not in file.parts
    )
    if not names:
        where = f" in {rest!r}" if rest else ""
        raise SourceError(source, f"{name!r} has no .proto file{where} (looked in {root})")
    return [ProtoSource(os.path.join(root, *file.split("/")), root) for file in names]


def _module(module: ModuleType) -> DescriptorSet:
    ordered: dict[str, bytes] = {}
    _with_dependencies(module.DESCRIPTOR, ordered)
    return DescriptorSet(module.__name__, join(ordered.values()))


def _with_dependencies(file: FileDescriptor, ordered: dict[str, bytes]) -> None:
    for dependency in file.dependencies:
        if dependency.name not in ordered:
            _with_dependencies(dependency, ordered)
    ordered[file.name] = file.serialized_pb
