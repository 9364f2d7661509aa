"""What Envoy's configuration is made of: JSON objects as protobuf reads them."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["Json", "extension", "seconds", "typed"]

Json: TypeAlias = dict[str, Any]

_TYPES = "type.googleapis.com/"


def seconds(value: float) -> str:
    """A ``google.protobuf.Duration`` in its JSON form: ``"1.5s"``."""
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"


def typed(message: str, fields: Json | None = None) -> Json:
    """A ``google.protobuf.Any`` that holds a message, by its full name."""
    return {"@type": _TYPES + message, **(fields or {})}


def extension(name: str, message: str, fields: Json | None = None) -> Json:
    """An extension of Envoy by its name, and what configures it."""
    return {"name": name, "typed_config": typed(message, fields)}
