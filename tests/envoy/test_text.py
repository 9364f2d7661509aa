"""A configuration as text that Envoy reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dynserve.envoy import to_json, to_yaml

CONFIG = {
    "name": "a/b.c-d_e",
    "number": 1,
    "share": 0.5,
    "on": True,
    "none": [],
    "empty": {},
    "@type": "type.googleapis.com/a.B",
    "list": ["a", {"b": 1, "c": {"d": "e"}}, ["f", "g"], {}],
    "deep": {"one": {"two": [1]}},
}

YAML = """\
# first
# second
name: a/b.c-d_e
number: 1
share: 0.5
"on": true
none: []
empty: {}
"@type": type.googleapis.com/a.B
list:
  - a
  - b: 1
    c:
      d: e
  - - f
    - g
  - {}
deep:
  one:
    two:
      - 1
"""


def test_yaml() -> None:
    """Blocks that a person reads; comments in front."""
    assert to_yaml(CONFIG, "first", "second") == YAML


def test_json() -> None:
    """JSON that says the same."""
    text = to_json(CONFIG)
    assert json.loads(text) == CONFIG
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("1s", '"1s"'),
        ("0", '"0"'),
        ("127.0.0.1", '"127.0.0.1"'),
        ("a: b", '"a: b"'),
        ("a #b", '"a #b"'),
        ("- a", '"- a"'),
        ("*", '"*"'),
        ("~", '"~"'),
        ("a\nb", '"a\\nb"'),
        ("é", '"\\u00e9"'),
        ("true", '"true"'),
        ("No", '"No"'),
        ("null", '"null"'),
        ("OFF", '"OFF"'),
        ("y", '"y"'),
        (".inf", '".inf"'),
        ("AQID+/==", '"AQID+/=="'),
        (False, "false"),
        (None, "null"),
    ],
)
def test_a_string_stays_one(value: Any, shown: str) -> None:
    """What a reader of YAML would take for something else is in quotes."""
    assert to_yaml({"key": value}) == f"key: {shown}\n"
    assert to_yaml({"key": [value]}) == f"key:\n  - {shown}\n"
