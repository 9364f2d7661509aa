"""How a channel is made: its target, its credentials and its options, for both worlds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from dynserve.errors import TargetError
from dynserve.status import Metadata, checked_metadata

__all__ = ["ChannelSettings", "checked_target", "metadata_of"]

_URL = re.compile(r"(https?|grpcs?)://([^/]+)/?")
# What is behind the colon of a plain host; names such as dns:/// and unix: have their own forms.
_HOST_PORT = re.compile(
    r"(?!(?:unix|unix-abstract|vsock|dns|ipv4|ipv6|xds|passthrough):)[^:/]+:([^:/]*)"
)
_MAX_PORT = 65535
_EXPECTED = "expected HOST:PORT, unix:PATH, or a URI that gRPC knows, such as dns:///HOST:PORT"
_SECURE = ("https", "grpcs")
_USER_AGENT = "dynserve"


@dataclass(frozen=True)
class ChannelSettings:
    """What ``connect`` is told of the channel; see there. Credentials None: in the clear."""

    target: str
    credentials: grpc.ChannelCredentials | None = None
    server_name: str | None = None
    compression: grpc.Compression | None = None
    service_config: str | Mapping[str, Any] | None = None
    keepalive: float | None = None
    keepalive_timeout: float | None = None
    max_message_bytes: int | None = None
    options: Iterable[tuple[str, Any]] = ()

    def open(self) -> grpc.Channel:
        """A channel for sync calls."""
        if self.credentials is None:
            return grpc.insecure_channel(self.target, self._options(), self.compression)
        return grpc.secure_channel(self.target, self.credentials, self._options(), self.compression)

    def open_aio(self) -> grpc.aio.Channel:
        """A channel for calls on the running event loop."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, self._options(), self.compression)
        return grpc.aio.secure_channel(
            self.target, self.credentials, self._options(), self.compression
        )

    def _options(self) -> list[tuple[str, Any]]:
        """Arguments of gRPC's core; the user's own come last and override.

        https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
        """
        options: list[tuple[str, Any]] = [("grpc.primary_user_agent", _USER_AGENT)]
        if isinstance(self.service_config, str):
            options.append(("grpc.service_config", self.service_config))
        elif self.service_config is not None:
            options.append(("grpc.service_config", json.dumps(self.service_config)))
        if self.keepalive is not None:
            options.append(("grpc.keepalive_time_ms", round(self.keepalive * 1000)))
            # Without data too: else a quiet stream is probed no more often than once a minute.
            options.append(("grpc.http2.max_pings_without_data", 0))
        if self.keepalive_timeout is not None:
            options.append(("grpc.keepalive_timeout_ms", round(self.keepalive_timeout * 1000)))
        if self.max_message_bytes is not None:
            options.append(("grpc.max_receive_message_length", self.max_message_bytes))
            options.append(("grpc.max_send_message_length", self.max_message_bytes))
        if self.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.server_name))
            options.append(("grpc.default_authority", self.server_name))
        return [*options, *self.options]


def checked_target(target: str) -> str:
    """The target, if it looks like one that gRPC takes.

    Raises:
        TypeError: it is not a str.
        TargetError: it is empty, a URL, a host without a port, or no port is behind the colon.
    """
    given: object = target
    if not isinstance(given, str):
        raise TypeError(f"got {given!r} as target, expected a str such as 'localhost:50051'")
    url = _URL.fullmatch(target)
    if url is not None:
        port = "" if ":" in url[2] else ":443" if url[1] in _SECURE else ":80"
        how = ", and tls=True" if url[1] in _SECURE else ""
        raise TargetError(target, f"a URL; write {url[2] + port!r}{how}")
    if ":" not in target or target.startswith(":"):
        meant = _meant(target)
        raise TargetError(target or "''", f"{_EXPECTED}{meant}")
    match = _HOST_PORT.fullmatch(target)
    if match is not None and not (match[1].isdecimal() and int(match[1]) <= _MAX_PORT):
        raise TargetError(target, f"a port is a number from 0 to {_MAX_PORT}")
    return target


def _meant(target: str) -> str:
    port = target.removeprefix(":")
    if port.isascii() and port.isdigit():
        return f"; did you mean localhost:{port}?"
    return ""


def metadata_of(
    given: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] | None,
) -> Metadata:
    """Metadata, given as pairs or as a mapping, as pairs that gRPC can send.

    Raises:
        TypeError, ValueError: gRPC cannot send it.
    """
    if not given:
        return ()
    return checked_metadata(given.items() if isinstance(given, Mapping) else given)
