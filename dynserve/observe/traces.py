"""Traces: a span and a duration for each call, by OpenTelemetry's conventions.

The names are those of the semantic conventions 1.44 for RPC and gRPC, release candidate
(https://opentelemetry.io/docs/specs/semconv/rpc/grpc/; opentelemetry-semantic-conventions 0.66b2):
``rpc.method`` is the whole name, and ``rpc.service`` and the metrics of sizes are gone. Only
``opentelemetry-api`` is needed here; what becomes of spans is for the SDK that the application sets
up. Without one, spans are made of nothing and cost little.
"""

from __future__ import annotations

import importlib
import urllib.parse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from dynserve.errors import DynserveError
from dynserve.observe.codes import SERVER_FAULTS

if TYPE_CHECKING:
    from opentelemetry.context import Context as TraceContext
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from dynserve.observer import CallRecord

__all__ = ["Traces", "trace_metadata"]

_NAME = "dynserve"
_NEEDED = "traces need the package opentelemetry-api; write `pip install 'dynserve[otel]'`"
_SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
_OTHER = "_OTHER"  # the conventions' word for a method that nobody serves
_MAX_TEXT = 200  # characters of a text that came from a peer
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)  # seconds


class _Traced(NamedTuple):
    """A call that is under way."""

    span: Span
    context: TraceContext
    token: Any


class Traces:
    """An observer that makes a server's span of each call, and records how long it took.

    The span is the child of the client's, by what the global propagator finds in the metadata
    (``traceparent``, ``tracestate`` and ``baggage`` by default), and the parent of what the handler
    makes. It fails only for faults of the server. What a handler raised is an event of it, with
    text and traceback: they go to your own backend.

    ``rpc.server.call.duration`` is a histogram in seconds, by method and status code.

    Args:
        tracer_provider, meter_provider: where spans and durations go; without, OpenTelemetry's
            global ones.
        address: where the server listens, ``HOST:PORT`` or ``unix:PATH``, for ``server.address``
            and ``server.port``: a call does not tell.
        only: told of each call when it begins; those that it returns False for are left out.

    Raises:
        DynserveError: ``opentelemetry-api`` is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        address: str = "",
        only: Callable[[CallRecord], bool] | None = None,
    ) -> None:
        self._api = _Api()
        version = importlib.import_module("importlib.metadata").version(_NAME)
        self._tracer = self._api.trace.get_tracer(_NAME, version, tracer_provider, _SCHEMA_URL)
        meter = self._api.metrics.get_meter(_NAME, version, meter_provider, _SCHEMA_URL)
        self._duration = meter.create_histogram(
            "rpc.server.call.duration",
            unit="s",
            description="Measures the duration of an incoming Remote Procedure Call (RPC).",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._only = only
        self._server = _server_of(address)
        self._measured: dict[tuple[str, grpc.StatusCode | None], dict[str, AttributeValue]] = {}

    def begin(self, record: CallRecord, /) -> _Traced | None:
        """Start the span, and make it the current one for what runs in the call."""
        if self._only is not None and not self._only(record):
            return None
        api = self._api
        # From nothing: the span that was current where the server was started is no parent.
        parent = api.propagate.extract(
            record.context.invocation_metadata(), api.Context(), api.getter
        )
        name = _name_of(record)
        attributes: dict[str, AttributeValue] = {
            "rpc.system.name": "grpc",
            "rpc.method": name,
            "dynserve.request_id": record.context.request_id,  # a call that is over has none
            **self._server,
            **_peer_of(record.context.peer()),
        }
        if record.method is None:
            attributes["rpc.method_original"] = _printable(record.path)
        span = self._tracer.start_span(
            "grpc" if record.method is None else name,
            parent,
            api.trace.SpanKind.SERVER,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        )
        # Where nothing makes spans, the client's trace goes on as it came.
        is_made = span.get_span_context().is_valid
        context = api.trace.set_span_in_context(span, parent) if is_made else parent
        return _Traced(span, context, api.attach(context))

    def end(self, record: CallRecord, traced: _Traced | None, /) -> None:
        """End the span and record the duration."""
        if traced is None:
            return
        self._api.detach(traced.token)
        span = traced.span
        try:
            if span.is_recording():
                self._tell(span, record)
        finally:
            span.end()
            self._duration.record(record.seconds, self._measures(record), traced.context)

    def _tell(self, span: Span, record: CallRecord) -> None:
        code = record.code
        if code is None:
            return
        told: dict[str, AttributeValue] = {"rpc.response.status_code": code.name}
        if record.error_id:
            told["dynserve.error_id"] = record.error_id
        if code in SERVER_FAULTS:
            told["error.type"] = code.name
        span.set_attributes(told)
        if code in SERVER_FAULTS:
            span.set_status(self._api.trace.StatusCode.ERROR, record.details or None)
            if record.error is not None:
                span.record_exception(record.error)

    def _measures(self, record: CallRecord) -> dict[str, AttributeValue]:
        """The attributes of a duration; there are few, since no peer's text is in them."""
        name, code = _name_of(record), record.code
        found = self._measured.get((name, code))
        if found is None:
            found = {"rpc.system.name": "grpc", "rpc.method": name}
            if code is not None:
                found["rpc.response.status_code"] = code.name
                if code in SERVER_FAULTS:
                    found["error.type"] = code.name
            self._measured[name, code] = found
        return found


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """What carries the current trace on, as metadata for a call to another server.

    ::

        def get_feature(point, context):
            return other.get_feature(point, metadata=trace_metadata())

    Empty outside of a trace.

    Raises:
        DynserveError: ``opentelemetry-api`` is not installed.
    """
    try:
        from opentelemetry import propagate
    except ImportError as error:
        raise DynserveError(_NEEDED) from error
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((key.lower(), value) for key, value in carrier.items())


class _Api:
    """What is used of ``opentelemetry-api``, which is imported when it is needed."""

    def __init__(self) -> None:
        try:
            from opentelemetry import context, metrics, propagate, trace
            from opentelemetry.propagators.textmap import Getter
        except ImportError as error:
            raise DynserveError(_NEEDED) from error

        class MetadataGetter(Getter[Sequence[tuple[str, "str | bytes"]]]):
            """Reads text from metadata; values of binary keys are no text."""

            def get(self, carrier: Sequence[tuple[str, str | bytes]], key: str) -> list[str] | None:
                wanted = key.lower()
                values = [v for k, v in carrier if k == wanted and isinstance(v, str)]
                return values or None

            def keys(self, carrier: Sequence[tuple[str, str | bytes]]) -> list[str]:
                return [key for key, value in carrier if isinstance(value, str)]

        self.trace = trace
        self.metrics = metrics
        self.propagate = propagate
        self.attach = context.attach
        self.detach = context.detach
        self.Context = context.Context
        self.getter = MetadataGetter()


def _name_of(record: CallRecord) -> str:
    return _OTHER if record.method is None else record.path[1:]


def _printable(path: str) -> str:
    """A peer's text, cut, and with what is not printable escaped."""
    text = path[1 : _MAX_TEXT + 1]
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _peer_of(peer: str) -> dict[str, AttributeValue]:
    """Who calls, from gRPC's URI: ``ipv4:127.0.0.1:5000``, ``ipv6:%5B::1%5D:5000``, ``unix:``."""
    scheme, _, rest = peer.partition(":")
    if scheme == "unix":
        return {"network.transport": "unix", **({"network.peer.address": rest} if rest else {})}
    if scheme not in ("ipv4", "ipv6"):
        return {}
    host, _, port = urllib.parse.unquote(rest).rpartition(":")
    return {
        "network.transport": "tcp",
        "network.peer.address": host.strip("[]"),
        **({"network.peer.port": int(port)} if port.isdigit() else {}),
    }


def _server_of(address: str) -> dict[str, AttributeValue]:
    if not address:
        return {}
    if address.startswith("unix:"):
        return {"server.address": address.removeprefix("unix:")}
    host, _, port = address.rpartition(":")
    return {
        "server.address": host.strip("[]"),
        **({"server.port": int(port)} if port.isdigit() and port != "0" else {}),
    }
