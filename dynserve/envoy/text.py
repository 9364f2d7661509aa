"""A configuration as text that Envoy reads: YAML for people, JSON for programs.

This writes the part of YAML 1.2 that a configuration needs: mappings, sequences and scalars, in
blocks. A string that could be taken for something else is in double quotes, as in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["to_json", "to_yaml"]

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
# What readers of YAML 1.1, as yaml-cpp is in part, take for a boolean or nothing.
_WORDS = frozenset(["true", "false", "null", "yes", "no", "on", "off", "y", "n"])


def to_json(config: Mapping[str, Any]) -> str:
    """The configuration as JSON, with a newline at its end."""
    return json.dumps(config, indent=2) + "\n"


def to_yaml(config: Mapping[str, Any], *comments: str) -> str:
    """The configuration as YAML, with lines of comment in front."""
    return "".join(f"{line}\n" for line in [*(f"# {text}" for text in comments), *_lines(config)])


def _lines(value: Any) -> Iterator[str]:
    """A value in block style; an empty one, or a scalar, is one line."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _entry(f"{_scalar(key)}:", item, "  ")
    elif isinstance(value, Sequence) and value and not isinstance(value, str):
        for item in value:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _entry(key: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, (Mapping, list, tuple)) and value:
        yield key
        yield from (indent + line for line in _lines(value))
    else:
        yield f"{key} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value)
