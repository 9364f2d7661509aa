"""dynserve.schema.refusal: how a value that does not fit is shown."""

from __future__ import annotations

import collections
import sys

import pytest
from google.protobuf import timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from dynserve.schema.refusal import cut, refusal, shown, step_to


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "1.5"),
        (-(10**20), "-100000000000000000000"),
        pytest.param(1 << 20_000, f"0x1{'0' * 56}…", id="huge"),
        ("a\n", r"'a\n'"),
        ("x" * 60, f"'{'x' * 58}…"),
        ("x" * 10**6, f"'{'x' * 58}…"),
        (b"z" * 10**6, f"b'{'z' * 57}…"),
        ({"b": [1], "a": (2,)}, "{'a': (2,), 'b': [1]}"),
        (list(range(10**5)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, …"),
        ([[[[[[[]]]]]]], "[[[[[...]]]]]"),
        (collections.deque([1]), "deque([1])"),
    ],
)
def test_the_beginning_of_a_value(value: object, text: str) -> None:
    """A value is shown as Python writes it, as far as sixty characters go and no deeper."""
    assert cut(value) == text
    assert step_to(value) == f"[{text}]"
    assert shown(value) == f"{text} ({type(value).__name__})"
    assert str(refusal(value, "x")) == f": got {text} ({type(value).__name__}), expected x"


def test_messages_and_none() -> None:
    """A message is named, not written out; None has no type worth telling."""
    assert shown(timestamp_pb2.Timestamp(seconds=1)) == "message google.protobuf.Timestamp"
    assert shown(None) == "None"


def test_a_value_that_holds_itself_is_shown() -> None:
    """A value without an end has a beginning, whatever is left of the stack."""
    endless: list[object] = []
    endless.append(endless)
    assert cut(endless) == "[[[[[...]]]]]"
    deep: list[object] = []
    for _ in range(2 * sys.getrecursionlimit()):
        deep = [deep]
    assert cut(deep) == "[[[[[...]]]]]"


@given(st.recursive(st.none() | st.integers() | st.text() | st.binary() | st.floats(), st.lists))
def test_any_value_is_shown_in_a_line(value: object) -> None:
    """Whatever it is, it takes sixty characters of one line at most."""
    assert 0 < len(cut(value)) <= 60
    assert "\n" not in cut(value)
