"""AccessLog: what a line says, which calls have one, and that no peer can make one up."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import queue
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from dynserve import Kind
from dynserve.observe import AccessLog
from dynserve.observe.formats import FIELDS
from tests.observe.records import record_of, seen

Code = grpc.StatusCode
FAULTS = {
    Code.UNKNOWN,
    Code.DEADLINE_EXCEEDED,
    Code.UNIMPLEMENTED,
    Code.INTERNAL,
    Code.UNAVAILABLE,
    Code.DATA_LOSS,
}


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.lines.append(self.format(record))


@contextlib.contextmanager
def logged(level: int = logging.INFO) -> Iterator[tuple[str, Kept]]:
    """A logger of the test's own: its name, and what it logged."""
    logger = logging.getLogger(f"test.{uuid.uuid4().hex}")
    kept = Kept()
    logger.addHandler(kept)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield logger.name, kept
    finally:
        logger.removeHandler(kept)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", list(Kind), ids=str)
def test_fields_of_a_call(kind: Kind, is_async: bool) -> None:
    """A line has every fact of the call as an attribute, for sync and async calls of each kind."""
    record = record_of(
        Code.INTERNAL,
        kind=kind,
        is_async=is_async,
        identity="ada",
        error_id="0123456789abcdef",
        request_messages=2,
        request_bytes=20,
        response_messages=3,
        response_bytes=30,
    )
    with logged() as (name, kept):
        seen(AccessLog(logger=name), record)
    (line,) = kept.records
    assert {field: getattr(line, field) for field in FIELDS} == {
        "method": record.path[1:],
        "code": "INTERNAL",
        "duration_ms": 12.5,
        "peer": "ipv4:127.0.0.1:50000",
        "request_messages": 2,
        "request_bytes": 20,
        "response_messages": 3,
        "response_bytes": 30,
        "request_id": "r-1",
        "trace_id": "",
        "identity": "ada",
        "error_id": "0123456789abcdef",
        "user_agent": "grpc-python/1.85.1 (linux)",
    }
    assert (line.levelname, line.name, line.filename) == ("WARNING", name, "access_log.py")


def test_text() -> None:
    """The text format is key=value pairs; what is empty is left out, what has a blank is quoted."""
    with logged() as (name, kept):
        seen(AccessLog("text", logger=name), record_of(response_messages=1, response_bytes=7))
    assert kept.lines == [
        "method=echo.Echo/Unary code=OK duration_ms=12.5 peer=ipv4:127.0.0.1:50000"
        " request_messages=1 request_bytes=10 response_messages=1 response_bytes=7"
        ' request_id=r-1 user_agent="grpc-python/1.85.1 (linux)"'
    ]


def test_json() -> None:
    """The JSON format is one object; a count of zero is in it, an empty text is not."""
    with logged() as (name, kept):
        seen(AccessLog("json", logger=name), record_of())
    assert [json.loads(line) for line in kept.lines] == [
        {
            "method": "echo.Echo/Unary",
            "code": "OK",
            "duration_ms": 12.5,
            "peer": "ipv4:127.0.0.1:50000",
            "request_messages": 1,
            "request_bytes": 10,
            "response_messages": 0,
            "response_bytes": 0,
            "request_id": "r-1",
            "user_agent": "grpc-python/1.85.1 (linux)",
        }
    ]


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize(
    "evil",
    [
        "a\nmethod=b code=OK",
        'a" code=OK x="',
        "a\r\x1b[2Jb",
        "a\x00\x7f\x85",
        "a\u2028b\u2029c",
        "a\u202eb",
        "a\ud800b",
        "a\\n",
        "a b=c",
        "x" * 5000,
    ],
)
def test_no_peer_makes_a_line_up(format: str, evil: str) -> None:
    """Whatever a peer sends as path, agent, id or name, a call is one short printable line."""
    records = [
        record_of(Code.UNIMPLEMENTED, path=f"/{evil}"),
        record_of(metadata=(("user-agent", evil), ("x-request-id", evil))),
        record_of(metadata=(("user-agent", evil.encode("utf-8", "replace")),)),
        record_of(identity=evil),
        record_of(peer=f"unix:{evil}"),
    ]
    with logged() as (name, kept):
        seen(AccessLog(format, logger=name), *records)
    assert len(kept.lines) == len(records)
    for line, record in zip(kept.lines, kept.records, strict=True):
        assert line.isprintable()
        assert len(line) < 1000
        assert all(str(getattr(record, field)).isprintable() for field in FIELDS)
        if format == "json":
            shown = json.loads(line)
            assert shown == {f: getattr(record, f) for f in FIELDS if getattr(record, f) != ""}
        else:
            assert parsed(line) == {
                f: str(getattr(record, f)) for f in FIELDS if getattr(record, f) != ""
            }


def parsed(line: str) -> dict[str, str]:
    """The pairs of a text line, read as logfmt is."""
    pairs: dict[str, str] = {}
    while line:
        key, _, line = line.partition("=")
        if line.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(line)
            line = line[end:]
        else:
            value = line.partition(" ")[0]
            line = line[len(value) :]
        assert key not in pairs
        pairs[key] = value
        line = line.removeprefix(" ")
    return pairs


@pytest.mark.parametrize("code", list(Code), ids=str)
def test_level_and_sample_by_code(code: grpc.StatusCode) -> None:
    """A fault of the server is a warning whatever the sample; anything else is of the sample."""
    with logged() as (name, kept):
        seen(AccessLog(logger=name), record_of(code))
        seen(AccessLog(sample=0.0, logger=name), record_of(code))
    expected = ["WARNING", "WARNING"] if code in FAULTS else ["INFO"]
    assert [record.levelname for record in kept.records] == expected


def test_calls_of_nothing_cannot_flood_a_sampled_log() -> None:
    """A method that is not there is the caller's fault: logged at INFO, and only in the sample."""
    with logged() as (name, kept):
        seen(AccessLog(logger=name), record_of(Code.UNIMPLEMENTED, path="/no.Such/Method"))
        seen(AccessLog(sample=0.0, logger=name), record_of(Code.UNIMPLEMENTED, path="/no.S/M"))
    assert [(r.levelname, r.__dict__["method"]) for r in kept.records] == [
        ("INFO", "no.Such/Method")
    ]


def test_sample_is_the_share_that_is_logged() -> None:
    """Of many calls with one request id about that share is logged: it is drawn for each."""
    calls = 2000
    with logged() as (name, kept):
        seen(AccessLog(sample=0.25, logger=name), *[record_of()] * calls)
    assert 0.15 < len(kept.records) / calls < 0.35


def test_levels_of_the_logger_count() -> None:
    """At WARNING only faults are logged, at ERROR nothing, and nothing is asked of the call."""
    ok, fault = record_of(), record_of(Code.INTERNAL)
    with logged(logging.WARNING) as (name, kept):
        seen(AccessLog(logger=name), ok, fault)
        assert [record.levelname for record in kept.records] == ["WARNING"]
    with logged(logging.ERROR) as (name, kept):
        log = AccessLog(logger=name)
        assert log.begin(ok) is None
        seen(log, ok, fault)
        assert kept.records == []


def test_level_raised_during_a_call() -> None:
    """A call that began before the log was switched on is not logged, and breaks nothing."""
    record = record_of()
    with logged(logging.ERROR) as (name, kept):
        log = AccessLog(logger=name)
        token = log.begin(record)
        logging.getLogger(name).setLevel(logging.INFO)
        log.end(record, token)
    assert kept.records == []


def test_fields_beside_those_of_a_users_record_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record factory that adds a field of the same name is no error; the call's own counts."""
    made = logging.getLogRecordFactory()

    def factory(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = made(*arguments, **options)
        record.__dict__.update(request_id="theirs", tenant="t")
        return record

    logging.setLogRecordFactory(factory)
    try:
        with logged() as (name, kept):
            seen(AccessLog(logger=name), record_of())
    finally:
        logging.setLogRecordFactory(made)
    (line,) = kept.records
    assert (line.__dict__["request_id"], line.__dict__["tenant"]) == ("r-1", "t")


def test_through_a_queue() -> None:
    """A standard queue handler carries the fields and the text on."""
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(lines)
    with logged() as (name, _):
        logging.getLogger(name).addHandler(handler)
        seen(AccessLog("json", logger=name), record_of())
        logging.getLogger(name).removeHandler(handler)
    record = lines.get_nowait()
    assert json.loads(record.getMessage())["method"] == "echo.Echo/Unary"
    assert record.__dict__["duration_ms"] == 12.5


def test_call_without_a_status() -> None:
    """A call of which no status is known has an empty code."""
    with logged() as (name, kept):
        seen(AccessLog(logger=name), record_of(None, metadata=()))
    (line,) = kept.records
    assert (line.__dict__["code"], line.__dict__["user_agent"]) == ("", "")
    assert len(line.__dict__["request_id"]) == 32


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"format": "xml"},
            "got 'xml' as the format of the access log, expected 'text' or 'json'",
        ),
        (
            {"sample": 1.5},
            "got 1.5 as the share of calls that are logged, expected 0.0 to 1.0",
        ),
        (
            {"sample": -0.1},
            "got -0.1 as the share of calls that are logged, expected 0.0 to 1.0",
        ),
        (
            {"sample": float("nan")},
            "got nan as the share of calls that are logged, expected 0.0 to 1.0",
        ),
    ],
)
def test_what_it_cannot_do(options: dict[str, Any], text: str) -> None:
    """A format that is not there, or a share that is none, is refused where it is given."""
    with pytest.raises(ValueError, match=r".") as caught:
        AccessLog(**options)
    assert str(caught.value) == text
