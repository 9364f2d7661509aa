"""Seeing: what observers tell of calls, as lines of a log, as traces, and as metrics."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynserve.observe.access_log import AccessLog
    from dynserve.observe.batched import BatchedHandler
    from dynserve.observe.formats import JSONFormatter
    from dynserve.observe.metrics import Metrics
    from dynserve.observe.metrics_server import MetricsServer
    from dynserve.observe.traces import Traces, trace_metadata

__all__ = [
    "AccessLog",
    "BatchedHandler",
    "JSONFormatter",
    "Metrics",
    "MetricsServer",
    "Traces",
    "trace_metadata",
]

# Each is imported when it is first asked for: who serves metrics of others needs no gRPC.
_HOMES = {
    "AccessLog": "access_log",
    "BatchedHandler": "batched",
    "JSONFormatter": "formats",
    "Metrics": "metrics",
    "MetricsServer": "metrics_server",
    "Traces": "traces",
    "trace_metadata": "traces",
}

if not TYPE_CHECKING:  # a type checker would take it to mean that every name is there

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
