"""JSONFormatter: records of calls and of anything else, as one object on one line."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from dynserve.observe import AccessLog, JSONFormatter
from tests.observe.records import record_of, seen
from tests.observe.test_access_log import logged

CREATED = 1_700_000_000.042  # 2023-11-14T22:13:20.042Z


def record(message: str = "hello", **values: Any) -> logging.LogRecord:
    """A record of some other logger."""
    made = logging.LogRecord("some.logger", logging.WARNING, "f.py", 1, message, (), None)
    made.__dict__.update(values, created=CREATED)
    return made


def shown(made: logging.LogRecord) -> Any:
    line = JSONFormatter().format(made)
    assert "\n" not in line
    return json.loads(line)


def test_any_record() -> None:
    """Time in UTC, level, logger, message, and whatever was added to it."""
    assert shown(record("hello %s", args=("you",), tenant="t", count=3, what={1})) == {
        "time": "2023-11-14T22:13:20.042Z",
        "level": "WARNING",
        "logger": "some.logger",
        "message": "hello you",
        "count": 3,
        "tenant": "t",
        "what": "{1}",
    }


def test_exception_and_stack() -> None:
    """A traceback is a field; its lines do not become lines of the log."""
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        made = record(exc_info=sys.exc_info(), stack_info="Stack:\n  here")
    found = shown(made)
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("ValueError: bad\nvalue")
    assert found["stack"] == "Stack:\n  here"
    assert list(found) == ["time", "level", "logger", "message", "exception", "stack"]


def test_exception_that_was_formatted_before() -> None:
    """What a queue made text of is taken as it is."""
    assert shown(record(exc_text="Traceback: …"))["exception"] == "Traceback: …"


@pytest.mark.parametrize("format", ["text", "json"])
def test_call(format: str) -> None:
    """The fields of a call stand beside time and level, in place of the message."""
    with logged() as (name, kept):
        seen(AccessLog(format, logger=name), record_of())
    (made,) = kept.records
    made.created = CREATED
    assert list(shown(made).items()) == [
        ("time", "2023-11-14T22:13:20.042Z"),
        ("level", "INFO"),
        ("logger", name),
        ("method", "echo.Echo/Unary"),
        ("code", "OK"),
        ("duration_ms", 12.5),
        ("peer", "ipv4:127.0.0.1:50000"),
        ("request_messages", 1),
        ("request_bytes", 10),
        ("response_messages", 0),
        ("response_bytes", 0),
        ("request_id", "r-1"),
        ("user_agent", "grpc-python/1.85.1 (linux)"),
    ]


def test_call_with_more() -> None:
    """What a filter of the user's added to a call's record is shown too."""
    with logged() as (name, kept):
        seen(AccessLog(logger=name), record_of())
    (made,) = kept.records
    made.__dict__.update(otelTraceID="0", message="of another formatter")
    assert [(k, v) for k, v in shown(made).items() if k not in vars(kept)][-1] == (
        "otelTraceID",
        "0",
    )
