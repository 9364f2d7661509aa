"""Fetching: small documents over HTTP, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from dynserve.auth.fetching import MAX_BYTES, checked_url, fetch
from tests.auth.issuing import KeyServer, key_server


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with key_server() as server:
        yield server


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/jwks.json",
        "http://[::1]:8080/jwks",
        "HTTPS://issuer.example",
        "https://issuer.example:443/?v=1",
    ],
)
def test_urls_that_are_fetched(url: str) -> None:
    """Those of http and https are."""
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "ftp://issuer/jwks",
        "data:application/json,{}",
        "https://",
        "https:///jwks",
        "https://issuer:port/",
        "https://issuer:0/",
        "https://[::1/",
        "issuer.example/jwks",
        "unix:///run/jwks",
    ],
)
def test_urls_that_are_not(url: str) -> None:
    """No other scheme is, and none without a host."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the whole text is compared
        checked_url(url)
    expected = f"got {url!r}, expected a URL such as https://issuer.example/jwks.json"
    assert str(raised.value) == expected


def test_a_document(server: KeyServer) -> None:
    """All of it is returned, up to the most that it may have."""
    server.body = b"x" * MAX_BYTES
    assert fetch(server.url, 20) == server.body


@pytest.mark.parametrize(
    ("code", "headers", "body", "problem"),
    [
        (404, {}, b"secret page", "the server answered with HTTP 404"),
        (200, {}, b"x" * (MAX_BYTES + 1), "the answer is larger than 1048576 bytes"),
        (
            302,
            {"Location": "http://127.0.0.1:1/other"},
            b"",
            "the server answered with HTTP 302; redirects are not followed, write"
            " 'http://127.0.0.1:1/other'",
        ),
        (
            301,
            {"Location": "file:///etc/passwd"},
            b"",
            "the server answered with HTTP 301; redirects are not followed, write"
            " 'file:///etc/passwd'",
        ),
        (304, {}, b"", "the server answered with HTTP 304"),
    ],
)
def test_answers_that_are_refused(
    server: KeyServer, code: int, headers: dict[str, str], body: bytes, problem: str
) -> None:
    """Whatever is no document is an error, with nothing of a page in it, and is not followed."""
    server.code, server.headers, server.body = code, headers, body
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the whole text is compared
        fetch(server.url, 20)
    assert (str(raised.value), server.count) == (problem, 1)


@contextlib.contextmanager
def answering(*parts: bytes, pause: threading.Event | None = None) -> Iterator[str]:
    """A server of raw bytes; ``pause`` is waited for, for a while, after each part."""

    def serve() -> None:
        with listener.accept()[0] as connection:
            connection.recv(4096)
            for part in parts:
                with contextlib.suppress(OSError):  # the client went away
                    connection.sendall(part)
                if pause is not None:
                    pause.wait(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            if pause is not None:
                pause.set()
            thread.join()


def test_an_answer_that_is_not_http() -> None:
    """Bytes of another protocol are said to be so."""
    with answering(b"SSH-2.0-x\r\n\r\n") as url, pytest.raises(ValueError) as raised:  # noqa: PT011
        fetch(url, 20)
    assert str(raised.value) == "the server's answer is not HTTP"


def test_an_answer_that_comes_drop_by_drop() -> None:
    """All of the answer has to be there in time, not each part of it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
    drops = [b"x"] * 100
    pause = threading.Event()
    with answering(head, *drops, pause=pause) as url, pytest.raises(TimeoutError) as raised:
        fetch(url, 0.5)
    assert str(raised.value) == "the answer took too long"


def test_a_server_that_is_not_there() -> None:
    """A refused connection is an error of the system's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OSError, match="Connection refused"):
        fetch(f"http://127.0.0.1:{port}/", 20)
