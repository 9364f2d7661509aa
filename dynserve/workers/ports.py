"""The ports that workers share.

Each worker binds the port itself, with SO_REUSEPORT, and the system gives every new connection to
one of them. The supervisor binds it too, but never listens: the port stays ours while no worker is
there, and port 0 becomes one number for all. That anyone of the same user could join by
SO_REUSEPORT is why the port is first tried without it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dynserve.addresses import host_and_port, why_not_host
from dynserve.errors import AddressError

__all__ = ["reserved"]

_NO_SHARING = ("unix:", "unix-abstract:", "vsock:")
_UNIX = (
    "workers cannot share a unix socket, of which there is one for each path; give a HOST:PORT,"
    " or run without workers"
)
_LINUX = "workers share a port on Linux only; run without workers here"
_ATTEMPTS = 20


@contextlib.contextmanager
def reserved(listen: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Keep these addresses for workers while the block runs; gives them with the ports chosen.

    Raises:
        AddressError: an address is none, is taken by another process, or cannot be shared.
    """
    with contextlib.ExitStack() as stack:
        yield tuple(_reserve(address, stack) for address in listen)


def _reserve(address: str, stack: contextlib.ExitStack) -> str:
    if not sys.platform.startswith("linux") or not hasattr(socket, "SO_REUSEPORT"):
        raise AddressError(address, _LINUX)
    if address.startswith(_NO_SHARING):
        raise AddressError(address, _UNIX, exit_code=2)
    host, port = host_and_port(address)
    problem = why_not_host(host, port)
    attempts = _ATTEMPTS if port == 0 else 1
    while not problem and attempts:
        attempts -= 1
        try:
            sockets = _bound(_places(host, port), port)
        except OSError as error:
            problem = why_not_host(host, port) or str(error.strerror)
            if error.errno == errno.EADDRINUSE and attempts:
                problem = ""  # the number was free at one address of the host only: try another
            continue
        for each in sockets:
            stack.enter_context(each)
        return f"{host}:{sockets[0].getsockname()[1]}"
    raise AddressError(address, problem)


def _places(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    """The families and addresses that a host has."""
    found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, place) for family, _, _, _, place in found))


def _bound(places: Iterable[tuple[int, tuple[Any, ...]]], port: int) -> list[socket.socket]:
    """Sockets bound to all of the places that there are, at one port.

    Raises:
        OSError: the port is taken at one, or none of the places can be had.
    """
    bound: list[socket.socket] = []
    missing: OSError | None = None
    for family, place in places:
        number = bound[0].getsockname()[1] if bound else port
        try:
            bound.append(_bind(family, (place[0], number, *place[2:])))
        except OSError as error:
            missing = error
            if error.errno == errno.EADDRINUSE:
                break
    if missing is not None and (missing.errno == errno.EADDRINUSE or not bound):
        for one in bound:
            one.close()
        raise missing
    return bound


def _bind(family: int, place: tuple[Any, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # For remains of connections of a server that was here before and did not share the port. …
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        # … But while it is set, a server that does not share could bind the port beside this one.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        made.close()
        raise
    return made
