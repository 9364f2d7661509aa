"""Where a client has its schema from: sources that it was given, or the server's reflection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from dynserve.schema import Schema

from .reflected import Steps

__all__ = ["Given", "SchemaSource"]


class SchemaSource(Protocol):
    """A schema, and how to have it hold what is needed next; steps are run one at a time."""

    @property
    def name(self) -> str:
        """Who tells of symbols, for messages."""

    @property
    def schema(self) -> Schema:
        """The schema as far as it is known."""

    def has(self, symbol: str) -> bool:
        """Whether there is nothing to load for a symbol."""

    def load(self, symbol: str, kind: str = "symbol") -> Steps[None]:
        """Have the schema hold a symbol and all that it needs."""

    def services(self) -> Steps[tuple[str, ...]]:
        """The names of all services, sorted."""

    def check(self, symbol: str, *types: str) -> None:
        """Refuse to use ``symbol`` if one of the types that it needs is missing."""


class Given:
    """Sources, compiled when something of them is first needed."""

    name = "the schema"

    def __init__(self, load: Callable[[], Schema]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._schema: Schema | None = None

    @property
    def schema(self) -> Schema:
        """The schema, whole; raises as ``Schema.load``."""
        if self._schema is None:
            with self._lock:
                if self._schema is None:
                    self._schema = self._load()
        return self._schema

    def has(self, symbol: str) -> bool:
        """All is there, or nothing."""
        return self._schema is not None

    def load(self, symbol: str, kind: str = "symbol") -> Steps[None]:
        """Compile the sources; what they lack is said by the schema."""
        yield lambda: self.schema

    def services(self) -> Steps[tuple[str, ...]]:
        """Those that the sources declare."""
        yield lambda: self.schema
        return self.schema.declared_services

    def check(self, symbol: str, *types: str) -> None:
        """Nothing is missing in what was compiled."""
