"""The files of unix sockets: who may connect, and what is in the way."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from dynserve import AddressError, SettingError
from dynserve.addresses import check_mode
from dynserve.unix_mode import (
    bind_with_mode,
    parse_mode,
    path_of,
    why_not_socket,
)


@pytest.fixture
def server() -> Iterator[grpc.Server]:
    """A server of grpcio's own, which nothing is added to."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        yield server
        with contextlib.suppress(ValueError):  # it was started before
            server.start()  # one that never started would keep what it bound
        server.stop(None).wait()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize(
    ("given", "mode"),
    [(0o660, 0o660), (0o777, 0o777), ("660", 0o660), ("0660", 0o660), ("0o600", 0o600)],
)
def test_a_mode(given: int | str, mode: int) -> None:
    """A number, or octal digits as flags and variables have them."""
    assert parse_mode(given) == mode


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (660, "got unix_mode=660, expected permissions such as 0o660; did you mean 0o660?"),
        (-1, "got unix_mode=-1, expected permissions such as 0o660"),
        (True, "got unix_mode=True, expected permissions such as 0o660"),
        (0o1777, "got unix_mode=1023, expected permissions such as 0o660"),
        ("", "got unix_mode='', expected permissions such as '660'"),
        ("rw-rw----", "got unix_mode='rw-rw----', expected permissions such as '660'"),
        ("689", "got unix_mode='689', expected permissions such as '660'"),
        ("1777", "got unix_mode='1777', expected permissions such as '660'"),
        (
            0o444,
            "got unix_mode=292, with which nobody could connect: that needs permission to write;"
            " expected permissions such as 0o660",
        ),
        (
            "444",
            "got unix_mode='444', with which nobody could connect: that needs permission to write;"
            " expected permissions such as '660'",
        ),
    ],
)
def test_what_is_no_mode(given: int | str, text: str) -> None:
    """The error says what to write; a number that misses its 0o is told."""
    with pytest.raises(ValueError, match=r"^got unix_mode=") as caught:
        parse_mode(given)
    assert str(caught.value) == text


def test_the_path_of_an_address() -> None:
    """Of unix: in its three forms; others have no file."""
    addresses = ("unix:a.sock", "unix:/a", "unix:///a", "unix-abstract:a", "127.0.0.1:1")
    assert [path_of(address) for address in addresses] == ["a.sock", "/a", "/a", None, None]


def test_a_mode_without_a_socket() -> None:
    """It would be without effect."""
    check_mode(["127.0.0.1:1", "unix:a"], 0o660)
    check_mode(["127.0.0.1:1"], None)
    with pytest.raises(SettingError) as caught:
        check_mode(["127.0.0.1:1", "unix-abstract:a"], 0o660)
    assert str(caught.value) == (
        "got unix_mode='660', expected an address unix:PATH beside 127.0.0.1:1, unix-abstract:a"
    )


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_socket_has_the_mode(
    mode: int, umask: int, tmp_path: Path, server: grpc.Server
) -> None:
    """Whatever the umask; until it has, it is for its owner alone, and the umask is as before."""
    path, seen = tmp_path / "s", []

    def bind(address: str) -> int:
        port = server.add_insecure_port(address)
        seen.append(mode_of(path))  # connections are taken from here on
        return port

    usual = os.umask(umask)
    try:
        assert bind_with_mode(f"unix:{path}", mode, bind) == 1
        assert os.umask(umask) == umask
    finally:
        os.umask(usual)
    assert (seen, mode_of(path)) == ([0o600], mode)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_without_a_mode_the_umask_says(tmp_path: Path, server: grpc.Server) -> None:
    """As gRPC does it."""
    usual = os.umask(0o027)
    try:
        bind_with_mode(f"unix:{tmp_path}/s", None, server.add_insecure_port)
    finally:
        os.umask(usual)
    assert mode_of(tmp_path / "s") == 0o750


def test_an_address_without_a_file_is_bound(server: grpc.Server) -> None:
    """The mode means nothing to it."""
    assert bind_with_mode("127.0.0.1:0", 0o600, server.add_insecure_port) > 0


def test_a_bind_that_fails_leaves_the_umask(tmp_path: Path) -> None:
    """What it raised goes on to the caller."""

    def fail(_: str) -> None:
        raise RuntimeError("no")

    usual = os.umask(0o022)
    try:
        with pytest.raises(RuntimeError, match=r"^no$"):
            bind_with_mode(f"unix:{tmp_path}/s", 0o600, fail)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(usual)


def test_the_socket_of_a_dead_server_makes_way(tmp_path: Path, server: grpc.Server) -> None:
    """gRPC removes it, and its own at the end."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    old = path.stat().st_ino, path.stat().st_mtime_ns
    bind_with_mode(f"unix:{path}", 0o660, server.add_insecure_port)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) != old
    assert mode_of(path) == 0o660
    server.start()
    server.stop(None).wait()
    assert not path.exists()


def _file(path: Path) -> None:
    path.write_text("precious")


def _link(path: Path) -> None:
    path.with_name("target").write_text("precious")
    path.symlink_to("target")


def _replaced(path: Path) -> None:
    path.unlink()
    _link(path)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (_file, "a file"),
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a named pipe"),
        (_link, "a file"),
        (lambda path: path.symlink_to("/dev/null"), "something else"),
    ],
)
@pytest.mark.parametrize("mode", [None, 0o660])
def test_nothing_but_a_socket_makes_way(
    make: object, kind: str, mode: int | None, tmp_path: Path, server: grpc.Server
) -> None:
    """It stays as it is, and the error says what is there."""
    path = tmp_path / "s"
    assert callable(make)
    make(path)
    before = path.lstat()
    with pytest.raises(AddressError) as caught:
        bind_with_mode(f"unix:{path}", mode, server.add_insecure_port)
    assert str(caught.value) == (
        f"cannot listen on unix:{path}: {kind} is there, expected nothing or the socket of a"
        " server that has ended"
    )
    assert path.lstat() == before


def test_nothing_is_in_the_way(tmp_path: Path) -> None:
    """Of a path that is not there."""
    assert why_not_socket(str(tmp_path / "none")) == ""


@pytest.mark.parametrize(
    ("last", "problem"),
    [
        (Path.unlink, "No such file or directory"),
        (_replaced, "another file took its place"),
    ],
)
def test_a_socket_that_is_replaced_at_once(
    last: object, problem: str, tmp_path: Path, server: grpc.Server
) -> None:
    """The mode is given to nothing else, not to what a link leads to."""
    path = tmp_path / "s"
    assert callable(last)
    replace = last

    def bind(address: str) -> None:
        server.add_insecure_port(address)
        replace(path)

    with pytest.raises(AddressError) as caught:
        bind_with_mode(f"unix:{path}", 0o777, bind)
    assert (
        str(caught.value) == f"cannot listen on unix:{path}: cannot give it mode 0o777: {problem}"
    )
    target = tmp_path / "target"
    assert not target.exists() or mode_of(target) != 0o777
