"""Addresses to listen on: what they look like, and why one cannot be had.

gRPC says no more than "failed", and prints the reason to stderr; asked before it, the system says
why an address cannot be had.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynserve.errors import AddressError, SettingError
from dynserve.unix_mode import bind_with_mode, path_of

if TYPE_CHECKING:
    import grpc

    from dynserve.engine.base import Engine

__all__ = ["add_port", "check_mode", "host_and_port", "why_not_host"]

_HOST_PORT = re.compile(r"(\[[^]]*\]|[^:]+):([0-9]+)")
_MAX_PORT = 65535
_MAX_PATH = 107  # bytes, of a unix socket; what the system's structure holds
_LATER = -1  # what xDS has for a port, which is listened on when its configuration has come
_EXPECTED = "expected HOST:PORT, [IPV6]:PORT or unix:PATH"
_LET_IT_CHOOSE = "port 0 lets the system choose"


def add_port(
    engine: Engine,
    address: str,
    credentials: grpc.ServerCredentials | None,
    unix_mode: int | None = None,
    shares_ports: bool = False,
) -> str:
    """Listen on one address; returns it as clients reach it.

    ``unix_mode`` are the permissions of a unix socket's file. With ``shares_ports`` other processes
    may listen on the same port.

    Raises:
        AddressError: it is none, or cannot be had.
    """
    host = ""
    if address.startswith("unix:"):
        problem = _why_not_path(address.removeprefix("unix:").removeprefix("//"))
    elif address.startswith(("unix-abstract:", "vsock:")):
        problem = ""
    else:
        host, number = host_and_port(address)
        problem = "" if shares_ports else why_not_host(host, number)
    if problem:
        raise AddressError(address, problem)
    try:
        port = bind_with_mode(
            address, unix_mode, lambda address: engine.add_port(address, credentials)
        )
    except RuntimeError as error:
        raise AddressError(address, "gRPC refused it; see its own message above") from error
    if port == _LATER:
        return address
    return f"{host}:{port}" if host else address


def check_mode(listen: Sequence[str], unix_mode: int | None) -> None:
    """Permissions are for unix sockets: without one they are a mistake.

    Raises:
        SettingError: there are some, and no address is that of a socket's file.
    """
    if unix_mode is not None and all(path_of(address) is None for address in listen):
        expected = f"an address unix:PATH beside {', '.join(listen)}"
        raise SettingError("unix_mode", f"{unix_mode:o}", expected)


def host_and_port(address: str) -> tuple[str, int]:
    """The host, in brackets where it is one of IPv6, and the port of an address.

    Raises:
        AddressError: it is none.
    """
    match = _HOST_PORT.fullmatch(address)
    if match is None:
        hint = _meant(address)
        problem = f"{_EXPECTED}; did you mean {hint}?" if hint else _EXPECTED
        raise AddressError(address, problem, exit_code=2)
    digits = match[2]
    if len(digits) > len(str(_MAX_PORT)) or int(digits) > _MAX_PORT:
        raise AddressError(address, f"a port is a number from 0 to {_MAX_PORT}", exit_code=2)
    return match[1], int(digits)


def _meant(address: str) -> str:
    """What may be meant by a port alone."""
    port = address.removeprefix(":")
    if not (port.isascii() and port.isdigit() and len(port) <= len(str(_MAX_PORT))):
        return ""
    if int(port) > _MAX_PORT:
        return ""
    return f"127.0.0.1:{port} (this machine) or 0.0.0.0:{port} (every network)"


def _why_not_path(path: str) -> str:
    """Why a unix socket cannot be made, empty where it can."""
    if not path:
        return "expected a path after unix:"
    if len(os.fsencode(path)) > _MAX_PATH:
        return f"the path of a unix socket has at most {_MAX_PATH} bytes"
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        return f"no folder {folder!r}"
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            # gRPC unlinks the path before it binds, also one that a running server listens on.
            probe.connect(path)
        except (OSError, ValueError):  # a null character is a ValueError
            return ""
    return "another process listens on it"


def why_not_host(host: str, port: int) -> str:
    """Why a host and port cannot be had, empty where they can."""
    name: str | bytes = host.strip("[]")
    if host.isascii():
        name = host.strip("[]").encode()  # a str makes Python load its tables of Unicode
    try:
        found = socket.getaddrinfo(name or None, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"the host is not known: {error.strerror}"
    except ValueError as error:  # UnicodeError: the codec for host names refuses it
        return f"the host is not known: {error}"
    problem = ""
    for family, kind, protocol, _, place in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                said = f"port {port} is taken; {_LET_IT_CHOOSE}" if taken else str(error.strerror)
                problem = problem if problem.startswith("port") else said
            else:
                if not problem.startswith("port"):
                    return ""  # one address of a host is enough, as it is for gRPC
    return problem
