"""What a supervisor is to keep running."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dynserve.workers.plan import Plan

GOOD: dict[str, Any] = {"command": ("a", "b"), "workers": 2, "listen": ("127.0.0.1:0",)}


def test_a_plan_goes_through_json() -> None:
    """It is the same at the other end."""
    plan = Plan(**GOOD, stop_seconds=3.5, start_seconds=7.0)
    assert Plan.of_json(json.loads(json.dumps(plan.as_json()))) == plan


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"command": ()}, "got command=(), expected at least one"),
        ({"listen": ()}, "got listen=(), expected at least one"),
        ({"workers": 0}, "got workers=0, expected at least 1"),
        ({"stop_seconds": 0}, "got stop_seconds=0, expected more than 0"),
        ({"start_seconds": float("nan")}, "got start_seconds=nan, expected more than 0"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], problem: str) -> None:
    """The error says what was given and what is expected."""
    with pytest.raises(ValueError, match=r"^got ") as caught:
        Plan(**{**GOOD, **wrong})
    assert str(caught.value) == problem
