"""What compiles, and how: known without loading the compiler, as a start from the cache is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .imports import SourceTree

__all__ = ["Limits", "key_of", "toolchain"]

_LAYOUT = "2"  # of an entry; see compiled.py
FLAGS = ("--include_imports", "--include_source_info", "--retain_options")


class Limits(NamedTuple):
    """What one compilation may use: wall and CPU time in seconds, address space in bytes."""

    seconds: int = 120
    memory: int = 4 << 30


def toolchain() -> Sequence[str]:
    """The compiler's version, and how it is called."""
    from grpc_tools.grpc_version import VERSION  # a module of one line; protoc is not loaded

    return VERSION, *FLAGS


def key_of(tree: SourceTree) -> Sequence[bytes]:
    """All that decides the outcome of a compilation, for a cache's key."""
    words = (_LAYOUT, *toolchain(), "", *tree.wanted)
    parts = [word.encode() for word in words]
    for name in sorted(tree.texts):
        parts += [name.encode(), tree.texts[name]]
    return parts
