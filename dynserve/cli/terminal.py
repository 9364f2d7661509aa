"""What may be written to where a person reads."""

from __future__ import annotations

from typing import TextIO

__all__ = ["harmless", "is_unicode"]


def is_unicode(stream: TextIO) -> bool:
    """Whether a stream takes any character."""
    return (stream.encoding or "").lower().startswith("utf")


def harmless(text: str) -> str:
    """The text of a peer, without what a terminal would take for a command."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode()
        for sign in text
    )
