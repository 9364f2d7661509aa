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

import glob
import importlib.util
import os
import reprlib
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, Union

from google.protobuf.message import Message

from dynserve.errors import DescriptorError, SourceError

from .descriptors import join

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

__all__ = ["Collection", "DescriptorSet", "ProtoSource", "Source", "collect", "read"]

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

    path: Path | None
    root: Path | None = None
    text: bytes | None = None
    label: str = ""

    def __str__(self) -> str:
        return self.label or str(self.path)


class DescriptorSet(NamedTuple):
    """A serialised ``google.protobuf.FileDescriptorSet`` and what to call it in an error."""

    label: str
    data: bytes


class Collection(NamedTuple):
    """Everything that was asked for, in the order that it was asked for."""

    protos: tuple[ProtoSource, ...]
    sets: tuple[DescriptorSet, ...]


def collect(sources: Iterable[Source], search: Sequence[Path] = ()) -> Collection:
    """Tell the sources apart and find the files they stand for.

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
    return Collection(tuple(protos.values()), tuple(sets))


def _one(
    source: Source, search: Sequence[Path], count: int
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
            return _paths(Path(source), search)
        case Message() if source.DESCRIPTOR.full_name == "google.protobuf.FileDescriptorSet":
            return [DescriptorSet("FileDescriptorSet", source.SerializeToString())]
        case ModuleType() if hasattr(source, "DESCRIPTOR"):
            return [_module(source)]
    kind = type(source).__name__
    raise SourceError(
        reprlib.repr(source) or kind,  # an empty message has no text
        f"an object of type {kind} cannot be loaded; give a path, 'package:NAME/PATH', the text"
        " of a .proto file, a FileDescriptorSet or its bytes, or a generated _pb2 module",
    )


def _is_text(source: str) -> bool:
    return "\n" in source or (source.lstrip().startswith(("syntax", "edition")) and ";" in source)


def _paths(path: Path, search: Sequence[Path]) -> Iterable[ProtoSource | DescriptorSet]:
    # An absolute path swallows what it is joined to; abspath() takes the '..' out of it.
    tried = [Path(os.path.abspath(base / path)) for base in (Path.cwd(), *search)]
    tried = list(dict.fromkeys(tried))
    for candidate in tried:
        # os.path takes a name that no system can hold for absent; Path raises
        if os.path.isdir(candidate):
            return _folder(candidate, str(path))
        if os.path.exists(candidate):
            return [_file(candidate, None)]
        if glob.has_magic(str(path)):
            found = [Path(name) for name in sorted(glob.glob(str(candidate), recursive=True))]
            if found:
                return _flatten(found, _fixed_part(candidate))
    if glob.has_magic(str(path)):
        raise SourceError(str(path), "matches no file")
    places = ", ".join(str(place.parent) for place in tried)
    raise SourceError(str(path), f"no such file or folder (looked in {places})")


def _fixed_part(pattern: Path) -> Path:
    """The folder that a glob starts in: it tells files of one name in several folders apart."""
    return next(folder for folder in pattern.parents if not glob.has_magic(str(folder)))


def _flatten(found: Sequence[Path], root: Path) -> Iterator[ProtoSource | DescriptorSet]:
    for path in found:
        if path.is_dir():
            yield from _folder(path, str(path))
        else:
            yield _file(path, root)


def _folder(folder: Path, label: str) -> list[ProtoSource]:
    files = [
        Path(parent) / name
        for parent, folders, names in os.walk(folder)
        for name in names
        # hidden files are an editor's locks and a file manager's notes
        if not _prune(folders) and name.endswith(".proto") and not name.startswith(".")
    ]
    if not files:
        raise SourceError(label, "the folder has no .proto file in it")
    return [ProtoSource(path, folder) for path in sorted(files)]


def _prune(folders: list[str]) -> bool:
    """Keep ``os.walk`` out of hidden folders; always False, so that it serves as a condition."""
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    return False


def _file(path: Path, root: Path | None) -> ProtoSource | DescriptorSet:
    name = path.name.removesuffix(".gz")
    if name.endswith(".proto"):
        return ProtoSource(path, root)
    if name.endswith(SET_SUFFIXES):
        return DescriptorSet(str(path), _inflate(str(path), read(path)))
    known = ", ".join((".proto", *SET_SUFFIXES))
    raise SourceError(str(path), f"not a schema source by its name; expected one of {known}")


def read(path: Path) -> bytes:
    """The content of a regular file; anything else could block for ever, or never end.

    Raises:
        SourceError: it is none, is too large or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise SourceError(str(path), f"cannot be read: {kind}, not a regular file")
        if status.st_size > _MAX_SIZE:
            raise SourceError(str(path), f"is larger than {_MAX_SIZE >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise SourceError(str(path), f"cannot be read: {error.strerror}") from error


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
    if os.path.isabs(rest) or ".." in Path(rest).parts:
        raise SourceError(source, f"{rest!r} is not a path inside the package")
    folders = _package_folders(name)
    if not folders:
        return _in_distribution(source, name, rest)
    for folder in folders:
        path = folder / rest
        if os.path.isdir(path):
            return _folder(path, source)
        if os.path.isfile(path):
            return [_file(path, None)]
    lacks = f"has no {rest!r}" if rest else "is not a folder"
    places = ", ".join(map(str, folders))
    raise SourceError(source, f"package {name!r} {lacks} (looked in {places})")


def _package_folders(name: str) -> list[Path]:
    """The folders of a package that can be imported; none where there is no such package."""
    if not all(part.isidentifier() for part in name.split(".")):
        return []
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: a module without a spec, as __main__ is
        return []
    return [Path(place) for place in spec.submodule_search_locations or ()] if spec else []


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
    root = Path(str(distribution.locate_file("")))
    if os.path.isfile(root / rest):
        return [_file(root / rest, root)]
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
    return [ProtoSource(root / file, root) for file in names]


def _module(module: ModuleType) -> DescriptorSet:
    ordered: dict[str, bytes] = {}
    _with_dependencies(module.DESCRIPTOR, ordered)
    return DescriptorSet(module.__name__, join(ordered.values()))


def _with_dependencies(file: FileDescriptor, ordered: dict[str, bytes]) -> None:
    for dependency in file.dependencies:
        if dependency.name not in ordered:
            _with_dependencies(dependency, ordered)
    ordered[file.name] = file.serialized_pb
