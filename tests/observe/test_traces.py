"""Traces: spans and durations by OpenTelemetry's conventions, and traces that go on."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra 'otel', and its SDK")

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from dynserve import DynserveError, Kind, StatusError
from dynserve.observe import AccessLog, Traces, trace_metadata
from dynserve.observe import traces as module
from tests.observe.records import METADATA, record_of, seen
from tests.observe.test_access_log import FAULTS, logged

Code = grpc.StatusCode
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE}-{PARENT}-01")
CALL = {
    "rpc.system.name": "grpc",
    "rpc.method": "echo.Echo/Unary",
    "network.transport": "tcp",
    "network.peer.address": "127.0.0.1",
    "network.peer.port": 50000,
    "dynserve.request_id": "r-1",
}


class Backend:
    """Where spans and durations go."""

    def __init__(self, **options: Any) -> None:
        self._spans = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    def durations(self) -> list[Any]:
        """Scope, name, unit and points of each metric."""
        data: Any = self._reader.get_metrics_data()
        if data is None:
            return []
        return [
            (scope.scope.name, metric.name, metric.unit, metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = Backend()
    yield backend
    backend.provider.shutdown()
    backend.meters.shutdown()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", list(Kind), ids=str)
def test_span_of_a_call(backend: Backend, kind: Kind, is_async: bool) -> None:
    """A call of each kind is a span of a server, named for its method, below the client's."""
    record = record_of(kind=kind, is_async=is_async, metadata=(*METADATA, TRACEPARENT))
    seen(Traces(backend.provider, backend.meters, address="0.0.0.0:50051"), record)
    (span,) = backend.spans
    assert (span.name, span.kind) == (record.path[1:], trace.SpanKind.SERVER)
    assert dict(span.attributes or {}) == {
        **CALL,
        "rpc.method": record.path[1:],
        "server.address": "0.0.0.0",
        "server.port": 50051,
        "rpc.response.status_code": "OK",
    }
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == f"{TRACE}-{PARENT}"
    assert (span.status.status_code, span.events) == (trace.StatusCode.UNSET, ())
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("dynserve", module._SCHEMA_URL)


def test_names_are_those_of_the_conventions() -> None:
    """What is written out here, to need no more than the API, is what the conventions say."""
    schemas = pytest.importorskip("opentelemetry.semconv.schemas")
    if not hasattr(schemas.Schemas, "V1_44_0"):
        pytest.skip("this package has older conventions")
    from opentelemetry.semconv._incubating.attributes import rpc_attributes as rpc
    from opentelemetry.semconv._incubating.metrics import rpc_metrics
    from opentelemetry.semconv.attributes import error_attributes, server_attributes
    from opentelemetry.semconv.attributes import network_attributes as network

    assert schemas.Schemas.V1_44_0.value == module._SCHEMA_URL
    assert {
        rpc.RPC_SYSTEM_NAME: rpc.RpcSystemNameValues.GRPC.value,
        rpc.RPC_METHOD: CALL["rpc.method"],
        network.NETWORK_TRANSPORT: network.NetworkTransportValues.TCP.value,
        network.NETWORK_PEER_ADDRESS: CALL["network.peer.address"],
        network.NETWORK_PEER_PORT: CALL["network.peer.port"],
        "dynserve.request_id": "r-1",
    } == CALL
    assert [
        rpc.RPC_RESPONSE_STATUS_CODE,
        rpc.RPC_METHOD_ORIGINAL,
        error_attributes.ERROR_TYPE,
        server_attributes.SERVER_ADDRESS,
        server_attributes.SERVER_PORT,
        rpc_metrics.RPC_SERVER_CALL_DURATION,
    ] == [
        "rpc.response.status_code",
        "rpc.method_original",
        "error.type",
        "server.address",
        "server.port",
        "rpc.server.call.duration",
    ]


@pytest.mark.parametrize("code", list(Code), ids=str)
def test_only_faults_of_the_server_fail_a_span(backend: Backend, code: grpc.StatusCode) -> None:
    """Each code is told; the conventions say which are errors of a server's span."""
    record = record_of(code, details="told", error=ValueError("cause"), error_id="e1")
    seen(Traces(backend.provider, backend.meters), record)
    (span,) = backend.spans
    told = {**CALL, "rpc.response.status_code": code.name, "dynserve.error_id": "e1"}
    is_fault = code in FAULTS
    assert dict(span.attributes or {}) == ({**told, "error.type": code.name} if is_fault else told)
    assert (span.status.status_code, span.status.description) == (
        (trace.StatusCode.ERROR, "told") if is_fault else (trace.StatusCode.UNSET, None)
    )
    assert [event.name for event in span.events] == (["exception"] if is_fault else [])


def test_exception_of_a_handler(backend: Backend) -> None:
    """Type, text and traceback are an event of the span."""
    try:
        raise StatusError(Code.UNAVAILABLE, "no database")
    except StatusError as error:
        raised = error
    seen(Traces(backend.provider), record_of(Code.UNAVAILABLE, error=raised))
    (event,) = backend.spans[0].events
    attributes: Any = event.attributes
    assert attributes["exception.type"] == "dynserve.status.StatusError"
    assert attributes["exception.message"] == "UNAVAILABLE: no database"
    assert (
        'raise StatusError(Code.UNAVAILABLE, "no database")' in attributes["exception.stacktrace"]
    )


def test_exception_that_has_no_text(backend: Backend) -> None:
    """Whatever its text raises, the span ends and the duration is recorded."""

    class Untold(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    traces = Traces(backend.provider, backend.meters)
    record = record_of(Code.INTERNAL, error=Untold())
    with pytest.raises(Exception, match=r"."):
        seen(traces, record)
    assert [span.name for span in backend.spans] == ["echo.Echo/Unary"]
    assert [point.count for *_, points in backend.durations() for point in points] == [1]
    assert not trace.get_current_span().get_span_context().is_valid


def test_method_that_is_not_there(backend: Backend) -> None:
    """Its span and duration have no name that a peer made up; what was asked for is cut."""
    seen(
        Traces(backend.provider, backend.meters),
        record_of(Code.UNIMPLEMENTED, path="/no.Such/\n" + "x" * 500),
        record_of(Code.UNIMPLEMENTED, path="/no.Such/Other"),
    )
    first, second = backend.spans
    assert (first.name, second.name) == ("grpc", "grpc")
    assert (first.attributes or {})["rpc.method"] == "_OTHER"
    assert (first.attributes or {})["rpc.method_original"] == "no.Such/\\n" + "x" * 191
    assert (second.attributes or {})["rpc.method_original"] == "no.Such/Other"
    ((_, _, _, points),) = backend.durations()
    assert [(dict(point.attributes), point.count) for point in points] == [
        (
            {
                "rpc.system.name": "grpc",
                "rpc.method": "_OTHER",
                "rpc.response.status_code": "UNIMPLEMENTED",
                "error.type": "UNIMPLEMENTED",
            },
            2,
        )
    ]


def test_durations(backend: Backend) -> None:
    """A histogram in seconds by method and code, with the conventions' buckets."""
    seen(
        Traces(backend.provider, backend.meters),
        record_of(seconds=0.5),
        record_of(seconds=0.25),
        record_of(Code.INTERNAL, seconds=2.0),
        record_of(None, seconds=1.0),
    )
    ((scope, name, unit, points),) = backend.durations()
    assert (scope, name, unit) == ("dynserve", "rpc.server.call.duration", "s")
    by = {"rpc.system.name": "grpc", "rpc.method": "echo.Echo/Unary"}
    assert [(dict(point.attributes), point.count, point.sum) for point in points] == [
        ({**by, "rpc.response.status_code": "OK"}, 2, 0.75),
        ({**by, "rpc.response.status_code": "INTERNAL", "error.type": "INTERNAL"}, 1, 2.0),
        (by, 1, 1.0),
    ]
    assert points[0].explicit_bounds == module._BUCKETS


@pytest.mark.parametrize(
    ("peer", "attributes"),
    [
        (
            "ipv6:%5B::1%5D:50000",
            {
                "network.transport": "tcp",
                "network.peer.address": "::1",
                "network.peer.port": 50000,
            },
        ),
        ("unix:", {"network.transport": "unix"}),
        (
            "unix:/run/a b",
            {"network.transport": "unix", "network.peer.address": "/run/a b"},
        ),
        ("ipv4:127.0.0.1", {"network.transport": "tcp", "network.peer.address": ""}),
        ("", {}),
        ("vsock:1:2", {}),
    ],
)
def test_peers(backend: Backend, peer: str, attributes: dict[str, Any]) -> None:
    """Every form in which gRPC names a peer."""
    seen(Traces(backend.provider), record_of(peer=peer))
    found = dict(backend.spans[0].attributes or {})
    assert {k: v for k, v in found.items() if k.startswith("network.")} == attributes


@pytest.mark.parametrize(
    ("address", "attributes"),
    [
        ("[::1]:50051", {"server.address": "::1", "server.port": 50051}),
        ("unix:/run/socket", {"server.address": "/run/socket"}),
        ("localhost:https", {"server.address": "localhost"}),
        ("127.0.0.1:0", {"server.address": "127.0.0.1"}),
        ("", {}),
    ],
)
def test_addresses(backend: Backend, address: str, attributes: dict[str, Any]) -> None:
    """Where the server listens, in every form."""
    seen(Traces(backend.provider, address=address), record_of())
    found = dict(backend.spans[0].attributes or {})
    assert {k: v for k, v in found.items() if k.startswith("server.")} == attributes


@pytest.mark.parametrize(
    "metadata",
    [
        (("traceparent", "nonsense"),),
        (("traceparent", TRACEPARENT[1].encode()),),
        (("traceparent-bin", TRACEPARENT[1].encode()),),
        (TRACEPARENT, ("traceparent", "00-00000000000000000000000000000000-0-01"))[1:],
        (("baggage", "=" * 9000), ("tracestate", "\x00,,=")),
        (),
    ],
)
def test_metadata_that_is_no_trace(
    backend: Backend, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    """What cannot be read, or is binary, begins a trace of its own."""
    seen(Traces(backend.provider), record_of(metadata=metadata))
    assert backend.spans[0].parent is None


def test_what_was_current_where_the_server_was_started_is_no_parent(backend: Backend) -> None:
    """A call without a trace begins one, even in the context of a test's own span."""
    tracer = backend.provider.get_tracer("test")
    with tracer.start_as_current_span("outer") as outer:
        seen(Traces(backend.provider), record_of())
        assert trace.get_current_span() is outer
    call, _ = backend.spans
    assert call.parent is None


def test_spans_of_a_handler_are_children(backend: Backend) -> None:
    """Between begin and end the call's span is the current one, and its baggage is there."""
    traces = Traces(backend.provider)
    tracer = backend.provider.get_tracer("handler")
    record = record_of(metadata=(TRACEPARENT, ("baggage", "user=ada")))
    token = traces.begin(record)
    with tracer.start_as_current_span("query"):
        assert baggage.get_baggage("user") == "ada"
        assert dict(trace_metadata())["traceparent"].startswith(f"00-{TRACE}-")
        assert dict(trace_metadata())["baggage"] == "user=ada"
    traces.end(record, token)
    query, call = backend.spans
    assert query.parent is not None
    assert call.context is not None
    assert query.parent.span_id == call.context.span_id
    assert context.get_current() == {}


def test_calls_in_tasks_do_not_mix(backend: Backend) -> None:
    """Tasks that take turns have each its own current span."""
    traces = Traces(backend.provider)
    tracer = backend.provider.get_tracer("handler")

    async def call(number: int) -> None:
        record = record_of(metadata=(("x-request-id", str(number)),), is_async=True)
        token = traces.begin(record)
        for _ in range(5):
            await asyncio.sleep(0)
            with tracer.start_as_current_span(f"query {number}"):
                await asyncio.sleep(0)
        traces.end(record, token)

    async def main() -> None:
        await asyncio.gather(*map(call, range(10)))

    asyncio.run(main())
    calls = {
        span.context.span_id: (span.attributes or {})["dynserve.request_id"]
        for span in backend.spans
        if span.context is not None and span.name == "echo.Echo/Unary"
    }
    queries = [span for span in backend.spans if span.name.startswith("query")]
    assert len(queries) == 50
    for query in queries:
        assert query.parent is not None
        assert query.name == f"query {calls[query.parent.span_id]}"


class EveryKey(TextMapPropagator):
    """A propagator that looks through all that was sent, as some do for baggage."""

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        return baggage.set_baggage("keys", getter.keys(carrier), context)

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        setter.set(carrier, "X-Keys", "given")

    @property
    def fields(self) -> set[str]:
        return {"x-keys"}


def test_another_propagator(backend: Backend) -> None:
    """What the application has set for all is used, each way; keys are sent in small letters."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(EveryKey())
    try:
        traces = Traces(backend.provider)
        record = record_of(metadata=(("a", "text"), ("b-bin", b"\x00")))
        token = traces.begin(record)
        assert baggage.get_baggage("keys") == ["a"]
        assert trace_metadata() == (("x-keys", "given"),)
        traces.end(record, token)
    finally:
        propagate.set_global_textmap(before)


def test_trace_metadata_outside_of_a_trace() -> None:
    """Where nothing is traced, nothing is sent on."""
    assert trace_metadata() == ()


def test_only(backend: Backend) -> None:
    """Calls that are left out have neither span nor duration."""
    traces = Traces(
        backend.provider, backend.meters, only=lambda record: record.path != "/echo.Echo/Unary"
    )
    seen(traces, record_of(), record_of(kind=Kind.STREAM_STREAM))
    assert [span.name for span in backend.spans] == ["echo.Echo/Chat"]
    ((*_, points),) = backend.durations()
    assert [point.attributes["rpc.method"] for point in points] == ["echo.Echo/Chat"]


def test_spans_that_are_not_sampled() -> None:
    """Nothing is told of them, but their durations are."""
    backend = Backend(sampler=ALWAYS_OFF)
    seen(Traces(backend.provider, backend.meters), record_of(Code.INTERNAL, error=ValueError()))
    assert backend.spans == ()
    ((*_, points),) = backend.durations()
    assert [point.count for point in points] == [1]
    backend.provider.shutdown()
    backend.meters.shutdown()


def test_without_an_sdk_nothing_is_made(caplog: pytest.LogCaptureFixture) -> None:
    """With the API alone calls are as they were, and the client's trace goes on."""
    traces = Traces(trace.NoOpTracerProvider())
    record = record_of(metadata=(TRACEPARENT,))
    token = traces.begin(record)
    assert dict(trace_metadata()) == {"traceparent": TRACEPARENT[1]}
    traces.end(record, token)
    assert caplog.records == []


def test_the_access_log_names_the_trace(backend: Backend) -> None:
    """A line of the log, written inside of the call's span, has the id of its trace."""
    with logged(logging.INFO) as (name, kept):
        traces, log = Traces(backend.provider), AccessLog(logger=name)
        record = record_of(metadata=(TRACEPARENT,))
        token = traces.begin(record)
        seen(log, record)
        traces.end(record, token)
        seen(log, record)
    assert [line.__dict__["trace_id"] for line in kept.records] == [TRACE, ""]


@pytest.mark.parametrize("use", [Traces, trace_metadata])
def test_without_the_extra(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where opentelemetry-api is missing, what to install is said."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(DynserveError) as caught:
        use()
    assert str(caught.value) == (
        "traces need the package opentelemetry-api; write `pip install 'dynserve[otel]'`"
    )
