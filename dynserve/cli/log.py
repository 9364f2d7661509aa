"""What the library logs, as a command line says it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import click

from .terminal import harmless

__all__ = ["warnings_shown"]

_log = logging.getLogger("dynserve.client")


class _Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"Warning: {harmless(record.getMessage())}", err=True)


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Print warnings to standard error while the block runs."""
    handler = _Warnings(logging.WARNING)
    _log.addHandler(handler)
    try:
        yield
    finally:
        _log.removeHandler(handler)
