"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

__all__ = ["check_nothing_is_lost", "write"]


def check_nothing_is_lost(contents: Mapping[Path, bytes]) -> None:
    """Refuse to write over files that say something else.

    Raises:
        click.ClickException: there is one.
    """
    for path, content in contents.items():
        with _told_of(path):
            if path.exists() and path.read_bytes() != content:
                raise click.ClickException(
                    f"{path} is there and says something else; --force replaces it"
                )


def write(path: Path, content: bytes) -> None:
    """Write a file: who reads it meanwhile finds the old one.

    Raises:
        click.ClickException: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise click.ClickException(f"{path.parent} is there and is no folder") from error
    except OSError as error:
        raise click.ClickException(f"{path.parent}: {error.strerror}") from error
    with _told_of(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            os.chmod(name, 0o666 & ~_umask())  # a temporary one is for its owner only
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)  # there is no other way to ask
    os.umask(mask)
    return mask
