"""AccessLog: a line for each call, through standard logging.

A line is a ``logging.LogRecord`` with the fields of the call as attributes, so that handlers and
formatters that take fields have them, and a message that has them as text, made when a handler asks
for it. What came from a peer is cut and escaped before it becomes a field: no formatter can be made
to write two lines.
"""

from __future__ import annotations

import json
import logging
import random
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from dynserve.observe.codes import SERVER_FAULTS

if TYPE_CHECKING:
    from dynserve.observer import CallRecord
    from dynserve.status import Metadata

__all__ = ["AccessLog"]

_MAX_TEXT = 200  # characters of a text that came from a peer
_is_plain = re.compile(r'[^\s"=\\]+').fullmatch  # what the text format shows without quotes
_encode = json.JSONEncoder(separators=(", ", ": ")).encode
_quote = json.JSONEncoder(ensure_ascii=False).encode


class AccessLog:
    """An observer that logs each call when it has ended.

    Calls that ended by a fault of the server (UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
    UNAVAILABLE, DATA_LOSS) are logged at WARNING, whatever ``sample`` says, all others at INFO. A
    call of a method that is not there is no fault of the server. Nothing is logged at ERROR: that
    is where the exception itself is, logged once by whoever turned it into a status.

    Which calls are in the sample is drawn by lot, and not by the request id: who calls cannot
    choose not to be seen.

    Args:
        format: what the message of a line is: ``"text"``, which is ``key=value`` pairs, or
            ``"json"``, one object.
        sample: the share of calls that are logged, from 0.0 to 1.0.
        logger: the name of the logger.

    Raises:
        ValueError: there is no such format, or ``sample`` is no share.
    """

    def __init__(
        self, format: str = "text", sample: float = 1.0, logger: str = "dynserve.access"
    ) -> None:
        lines: dict[str, type[_Line]] = {"text": _TextLine, "json": _JSONLine}
        if format not in lines:
            raise ValueError(
                f"got {format!r} as the format of the access log, expected 'text' or 'json'"
            )
        if not 0.0 <= sample <= 1.0:
            raise ValueError(
                f"got {sample!r} as the share of calls that are logged, expected 0.0 to 1.0"
            )
        self._line = lines[format]
        self._sample = sample
        self._logger = logging.getLogger(logger)
        self._draw = random.Random().random  # noqa: S311 - of its own: a user's seed changes nothing

    def begin(self, record: CallRecord, /) -> _Begun | None:
        """Draw whether the call is logged, and note what a call that is over no longer tells."""
        if not self._logger.isEnabledFor(logging.WARNING):
            return None
        context = record.context
        return _Begun(
            self._sample == 1.0 or self._draw() < self._sample,
            context.peer(),
            context.request_id,
            context.invocation_metadata(),
        )

    def end(self, record: CallRecord, begun: _Begun | None, /) -> None:
        """Log the call."""
        if begun is None:
            return
        is_fault = record.code in SERVER_FAULTS and record.method is not None
        level = logging.WARNING if is_fault else logging.INFO
        logger = self._logger
        if not (begun.is_drawn or is_fault) or not logger.isEnabledFor(level):
            return
        fields = _fields_of(record, begun)
        # Not by logger.log(): looking for who called it costs more than all the rest, and `extra`
        # is refused where a record factory of the user's has a field of the same name.
        entry = logger.makeRecord(
            logger.name, level, __file__, 0, "%s", (self._line(fields),), None, "end"
        )
        entry.__dict__.update(fields)
        logger.handle(entry)


class _Begun(NamedTuple):
    is_drawn: bool
    peer: str
    request_id: str
    metadata: Metadata


def _fields_of(record: CallRecord, begun: _Begun) -> dict[str, Any]:
    """The fields of a line, by the names that are documented, in their order."""
    identity = record.context.identity
    code = record.code
    path = record.path[1:]
    return {
        "method": path if record.method is not None else _safe(path),
        "code": "" if code is None else code.name,
        "duration_ms": round(record.seconds * 1000, 3),
        "peer": _safe(begun.peer),
        "request_messages": record.request_messages,
        "request_bytes": record.request_bytes,
        "response_messages": record.response_messages,
        "response_bytes": record.response_bytes,
        "request_id": begun.request_id,
        "trace_id": _trace_id(),
        "identity": "" if identity is None else _safe(identity.name),
        "error_id": record.error_id,
        "user_agent": _user_agent(begun.metadata),
    }


def _user_agent(metadata: Metadata) -> str:
    for key, value in metadata:
        if key == "user-agent":
            return _safe(value)
    return ""


def _trace_id() -> str:
    """The id of the trace that this call is in, where something makes traces."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    trace_id = trace.get_current_span().get_span_context().trace_id
    return f"{trace_id:032x}" if trace_id else ""


def _safe(text: str | bytes) -> str:
    """What a peer said, cut, and with what is not printable escaped."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    text = text[:_MAX_TEXT]
    return text if text.isprintable() else text.encode("unicode_escape").decode()


class _Line:
    """A message that is made when it is asked for."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields


class _TextLine(_Line):
    def __str__(self) -> str:
        return " ".join(
            [
                f"{key}={value if type(value) is not str or _is_plain(value) else _quote(value)}"
                for key, value in self._fields.items()
                if value != ""
            ]
        )


class _JSONLine(_Line):
    def __str__(self) -> str:
        return _encode({key: value for key, value in self._fields.items() if value != ""})
