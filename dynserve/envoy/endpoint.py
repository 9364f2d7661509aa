"""Endpoint: an address as a person writes it, and as Envoy reads it."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from .errors import ProxyError
from .parts import Json

__all__ = ["Endpoint"]

_HOST_PORT = re.compile(r"(?:\[([^]]*)\]|([^:/\s]+)):([0-9]{1,5})")
_MAX_PORT = 65535
_EXPECTED = "expected HOST:PORT, [IPV6]:PORT or unix:PATH"


class Endpoint(NamedTuple):
    """A host and a port, or where ``port`` is None the path of a unix socket."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str, setting: str, lowest_port: int = 1) -> Endpoint:
        """``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``; ``setting`` is the option it is of.

        ``lowest_port`` is 0 where the system may choose one.

        Raises:
            ProxyError: it is none of them.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path:
                raise ProxyError(setting, f"got {text!r}, expected a path after unix:")
            return cls(path, None)
        match = _HOST_PORT.fullmatch(text)
        if match is None:
            raise ProxyError(setting, f"got {text!r}, {_EXPECTED}{_meant(text)}")
        host = match[2] or match[1]
        if match[2] is None and not _is_ip(host):
            raise ProxyError(setting, f"got {text!r}, expected an IPv6 address in the brackets")
        port = int(match[3])
        if not lowest_port <= port <= _MAX_PORT:
            expected = f"expected a port from {lowest_port} to {_MAX_PORT}"
            raise ProxyError(setting, f"got {text!r}, {expected}")
        return cls(host, port)

    @property
    def is_name(self) -> bool:
        """Whether DNS has to say where it is."""
        return self.port is not None and not _is_ip(self.host)

    @property
    def is_on_loopback(self) -> bool:
        """Whether no other machine reaches it."""
        if self.port is None:
            return True
        return not self.is_name and ipaddress.ip_address(self.host).is_loopback

    def address(self) -> Json:
        """Envoy's ``config.core.v3.Address``."""
        if self.port is None:
            return {"pipe": {"path": self.host}}
        return {"socket_address": {"address": self.host, "port_value": self.port}}


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _meant(text: str) -> str:
    """What a port, or a host, alone may be meant as."""
    port = text.removeprefix(":")
    if port.isascii() and port.isdigit() and len(port) <= len(str(_MAX_PORT)):
        return f"; did you mean 127.0.0.1:{port}?"
    if text.count(":") > 1 and _is_ip(text.rpartition(":")[0]):
        host, _, port = text.rpartition(":")
        return f"; did you mean [{host}]:{port}?"
    return ""
