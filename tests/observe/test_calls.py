"""The access log of calls that are served: of each kind, on each engine, however they end."""

from __future__ import annotations

import logging
import threading
from typing import Any

import grpc
import pytest

from dynserve import App, Kind
from dynserve.observe import AccessLog
from dynserve.observe.formats import FIELDS
from tests.conftest import Serve
from tests.echo import Item, schema
from tests.observe.calls import METADATA, End, Kept, app_that, called, every_call, messages_of
from tests.observe.test_access_log import FAULTS, logged


@every_call
def test_line_of_a_call(serve: Serve, kind: Kind, is_async: bool, end: End) -> None:
    """The access log has one line, with what the client saw and what was sent each way."""
    began, kept = threading.Event(), Kept()
    app = app_that(kind, is_async, end, began, lambda: None)
    with logged() as (name, lines), serve(app, observers=[kept, AccessLog(logger=name)]) as client:
        code, details = called(client, kind, end, began)
        record = kept.next()
    assert code is end.code
    assert record.code in end.seen
    assert record.code is not None
    (line,) = lines.records
    shown = {field: line.__dict__[field] for field in FIELDS}
    assert shown.pop("duration_ms") > 0
    assert shown.pop("peer").startswith("ipv4:127.0.0.1:")
    assert shown.pop("user_agent").startswith("grpc-python/")
    error_id = shown.pop("error_id")
    assert shown == {
        "method": record.path[1:],
        "code": record.code.name,
        **messages_of(kind, end),
        "request_id": "r-1",
        "trace_id": "",
        "identity": "",
    }
    assert (line.levelno == logging.WARNING) == (record.code in FAULTS)
    if end.error is ValueError:
        assert details == f"internal error (error id {error_id})"
        assert repr(kept.error) == "ValueError('secret')"
    else:
        assert error_id == ""
    assert "secret" not in lines.lines[0]


@pytest.mark.parametrize("path", ["/echo.Echo/Nothing", "/no.Such/Method", "/", "/a b\u00e9"])
def test_line_of_a_method_that_is_not_there(serve: Serve, path: str) -> None:
    """It is a line of the caller's fault, with what was asked for."""
    app, kept = App(schema=schema), Kept()
    with logged() as (name, lines), serve(app, observers=[kept, AccessLog(logger=name)]) as client:
        method: Any = client.channel.unary_unary(path)
        with pytest.raises(grpc.RpcError) as caught:
            method(b"", timeout=20, metadata=METADATA)
        record = kept.next()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert record.method is None
    (line,) = lines.records
    assert (line.levelname, line.__dict__["method"], line.__dict__["code"]) == (
        "INFO",
        path[1:],
        "UNIMPLEMENTED",
    )
    assert lines.lines[0].isprintable()


def test_line_of_a_method_without_a_handler(serve: Serve) -> None:
    """A method of the schema that nobody handles is like one that is not there."""
    app, kept = App(schema=schema), Kept()
    with logged() as (name, lines), serve(app, observers=[kept, AccessLog(logger=name)]) as client:
        with pytest.raises(grpc.RpcError):
            client.call("echo.Echo/Unary", Item(number=1))
        kept.next()
    assert [(r.levelname, r.__dict__["method"]) for r in lines.records] == [
        ("INFO", "echo.Echo/Unary")
    ]
