"""Metadata as it is written on the command line: ``name: value``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import click

from dynserve.status import Metadata, checked_metadata

__all__ = ["pairs_of", "shown"]


def pairs_of(headers: Iterable[str]) -> Metadata:
    """``name: value`` as metadata; the value of a name that ends in -bin is given in base64.

    Raises:
        click.UsageError: one is not of that form, or cannot be sent.
    """
    pairs = [_pair(header) for header in headers]
    try:
        return checked_metadata(pairs)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error


def _pair(header: str) -> tuple[str, str | bytes]:
    name, colon, value = header.partition(":")
    name, value = name.strip().lower(), value.strip()
    if not colon or not name:
        raise click.UsageError(f"got header {header!r}, expected 'name: value'.")
    if not name.endswith("-bin"):
        return name, value
    padded = value + "=" * (-len(value) % 4)  # which gRPC itself leaves out
    try:
        return name, base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: it is not ASCII
        problem = f"header {name!r} is binary by its name: give its value in base64."
        raise click.UsageError(problem) from error


def shown(metadata: Iterable[tuple[str, str | bytes]]) -> list[str]:
    """Metadata in the same form."""
    return [
        f"{name}: {value if isinstance(value, str) else base64.b64encode(value).decode()}"
        for name, value in metadata
    ]
