"""What settings become for gRPC's core."""

from __future__ import annotations

import os
from typing import Any

import pytest

from dynserve import App
from dynserve.channel_arguments import channel_arguments
from dynserve.engines import engine_maker
from dynserve.settings import GROUPS, Settings
from tests.echo import schema

DEFAULTS = {
    "grpc.so_reuseport": 0,
    "grpc.http2.hpack_table_size.decoder": 0,
    "grpc.server_handshake_timeout_ms": 20000,
    "grpc.max_receive_message_length": 4 << 20,
    "grpc.max_concurrent_streams": 1000,
    "grpc.max_metadata_size": (16 << 10) + 1,
    "grpc.absolute_max_metadata_size": (16 << 10) + 1,
}


def made(*options: tuple[str, Any], shares_ports: bool = False, **given: Any) -> dict[str, Any]:
    """The arguments by name, of which each is there once."""
    settings = Settings(given, environ={})
    arguments = channel_arguments(settings, options, shares_ports=shares_ports)
    assert len(dict(arguments)) == len(arguments)
    return dict(arguments)


def test_by_default() -> None:
    """A port of one's own, no table of headers, and limits that a careful engineer would set."""
    assert made() == DEFAULTS


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("max_receive_size", "1MiB", {"grpc.max_receive_message_length": 1 << 20}),
        ("max_send_size", 7, {"grpc.max_send_message_length": 7}),
        (
            "max_metadata_size",
            5000,
            {"grpc.max_metadata_size": 5001, "grpc.absolute_max_metadata_size": 5001},
        ),
        ("max_concurrent_streams", 3, {"grpc.max_concurrent_streams": 3}),
        ("max_connection_age", 1.5, {"grpc.max_connection_age_ms": 1500}),
        ("max_connection_age_grace", 2, {"grpc.max_connection_age_grace_ms": 2000}),
        ("max_connection_idle", "0.25", {"grpc.max_connection_idle_ms": 250}),
        ("keepalive_time", 60, {"grpc.keepalive_time_ms": 60000}),
        ("keepalive_timeout", 0.0001, {"grpc.keepalive_timeout_ms": 1}),  # none would be never
        (
            "min_ping_interval",
            0.0016,
            {"grpc.http2.min_ping_interval_without_data_ms": 2},
        ),
        ("admin", True, {"grpc.enable_channelz": 1}),
    ],
)
def test_a_setting(setting: str, value: Any, expected: dict[str, Any]) -> None:
    """It is the core's own argument, in the core's unit; the others stay."""
    assert made(**{setting: value}) == DEFAULTS | expected


def test_the_rest_is_no_argument() -> None:
    """Deadlines, threads and the like are the engines' own: the core hears nothing of them."""
    values: dict[str, Any] = {
        "maximum_concurrent_rpcs": 1,
        "default_timeout": 1,
        "max_timeout": 1,
        "max_queue_wait": 1,
        "threads": 1,
        "stream_threads": 1,
        "workers": 2,
        "grace": 1,
        "drain_wait": 1,
    }
    assert {name for name in values if any(s.name == name for g in GROUPS.values() for s in g)} == (
        set(values)
    )
    assert made(**values) == DEFAULTS


def test_options_override() -> None:
    """What is given as an argument of the core goes before the setting, and is there once."""
    own = {
        "grpc.so_reuseport": 1,
        "grpc.max_receive_message_length": -1,
        "grpc.absolute_max_metadata_size": 1 << 20,
        "grpc.http2.max_frame_size": 65536,
    }
    assert made(*own.items(), max_receive_size=5) == DEFAULTS | own


def test_workers_share_ports() -> None:
    """One process owns its port, one of several does not; an option goes before that, too."""
    shared = DEFAULTS | {"grpc.so_reuseport": 1}
    assert made(shares_ports=True) == shared
    assert made(("grpc.so_reuseport", 0), shares_ports=True) == DEFAULTS


@pytest.mark.parametrize("name", ["queue", "aio"])
def test_a_server_hands_them_over(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its options, to either engine."""
    given: dict[str, Any] = {}
    made_by: dict[str, Any] = {}

    def make(engine: str) -> Any:
        maker = real(engine)

        def keep(*handlers: Any, options: Any, **others: Any) -> Any:
            made_by[engine] = maker
            given.update(options)
            return maker(*handlers, options=options, **others)

        keep.__name__ = maker.__name__
        return keep

    real = engine_maker
    monkeypatch.setattr("dynserve.server.engine_maker", make)
    app = App(schema=schema, max_send_size=9)
    options = [("grpc.http2.max_frame_size", 65536)]
    settings: Any = {"engine": name, "max_connection_age": 30}
    with app.server("127.0.0.1:0", options=options, **settings).in_thread():
        pass
    assert list(made_by) == [name]
    assert given == DEFAULTS | {
        "grpc.max_send_message_length": 9,
        "grpc.max_connection_age_ms": 30000,
        "grpc.http2.max_frame_size": 65536,
    }
    assert "DYNSERVE_MAX_SEND_SIZE" not in os.environ


@pytest.mark.parametrize("setting", ["max_metadata_size", "max_receive_size", "max_connection_age"])
@pytest.mark.parametrize("name", ["queue", "aio"])
def test_the_largest_values_serve(setting: str, name: str) -> None:
    """What a setting takes, the core takes: an int of 32 bits."""
    value = (1 << 31) - 1
    largest: Any = {setting: value / 1000 if setting.endswith("age") else value, "engine": name}
    with App(schema=schema).server("127.0.0.1:0", **largest).in_thread() as server:
        assert len(server.addresses) == 1
