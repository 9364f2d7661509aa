"""Responses as text on standard output."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from .terminal import is_unicode

if TYPE_CHECKING:
    from dynserve.client.sync import Client

__all__ = ["Writer"]

_CONTROL = re.compile("[\x7f-\x9f]")  # JSON allows them in a string, but terminals obey them
_BETWEEN = "\x1e"  # between messages in the text format


class Writer:
    """Prints messages: in JSON, or in protobuf's text format.

    What an ``Any`` in them holds is asked of the server, where the schema does not know it.
    """

    def __init__(self, client: Client, form: str, compact: bool, emit_defaults: bool) -> None:
        self._client = client
        self._is_first = True
        self._write = self._text if form == "text" else self._json
        self._options: dict[str, Any]
        if form == "text":
            self._options = {"as_one_line": compact, "as_utf8": is_unicode(sys.stdout)}
        else:
            self._options = {
                "allow_unknown_any": True,
                "indent": None if compact else 2,
                "ensure_ascii": not is_unicode(sys.stdout),
            }
            if emit_defaults:
                self._options["always_print_fields_with_no_presence"] = True

    def __call__(self, message: Any) -> None:
        """Print one more."""
        self._client.load_contents(message)
        click.echo(self._write(message))
        self._is_first = False

    def _json(self, message: Any) -> str:
        text = self._client.schema.to_json(message, **self._options)
        return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)

    def _text(self, message: Any) -> str:
        text = self._client.schema.to_text(message, **self._options).rstrip("\n")
        return text if self._is_first else f"{_BETWEEN}\n{text}"
