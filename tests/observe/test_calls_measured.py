"""Traces and metrics of calls that are served: of each kind, on each engine, however they end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra 'otel', and its SDK")
pytest.importorskip("prometheus_client", reason="the extra 'prometheus'")

from opentelemetry import trace

from dynserve import App, Kind, connect
from dynserve.observe import AccessLog, Metrics, Traces, trace_metadata
from tests.conftest import Serve
from tests.echo import PATHS, Item, app_with, schema
from tests.observe.calls import (
    ENDS,
    METADATA,
    End,
    Kept,
    app_that,
    called,
    every_call,
    messages_of,
)
from tests.observe.records import method_of
from tests.observe.test_access_log import FAULTS, logged
from tests.observe.test_metrics import TYPES, values
from tests.observe.test_traces import PARENT, TRACE, TRACEPARENT, Backend, backend

__all__ = ["backend"]


@every_call
def test_a_call(
    serve: Serve,
    kind: Kind,
    is_async: bool,
    end: End,
    backend: Backend,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One span, with the handler's below it, one duration, one count, one line with the trace."""
    began, kept, metrics = threading.Event(), Kept(), Metrics()
    tracer = backend.provider.get_tracer("handler")

    def act() -> None:
        with tracer.start_as_current_span("query"):
            pass

    app = app_that(kind, is_async, end, began, act)
    with logged() as (name, lines):
        traces = Traces(backend.provider, backend.meters)
        observers = [kept, traces, metrics, AccessLog(logger=name)]
        with serve(app, observers=observers) as client:
            code, _ = called(client, kind, end, began, (*METADATA, TRACEPARENT))
            record = kept.next()
    assert code is end.code
    assert record.code in end.seen
    assert record.code is not None
    seen = record.code.name
    query, call = backend.spans
    assert (query.name, call.name) == ("query", record.path[1:])
    assert call.parent is not None
    assert query.parent is not None
    assert call.context is not None
    assert f"{call.parent.trace_id:032x}-{call.parent.span_id:016x}" == f"{TRACE}-{PARENT}"
    assert query.parent.span_id == call.context.span_id
    assert (call.attributes or {})["rpc.response.status_code"] == seen
    is_fault = record.code in FAULTS
    assert (call.status.status_code is trace.StatusCode.ERROR) == is_fault
    assert lines.records[0].__dict__["trace_id"] == TRACE
    ((*_, points),) = backend.durations()
    assert [(p.attributes["rpc.response.status_code"], p.count) for p in points] == [(seen, 1)]
    assert values(metrics) == counted(kind, end, seen, record.seconds)
    own = [r.getMessage() for r in caplog.records if r.name.startswith("opentelemetry")]
    assert own == []


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", list(Kind), ids=str)
def test_spans_of_middleware(
    serve: Serve,
    kind: Kind,
    is_async: bool,
    backend: Backend,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What middleware makes is in the call's span, and what it holds open holds the handler's."""
    began, kept, end = threading.Event(), Kept(), ENDS[0]
    tracer = backend.provider.get_tracer("test")

    def around(_context: Any) -> Iterator[None]:
        with tracer.start_as_current_span("sync"):
            yield

    async def around_async(_context: Any) -> AsyncIterator[None]:
        with tracer.start_as_current_span("async"):
            yield

    def act() -> None:
        with tracer.start_as_current_span("query"):
            pass

    app = app_that(kind, is_async, end, began, act)
    app.add_middleware(around_async)
    app.add_middleware(around)
    with serve(app, observers=[kept, Traces(backend.provider)]) as client:
        assert called(client, kind, end, began)[0] is end.code
        kept.next()
    spans = {span.context.span_id: span for span in backend.spans if span.context is not None}
    found = [span for span in spans.values() if span.name == "query"]
    while found[-1].parent is not None:
        found.append(spans[found[-1].parent.span_id])
    assert [span.name for span in found] == ["query", "sync", "async", f"{PATHS[kind]}"]
    own = [r.getMessage() for r in caplog.records if r.name.startswith("opentelemetry")]
    assert own == []


def counted(kind: Kind, end: End, code: str, seconds: float) -> dict[str, float]:
    """The metrics of one call."""
    method = method_of(kind).name
    labels = f'grpc_method="{method}",grpc_service="echo.Echo",grpc_type="{TYPES[kind]}"'
    messages = messages_of(kind, end)
    found = {
        f"grpc_server_started_total{{{labels}}}": 1.0,
        f'grpc_server_handled_total{{grpc_code="{code}",{labels}}}': 1.0,
        f"grpc_server_handling_seconds_count{{{labels}}}": 1.0,
        f"grpc_server_handling_seconds_sum{{{labels}}}": seconds,
        f"grpc_server_msg_received_total{{{labels}}}": messages["request_messages"],
        f"grpc_server_msg_sent_total{{{labels}}}": messages["response_messages"],
    }
    return {name: value for name, value in found.items() if value}


def test_a_method_that_is_not_there(serve: Serve, backend: Backend) -> None:
    """It is seen, under no name of the caller's."""
    kept, metrics = Kept(), Metrics()
    observers = [kept, Traces(backend.provider, backend.meters), metrics]
    with serve(App(schema=schema), observers=observers) as client:
        method: Any = client.channel.unary_unary("/no.Such/Method")
        with pytest.raises(grpc.RpcError):
            method(b"", timeout=20)
        kept.next()
    (span,) = backend.spans
    attributes: Any = span.attributes
    assert (span.name, attributes["rpc.method"], attributes["rpc.method_original"]) == (
        "grpc",
        "_OTHER",
        "no.Such/Method",
    )
    assert {name for name in values(metrics) if "handled" in name} == {
        'grpc_server_handled_total{grpc_code="UNIMPLEMENTED",grpc_method="unknown",'
        'grpc_service="unknown",grpc_type="unknown"}'
    }


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_trace_goes_on_to_another_server(serve: Serve, backend: Backend, is_async: bool) -> None:
    """A handler that calls another server sends its trace along, with one argument."""
    observers = [Traces(backend.provider, backend.meters)]
    inner = app_with(lambda request: request, Kind.UNARY_UNARY)
    with (
        serve(inner, observers=observers) as behind,
        connect(behind.address, schema=schema) as other,
    ):

        def forward(request: Any) -> Any:
            return other.service("echo.Echo").Unary(request, metadata=trace_metadata())

        async def forward_async(request: Any) -> Any:
            return await asyncio.to_thread(forward, request)

        outer = app_with(forward_async if is_async else forward, Kind.UNARY_UNARY)
        with serve(outer, observers=observers) as client:
            client.method("echo.Echo/Unary")(Item(number=1), timeout=20, metadata=(TRACEPARENT,))
    second, first = [span for span in backend.spans if span.name == "echo.Echo/Unary"]
    assert second.parent is not None
    assert first.context is not None
    assert (second.parent.trace_id, second.parent.span_id) == (
        int(TRACE, 16),
        first.context.span_id,
    )


def test_ends_have_every_way() -> None:
    """The table has an end for each way that observers tell apart."""
    assert {end.code in FAULTS for end in ENDS} == {True, False}
