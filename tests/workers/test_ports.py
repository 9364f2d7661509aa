"""The ports that workers share."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import pytest

from dynserve.errors import AddressError
from dynserve.workers import ports
from dynserve.workers.ports import reserved

UNIX = (
    "workers cannot share a unix socket, of which there is one for each path; give a HOST:PORT,"
    " or run without workers"
)
TAKEN = "port {} is taken; port 0 lets the system choose"


def a_socket(*options: int, family: int = socket.AF_INET) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    for option in options:
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    return made


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def can_listen(made: socket.socket, place: tuple[str, int]) -> bool:
    with made:
        try:
            made.bind(place)
            made.listen()
        except OSError:
            return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "0.0.0.0", "[::]"])
def test_the_port_is_ours_and_workers_can_listen_on_it(host: str) -> None:
    """Port 0 becomes a number; who does not share the port cannot have it, nor after workers."""
    with reserved([f"{host}:0"]) as (address,):
        port = port_of(address)
        assert (address, 0 < port < 65536) == (f"{host}:{port}", True)
        bare = "127.0.0.1" if host == "localhost" else host.strip("[]")
        family = socket.AF_INET6 if ":" in bare else socket.AF_INET
        for _ in range(2):
            for options in [(), (socket.SO_REUSEADDR,)]:
                assert not can_listen(a_socket(*options, family=family), (bare, port))
            worker = a_socket(socket.SO_REUSEADDR, socket.SO_REUSEPORT, family=family)
            assert can_listen(worker, (bare, port))
    assert can_listen(a_socket(socket.SO_REUSEADDR, family=family), (bare, port))


def test_nobody_is_connected_before_a_worker_listens() -> None:
    """The supervisor takes no connection that it would not serve."""
    with reserved(["127.0.0.1:0"]) as (address,), a_socket() as client:
        assert client.connect_ex(("127.0.0.1", port_of(address))) != 0


def test_several_addresses_are_kept() -> None:
    """Each with a port of its own."""
    with reserved(["127.0.0.1:0", "[::1]:0", "127.0.0.2:0"]) as kept:
        assert [address.rpartition(":")[0] for address in kept] == [
            "127.0.0.1",
            "[::1]",
            "127.0.0.2",
        ]


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEPORT,)], ids=["alone", "shared"])
def test_a_port_that_another_process_listens_on_is_taken(options: tuple[int, ...]) -> None:
    """Also where that one would share it; what was kept before is let go."""
    with a_socket(*options) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        address = f"127.0.0.1:{port}"
        with pytest.raises(AddressError) as caught, reserved([address]):
            pass
    assert str(caught.value) == f"cannot listen on {address}: {TAKEN.format(port)}"
    assert caught.value.exit_code == 1


def test_another_supervisor_has_the_port() -> None:
    """Two of them cannot run on one port, and neither can the same address be given twice."""
    with (
        reserved(["127.0.0.1:0"]) as (address,),
        pytest.raises(AddressError) as caught,
        reserved([address]),
    ):
        pass
    assert caught.value.problem == TAKEN.format(port_of(address))
    with pytest.raises(AddressError), reserved([address, address]):
        pass
    with reserved([address]):  # all was let go
        pass


@pytest.mark.parametrize("shared", [False, True])
def test_remains_of_connections_do_not_matter(shared: bool) -> None:
    """A server that has just ended leaves some of its port's behind, in TIME_WAIT."""
    options = [socket.SO_REUSEADDR, *([socket.SO_REUSEPORT] if shared else [])]
    with a_socket(*options) as server, a_socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        place = server.getsockname()
        client.connect(place)
        accepted, _ = server.accept()
        accepted.close()
        client.recv(1)
    with reserved([f"127.0.0.1:{place[1]}"]) as kept:
        assert kept == (f"127.0.0.1:{place[1]}",)


@pytest.mark.parametrize("address", ["unix:/tmp/socket", "unix-abstract:name", "vsock:-1:50051"])
def test_a_socket_that_has_one_owner_is_refused(address: str) -> None:
    """As a wrong word of the command; the error says what to write instead."""
    with pytest.raises(AddressError) as caught, reserved([address]):
        pass
    assert str(caught.value) == f"cannot listen on {address}: {UNIX}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("address", "problem", "code"),
    [
        ("localhost", "expected HOST:PORT, [IPV6]:PORT or unix:PATH", 2),
        ("127.0.0.1:65536", "a port is a number from 0 to 65535", 2),
        ("192.0.2.1:0", "Cannot assign requested address", 1),
    ],
)
def test_other_problems_are_those_of_a_server_without_workers(
    address: str, problem: str, code: int
) -> None:
    """In the same words."""
    with pytest.raises(AddressError) as caught, reserved([address]):
        pass
    assert (caught.value.problem, caught.value.exit_code) == (problem, code)


def test_elsewhere_than_on_linux_ports_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """There all connections would go to one worker."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(AddressError) as caught, reserved(["127.0.0.1:0"]):
        pass
    said = "workers share a port on Linux only; run without workers here"
    assert str(caught.value) == f"cannot listen on 127.0.0.1:0: {said}"


def busy_at(place: str, times: int) -> Callable[[int, tuple[str, int]], socket.socket]:
    """As ports._bind, but so many numbers are taken at one address."""
    real, left = ports._bind, [times]

    def bind(family: int, wanted: tuple[str, int]) -> socket.socket:
        if wanted[0] == place and left[0]:
            left[0] -= 1
            raise OSError(98, "Address already in use")
        return real(family, wanted)

    return bind


TWO = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET, ("127.0.0.2", 0))]


@pytest.mark.parametrize("place", ["127.0.0.1", "127.0.0.2"])
def test_a_number_is_free_at_all_addresses_of_a_host(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Else another is tried, but not for ever."""
    monkeypatch.setattr(ports, "_places", lambda host, port: TWO)
    monkeypatch.setattr(ports, "_bind", busy_at(place, 19))
    with reserved(["localhost:0"]) as (address,):
        for host in ("127.0.0.1", "127.0.0.2"):
            assert not can_listen(a_socket(), (host, port_of(address)))
    monkeypatch.setattr(ports, "_bind", busy_at(place, 20))
    with pytest.raises(AddressError) as caught, reserved(["localhost:0"]):
        pass
    assert caught.value.problem == "Address already in use"


def test_an_address_of_a_host_that_is_not_there_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine without IPv6 may still have it in its table of hosts."""
    missing = (socket.AF_INET, ("192.0.2.1", 0))
    monkeypatch.setattr(ports, "_places", lambda host, port: [missing, *TWO])
    with reserved(["localhost:0"]) as (address,):
        assert not can_listen(a_socket(), ("127.0.0.1", port_of(address)))
    monkeypatch.setattr(ports, "_places", lambda host, port: [missing])
    with pytest.raises(AddressError) as caught, reserved(["localhost:0"]):
        pass
    assert caught.value.problem == "Cannot assign requested address"
