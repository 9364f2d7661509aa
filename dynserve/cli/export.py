"""``dynserve export``: what a server tells of itself, as files."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dynserve.errors import DescriptorError

from .completion import complete_symbol
from .progress import with_progress
from .target import Target, connection_options, target_argument

if TYPE_CHECKING:
    from dynserve.schema import Schema

__all__ = ["export"]

# protoc and buf bring these themselves.
_WELL_KNOWN = "google/protobuf/"


@click.command()
@target_argument
@click.argument("symbols", metavar="[SYMBOL]...", nargs=-1, shell_complete=complete_symbol)
@click.option(
    "-o", "--output", metavar="FILE",
    help="Write a descriptor set, with all that it needs; - is standard output.",
)  # fmt: skip
@click.option(
    "--proto-dir", metavar="DIR", type=click.Path(path_type=Path),
    help="Write .proto files below this folder, but for the well-known google/protobuf ones.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Write over .proto files that say something else.")
@connection_options
def export(
    target: Target,
    symbols: tuple[str, ...],
    output: str | None,
    proto_dir: Path | None,
    force: bool,
) -> None:
    """Write what a server's reflection tells as a descriptor set or as .proto files.

    A SYMBOL is a full name, such as pkg.Service; without any, every service is exported.

    \b
    Examples:
      dynserve export localhost:50051 -o set.binpb
      dynserve export localhost:50051 --proto-dir protos
    """
    if output is None and proto_dir is None:
        raise click.UsageError("name what to write: -o FILE, --proto-dir DIR, or both.")
    with target.tell() as told:
        for name in with_progress(symbols or told.services(), "Asking the server"):
            told.load(name)
        schema = told.schema
    if proto_dir is not None:
        _write_protos(schema, proto_dir, force)
    if output is not None:
        _write_set(schema, output)


def _write_set(schema: Schema, output: str) -> None:
    from dynserve.schema.descriptors import join

    data = join(schema.index.raw(file) for file in schema.index.files)
    if output == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        _write(Path(output), data)
        click.echo(f"{output}: {len(schema.index.files)} files, {len(data)} bytes", err=True)


def _write_protos(schema: Schema, folder: Path, force: bool) -> None:
    from dynserve.schema.proto_text import file_text

    names = [name for name in schema.index.files if not name.startswith(_WELL_KNOWN)]
    paths = {folder.joinpath(*_parts(name)): name for name in names}
    texts = {
        path: file_text(schema, paths[path]).encode() for path in with_progress(paths, "Printing")
    }
    if not force:
        _check_nothing_is_lost(texts)
    for path, text in texts.items():
        _write(path, text)
    click.echo(f"{folder}: {len(texts)} .proto files", err=True)


def _parts(name: str) -> list[str]:
    """The components of a file's name, which a server made up: none leads out of the folder."""
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or any(sign in name for sign in "\\\0") or ":" in parts[0]:
        raise DescriptorError(name, "is no name for a file below a folder; it is not written")
    return parts


def _check_nothing_is_lost(texts: Mapping[Path, bytes]) -> None:
    for path, text in texts.items():
        if path.exists() and path.read_bytes() != text:
            raise click.ClickException(
                f"{path} is there and says something else; --force replaces it"
            )


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing: who reads the file meanwhile finds the old one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
        os.chmod(file.name, 0o666 & ~_umask())
        os.replace(file.name, path)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
