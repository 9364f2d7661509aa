"""JSONFormatter: a log record as one JSON object on one line."""

from __future__ import annotations

import functools
import json
import logging
import time

__all__ = ["FIELDS", "JSONFormatter"]

FIELDS = (
    "method",
    "code",
    "duration_ms",
    "peer",
    "request_messages",
    "request_bytes",
    "response_messages",
    "response_bytes",
    "request_id",
    "trace_id",
    "identity",
    "error_id",
    "user_agent",
)
"""The fields of a line of the access log, in their order."""

_FIELDS = frozenset(FIELDS)
_made = vars(logging.LogRecord("", 0, "", 0, "", (), None))  # what no factory of a user's added to
_STANDARD = frozenset(_made) | {"message", "asctime", "taskName"}
_PLAIN_CALL = len(_made) + len(FIELDS)  # attributes of a call's record
_encode = json.JSONEncoder(default=str).encode


class JSONFormatter(logging.Formatter):
    """Writes ``time`` (UTC), ``level``, ``logger``, then the fields of a call, or the message.

    Whatever else was added to the record is in the object too. Of a call, fields that are empty are
    left out. For a handler of any logger::

        handler = logging.StreamHandler()
        handler.setFormatter(JSONFormatter())
        logging.getLogger().addHandler(handler)
    """

    def format(self, record: logging.LogRecord) -> str:
        """The object; no character of a record can end the line."""
        values = record.__dict__
        seconds = int(record.created)
        shown = {
            "time": f"{_stamp(seconds)}.{int((record.created - seconds) * 1000):03d}Z",
            "level": record.levelname,
            "logger": record.name,
        }
        if values.keys() >= _FIELDS:
            shown.update((name, values[name]) for name in FIELDS if values[name] != "")
        else:
            shown["message"] = record.getMessage()
            if record.exc_text:  # made by another formatter, or before the record was queued
                shown["exception"] = record.exc_text
            elif record.exc_info:
                shown["exception"] = self.formatException(record.exc_info)
            if record.stack_info:
                shown["stack"] = self.formatStack(record.stack_info)
        if len(values) != _PLAIN_CALL:  # there is more than the fields
            more = values.keys() - _STANDARD - _FIELDS - shown.keys()
            shown.update((name, values[name]) for name in sorted(more))
        return _encode(shown)


@functools.lru_cache(maxsize=4)
def _stamp(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
