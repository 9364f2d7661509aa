"""Metrics: what is counted of calls of each kind, by labels that no peer can add to."""

from __future__ import annotations

import sys
import threading
from typing import Any

import grpc
import pytest

prometheus_client = pytest.importorskip("prometheus_client", reason="the extra 'prometheus'")

from dynserve import DynserveError, Kind  # noqa: E402
from dynserve.observe import Metrics  # noqa: E402
from tests.observe.records import method_of, record_of, seen  # noqa: E402

Code = grpc.StatusCode
TYPES = {
    Kind.UNARY_UNARY: "unary",
    Kind.UNARY_STREAM: "server_stream",
    Kind.STREAM_UNARY: "client_stream",
    Kind.STREAM_STREAM: "bidi_stream",
}


def values(metrics: Metrics) -> dict[str, float]:
    """Each sample that is not 0, as the endpoint shows it; without times of making and buckets."""
    lines = prometheus_client.generate_latest(metrics.registry).decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {
        name: float(value)
        for name, _, value in samples
        if float(value) and "_created" not in name and "_bucket" not in name
    }


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", list(Kind), ids=str)
def test_a_call(kind: Kind, is_async: bool) -> None:
    """A call of each kind is counted when it begins and when it ends, with its messages."""
    metrics = Metrics()
    record = record_of(kind=kind, is_async=is_async, request_messages=2, response_messages=3)
    method = method_of(kind)
    labels = f'grpc_method="{method.name}",grpc_service="echo.Echo",grpc_type="{TYPES[kind]}"'
    token = metrics.begin(record)
    assert values(metrics) == {
        f"grpc_server_started_total{{{labels}}}": 1.0,
        f"grpc_server_calls_in_flight{{{labels}}}": 1.0,
    }
    metrics.end(record, token)
    assert values(metrics) == {
        f"grpc_server_started_total{{{labels}}}": 1.0,
        f'grpc_server_handled_total{{grpc_code="OK",{labels}}}': 1.0,
        f"grpc_server_msg_received_total{{{labels}}}": 2.0,
        f"grpc_server_msg_sent_total{{{labels}}}": 3.0,
        f"grpc_server_handling_seconds_count{{{labels}}}": 1.0,
        f"grpc_server_handling_seconds_sum{{{labels}}}": 0.0125,
    }


@pytest.mark.parametrize("code", [*Code, None], ids=str)
def test_each_code_has_a_counter(code: grpc.StatusCode | None) -> None:
    """Calls are counted by what they ended with; UNKNOWN where no status is known."""
    metrics = Metrics()
    seen(metrics, record_of(code), record_of(code))
    name = "UNKNOWN" if code is None else code.name
    handled = {k: v for k, v in values(metrics).items() if "handled" in k}
    assert handled == {
        f'grpc_server_handled_total{{grpc_code="{name}",grpc_method="Unary",'
        'grpc_service="echo.Echo",grpc_type="unary"}': 2.0
    }


def test_what_peers_make_up_is_no_label() -> None:
    """However many paths are asked for that are not there, they are one series, 'unknown'."""
    metrics = Metrics()
    paths = [f"/no.Such{number}/Method\n" for number in range(1000)]
    seen(metrics, *[record_of(Code.UNIMPLEMENTED, path=path) for path in paths])
    labels = 'grpc_method="unknown",grpc_service="unknown",grpc_type="unknown"'
    assert values(metrics) == {
        f"grpc_server_started_total{{{labels}}}": 1000.0,
        f'grpc_server_handled_total{{grpc_code="UNIMPLEMENTED",{labels}}}': 1000.0,
        f"grpc_server_msg_received_total{{{labels}}}": 1000.0,
        f"grpc_server_handling_seconds_count{{{labels}}}": 1000.0,
        f"grpc_server_handling_seconds_sum{{{labels}}}": pytest.approx(12.5),
    }


def test_buckets() -> None:
    """Durations fall into the buckets that were asked for."""
    metrics = Metrics(buckets=[0.01, 1.0])
    seen(metrics, record_of(seconds=0.005), record_of(seconds=0.5), record_of(seconds=5.0))
    found = {
        le: metrics.registry.get_sample_value(
            "grpc_server_handling_seconds_bucket",
            {"grpc_type": "unary", "grpc_service": "echo.Echo", "grpc_method": "Unary", "le": le},
        )
        for le in ("0.01", "1.0", "+Inf")
    }
    assert found == {"0.01": 1.0, "1.0": 2.0, "+Inf": 3.0}


def test_prepared_methods_are_counted_as_zero() -> None:
    """Before a method is first called its codes are there, so that an alert sees the first."""
    metrics = Metrics()
    metrics.prepare([method_of(kind) for kind in Kind])
    assert values(metrics) == {}
    for kind in Kind:
        labels = {
            "grpc_type": TYPES[kind],
            "grpc_service": "echo.Echo",
            "grpc_method": method_of(kind).name,
        }
        sample = metrics.registry.get_sample_value
        assert [
            sample("grpc_server_handled_total", {**labels, "grpc_code": code.name}) for code in Code
        ] == [0.0] * len(Code)
        for name in ("started_total", "msg_received_total", "msg_sent_total", "calls_in_flight"):
            assert sample(f"grpc_server_{name}", labels) == 0.0
        assert sample("grpc_server_handling_seconds_count", labels) == 0.0


def test_prepared_again_counts_go_on() -> None:
    """After a reload the same methods are prepared again, and keep their counts."""
    metrics = Metrics()
    metrics.prepare([method_of(Kind.UNARY_UNARY)])
    seen(metrics, record_of())
    before = values(metrics)
    metrics.prepare([method_of(Kind.UNARY_UNARY)])
    assert values(metrics) == before


def test_registries() -> None:
    """Each has a registry of its own, unless one is given, which holds only one."""
    first, second = Metrics(), Metrics()
    assert first.registry is not second.registry
    registry = prometheus_client.CollectorRegistry()
    assert Metrics(registry).registry is registry
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Metrics(registry)


def test_threads_lose_no_count() -> None:
    """Calls of several threads are all counted."""
    metrics = Metrics()
    calls = [record_of() for _ in range(500)]
    threads = [threading.Thread(target=seen, args=(metrics, *calls)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found: Any = {k.partition("{")[0]: v for k, v in values(metrics).items()}
    del found["grpc_server_handling_seconds_sum"]
    assert found == {
        "grpc_server_started_total": 2000.0,
        "grpc_server_handled_total": 2000.0,
        "grpc_server_msg_received_total": 2000.0,
        "grpc_server_handling_seconds_count": 2000.0,
    }


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where prometheus-client is missing, what to install is said."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(DynserveError) as caught:
        Metrics()
    assert str(caught.value) == (
        "metrics need the package prometheus-client; write `pip install 'dynserve[prometheus]'`"
    )
