"""Channel arguments: what settings mean to gRPC's core.

https://github.com/grpc/grpc/blob/master/include/grpc/impl/channel_arg_names.h
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynserve.settings import Settings

__all__ = ["channel_arguments"]

_LARGEST = (1 << 31) - 1  # what the core takes as an int
_ALWAYS = {
    # A port belongs to one process: with SO_REUSEPORT, on by default in gRPC, a stale server would
    # go on taking every other connection.
    "grpc.so_reuseport": 0,
    # Without a table of headers that a peer has sent before, one bad value cannot spoil the later
    # calls on its connection: the core would keep it as an error, and use it again.
    "grpc.http2.hpack_table_size.decoder": 0,
    # A client that takes longer for its first bytes is none; the core would wait for two minutes.
    "grpc.server_handshake_timeout_ms": 20_000,
}
_NUMBERS = {  # as they are
    "max_receive_size": "grpc.max_receive_message_length",
    "max_send_size": "grpc.max_send_message_length",
    "max_concurrent_streams": "grpc.max_concurrent_streams",
}
_SECONDS = {  # in milliseconds
    "max_connection_age": "grpc.max_connection_age_ms",
    "max_connection_age_grace": "grpc.max_connection_age_grace_ms",
    "max_connection_idle": "grpc.max_connection_idle_ms",
    "keepalive_time": "grpc.keepalive_time_ms",
    "keepalive_timeout": "grpc.keepalive_timeout_ms",
    "min_ping_interval": "grpc.http2.min_ping_interval_without_data_ms",
}


def channel_arguments(
    settings: Settings, options: Iterable[tuple[str, Any]] = (), *, shares_ports: bool = False
) -> tuple[tuple[str, Any], ...]:
    """The arguments for some settings; ``options`` override.

    Each is there once: of one that is given twice the core takes the first. ``shares_ports`` is for
    one of several processes on the same ports.
    """
    arguments: dict[str, Any] = {**_ALWAYS, "grpc.so_reuseport": int(shares_ports)}
    for name, argument in _NUMBERS.items():
        value = getattr(settings, name)
        if value is not None:
            arguments[argument] = value
    for name, argument in _SECONDS.items():
        value = getattr(settings, name)
        if value is not None:
            arguments[argument] = max(1, round(value * 1000))
    # Between a soft limit and the hard one the core refuses by chance, and it does at the limit.
    size = min(settings.max_metadata_size, _LARGEST - 1) + 1
    arguments["grpc.max_metadata_size"] = arguments["grpc.absolute_max_metadata_size"] = size
    if settings.admin:
        arguments["grpc.enable_channelz"] = 1
    return tuple((arguments | dict(options)).items())
