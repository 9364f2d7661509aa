"""Metrics: counts and durations of calls, for Prometheus.

The names are those of go-grpc-prometheus, which dashboards and alerts of this field are written
for: https://github.com/grpc-ecosystem/go-grpc-middleware/tree/main/providers/prometheus.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from dynserve.errors import DynserveError
from dynserve.observe.metrics_server import NEEDED

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from dynserve.method import MethodInfo
    from dynserve.observer import CallRecord

__all__ = ["Metrics"]

_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_UNKNOWN = ("unknown", "unknown", "unknown")
_TYPES = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """An observer that counts calls and messages, and measures how long calls take.

    ====================================  =========  ===============================================
    ``grpc_server_started_total``         counter    calls that began
    ``grpc_server_handled_total``         counter    calls that ended, by ``grpc_code``
    ``grpc_server_handling_seconds``      histogram  how long calls took
    ``grpc_server_msg_received_total``    counter    requests; those of a call when it has ended
    ``grpc_server_msg_sent_total``        counter    responses; the same
    ``grpc_server_calls_in_flight``       gauge      calls under way
    ====================================  =========  ===============================================

    Each has the labels ``grpc_type``, ``grpc_service`` and ``grpc_method``. All three are
    ``unknown`` for methods that are not there: what peers make up is no label.

    Args:
        registry: what the metrics are registered in; without, a new one, so that several servers
            can be in one process. It is the attribute ``registry``.
        buckets: upper bounds of the histogram, in seconds.

    Raises:
        DynserveError: ``prometheus-client`` is not installed.
        ValueError: the registry has metrics of these names.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, buckets: Sequence[float] = _BUCKETS
    ) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise DynserveError(NEEDED) from error
        self.registry = prometheus_client.CollectorRegistry() if registry is None else registry
        counter, into = prometheus_client.Counter, self.registry
        self._started = counter(
            "grpc_server_started_total", "Calls that began.", _LABELS, registry=into
        )
        self._handled = counter(
            "grpc_server_handled_total",
            "Calls that ended, by status code.",
            (*_LABELS, "grpc_code"),
            registry=into,
        )
        self._received = counter(
            "grpc_server_msg_received_total",
            "Requests of calls that ended.",
            _LABELS,
            registry=into,
        )
        self._sent = counter(
            "grpc_server_msg_sent_total", "Responses of calls that ended.", _LABELS, registry=into
        )
        self._seconds = prometheus_client.Histogram(
            "grpc_server_handling_seconds",
            "How long calls took, in seconds.",
            _LABELS,
            registry=into,
            buckets=buckets,
        )
        self._in_flight = prometheus_client.Gauge(
            "grpc_server_calls_in_flight",
            "Calls under way.",
            _LABELS,
            registry=into,
            multiprocess_mode="livesum",
        )
        # By path, of methods that are there: as many as schemas have, also after a reload.
        self._methods: dict[str, _Method] = {}
        self._unknown = _Method(self, _UNKNOWN)

    def prepare(self, methods: Iterable[MethodInfo]) -> None:
        """Have each of these counted as 0, for each status code, before it is first called.

        An alert on a rate misses the first failure of a counter that was not there before. That is
        36 lines of the endpoint and some 20 KB for a method: meant for those with a handler, not
        for all of a large schema.
        """
        for method in methods:
            series = self._of(method)
            for code in grpc.StatusCode:
                series.handled(code)

    def begin(self, record: CallRecord, /) -> _Method:
        """Count a call that begins."""
        method = record.method
        series = self._unknown
        if method is not None:
            series = self._methods.get(record.path) or self._of(method)
        series.started.inc()
        series.in_flight.inc()
        return series

    def end(self, record: CallRecord, series: _Method, /) -> None:
        """Count a call that ended, with its messages."""
        series.in_flight.dec()
        series.handled(record.code or grpc.StatusCode.UNKNOWN).inc()
        series.seconds.observe(record.seconds)
        if record.request_messages:
            series.received.inc(record.request_messages)
        if record.response_messages:
            series.sent.inc(record.response_messages)

    def _of(self, method: MethodInfo) -> _Method:
        labels = (_TYPES[method.kind.value], method.service, method.name)
        return self._methods.setdefault(method.path, _Method(self, labels))


class _Method:
    """The metrics of one method, looked up once."""

    __slots__ = (
        "_by_code",
        "_handled",
        "_labels",
        "in_flight",
        "received",
        "seconds",
        "sent",
        "started",
    )

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str]) -> None:
        self.started = metrics._started.labels(*labels)
        self.in_flight = metrics._in_flight.labels(*labels)
        self.seconds = metrics._seconds.labels(*labels)
        self.received = metrics._received.labels(*labels)
        self.sent = metrics._sent.labels(*labels)
        self._handled = metrics._handled
        self._labels = labels
        self._by_code: dict[grpc.StatusCode, Any] = {}

    def handled(self, code: grpc.StatusCode) -> Any:
        """The counter of calls that ended with this code."""
        found = self._by_code.get(code)
        if found is None:
            found = self._by_code[code] = self._handled.labels(*self._labels, code.name)
        return found
