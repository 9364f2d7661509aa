"""``dynserve export``: what a server tells of itself, as files."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dynserve.errors import DescriptorError, SymbolError

from .completion import complete_symbol
from .files import check_nothing_is_lost, write
from .options import connection_options, target_argument
from .progress import with_progress
from .target import Target

if TYPE_CHECKING:
    from dynserve.schema import Schema

__all__ = ["export"]

_WELL_KNOWN = "google/protobuf/"  # protoc and buf bring these themselves


@click.command()
@target_argument
@click.argument("symbols", metavar="[SYMBOL]...", nargs=-1, shell_complete=complete_symbol)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(readable=False),
    help="Write a descriptor set, with everything that is imported; - is standard output.",
)  # fmt: skip
@click.option(
    "--proto-dir", metavar="DIR", type=click.Path(path_type=Path),
    help="Write .proto files below this folder, but not the google/protobuf ones that they import:"
    " protoc and buf have those.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace .proto files that differ.")
@connection_options
def export(
    target: Target,
    symbols: tuple[str, ...],
    output: str | None,
    proto_dir: Path | None,
    force: bool,
) -> int:
    """Write what a server reflects to files.

    The files are a descriptor set, or .proto files that compile to the same descriptors. A SYMBOL
    is a full name, such as pkg.Service: its file and what that imports are written. Without a
    SYMBOL every service of the server is exported, or every file of the source.

    \b
    Examples:
      dynserve export localhost:50051 -o set.binpb
      dynserve export localhost:50051 --proto-dir protos
    """
    if output is None and proto_dir is None:
        raise click.UsageError("name what to write: -o FILE, --proto-dir DIR, or both.")
    if force and proto_dir is None:
        click.echo("Warning: --force has no effect, it is for --proto-dir", err=True)
    names = tuple(symbol.removeprefix("/").replace("/", ".") for symbol in symbols)
    with target.tell() as told:
        code = 0
        if names:
            told.load(names)
        else:
            _, code = told.load_services()
        asked = _files_of(told.schema, names) if names else told.declared_files()
        # What is reflected has extensions, too.
        files = (
            told.schema.index.files if told.is_reflected else told.schema.index.with_imports(asked)
        )
    texts = {} if proto_dir is None else _texts(told.schema, proto_dir, files, asked)
    if not force:
        check_nothing_is_lost(texts)
    for path, text in texts.items():
        write(path, text)
    if proto_dir is not None:
        click.echo(f"{proto_dir}: {_count(texts, '.proto file')}", err=True)
    if output is not None:
        _write_set(told.schema, files, output)
    return code


def _files_of(schema: Schema, symbols: Iterable[str]) -> set[str]:
    """The files that declare the symbols.

    Raises:
        SymbolError: there is none of that name.
    """
    from dynserve.schema.descriptors import parse_file
    from dynserve.schema.symbols import symbols_of

    files = set()
    for symbol in symbols:
        file = schema.index.file_of(symbol)
        if file is None:
            raise SymbolError("symbol", symbol, schema.index.symbols())
        known = set(symbols_of(parse_file(schema.index.stripped(file))))
        if symbol not in known:
            raise SymbolError("symbol", symbol, sorted(known))
        files.add(file)
    return files


def _texts(
    schema: Schema, folder: Path, files: Iterable[str], asked: Iterable[str]
) -> dict[Path, bytes]:
    """The texts of the files by where they go."""
    from dynserve.schema.imports import find_installed
    from dynserve.schema.proto_text import file_text

    wanted = set(asked)
    names = {
        folder.joinpath(*_parts(name)): name
        for name in files
        if name in wanted or not (name.startswith(_WELL_KNOWN) and find_installed(name))
    }
    return {
        path: file_text(schema, name).encode()
        for path, name in zip(names, with_progress(names.values(), "Printing"), strict=True)
    }


def _parts(name: str) -> list[str]:
    """The components of a file's name, which a server made up: none leads out of the folder.

    No other ending than .proto: it would be one that a shell, or make, reads by itself.

    Raises:
        DescriptorError: it is no such name.
    """
    parts = name.split("/")
    odd = {"", ".", ".."} & set(parts) or "\\" in name or ":" in name or not name.isprintable()
    if odd or not name.endswith(".proto"):
        problem = "is no name for a .proto file below a folder; nothing is written (-o would)"
        raise DescriptorError(repr(name), problem)
    return parts


def _write_set(schema: Schema, files: Collection[str], output: str) -> None:
    from dynserve.schema.descriptors import join

    data = join(schema.index.raw(file) for file in files)
    if output == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write(Path(output), data)
        click.echo(f"{output}: {_count(files, 'file')}, {len(data)} bytes", err=True)


def _count(items: Collection[object], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"
