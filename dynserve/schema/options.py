"""The options of an element, standard and custom, as a mapping from name to value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

from dynserve.errors import did_you_mean

__all__ = ["Options"]


class Options(Mapping[str, Any]):
    """The options that are set on a method, a service or another element.

    A standard option goes by its field name (``"deprecated"``), a custom one by its full name
    (``"pkg.name"``). Values are scalars, messages of the schema's own pool, or tuples of them where
    the option is repeated.

    ``parse`` gives the options message with every extension that its schema knows. It is called on
    first use: most options are never asked for, and it may build a good many files.
    """

    def __init__(self, element: str, parse: Callable[[], Message]) -> None:
        self._element = element
        self._parse = parse
        self._values: dict[str, Any] | None = None

    def _all(self) -> dict[str, Any]:
        if self._values is None:
            self._values = {
                field.full_name if field.is_extension else field.name: (
                    tuple(value) if field.is_repeated else value
                )
                for field, value in self._parse().ListFields()
                if field.name != "uninterpreted_option"
            }
        return self._values

    def __getitem__(self, name: str) -> Any:
        try:
            return self._all()[name]
        except KeyError:
            near = did_you_mean(name, self._all())
            raise KeyError(f"option {name!r} is not set on {self._element}{near}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())
