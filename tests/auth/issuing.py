"""An issuer of JSON web tokens: its keys, and the server that has them."""

from __future__ import annotations

import base64
import functools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

jwt = pytest.importorskip("jwt", reason="the extra 'auth' is not installed")

from cryptography.hazmat.primitives import serialization  # noqa: E402  # it is of the extra too
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa  # noqa: E402

__all__ = [
    "AUDIENCE",
    "ISSUER",
    "KeyServer",
    "jwk",
    "jwks",
    "key_server",
    "pem",
    "private_key",
    "raw_token",
    "token",
]

ISSUER, AUDIENCE = "https://issuer.example/", "routes"

_CURVES: dict[str, Any] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
    "ES256K": ec.SECP256K1,
}


@functools.cache
def private_key(algorithm: str, name: str = "first") -> Any:
    """A key for an algorithm; the same for the same arguments."""
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm]())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    bits = 1024 if algorithm == "RSA1024" else 2048
    return rsa.generate_private_key(65537, bits)


@functools.cache
def pem(algorithm: str, name: str = "first") -> bytes:
    """The public half in PEM."""
    encoded: bytes = (
        private_key(algorithm, name)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return encoded


def jwk(algorithm: str, name: str = "first", **members: Any) -> dict[str, Any]:
    """The public half as a JSON web key, whose id is the name."""
    key = private_key(algorithm, name).public_key()
    if algorithm in _CURVES:
        made = jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)
    elif algorithm in ("EdDSA", "Ed448"):
        made = jwt.algorithms.OKPAlgorithm.to_jwk(key, as_dict=True)
    else:
        made = jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True)
        made.pop("key_ops", None)
    return {**made, "kid": name, **members}


def jwks(*keys: dict[str, Any]) -> dict[str, Any]:
    """A key set; of the first ES256 key where none is given."""
    return {"keys": list(keys) or [jwk("ES256")]}


def token(
    algorithm: str = "ES256",
    name: str = "first",
    *,
    key: Any = None,
    header: dict[str, Any] | None = None,
    **claims: Any,
) -> str:
    """A token that is valid; a claim or a part of the header that is None is left out."""
    now = int(time.time())
    every = {"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": now + 7200, **claims}
    parts = {"kid": name, **(header or {})}
    made: str = jwt.encode(
        {name: value for name, value in every.items() if value is not None},
        key or private_key(algorithm, name),
        "EdDSA" if algorithm == "Ed448" else algorithm,
        {name: value for name, value in parts.items() if value is not None},
    )
    return made


def raw_token(header: Any, payload: Any, signature: bytes = b"signature") -> str:
    """A token of any header and payload, with a signature of nothing."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode()
        for part in (header, payload, signature)
    ]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


class KeyServer:
    """What the server of an issuer answers, and how often it was asked.

    ``hold`` is cleared for an answer to wait until it is set.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.body = json.dumps(jwks()).encode()
        self.code = 200
        self.headers: dict[str, str] = {}
        self.count = 0
        self.asked = threading.Semaphore(0)  # released with each request
        self.hold = threading.Event()
        self.hold.set()

    def serve(self, *keys: dict[str, Any]) -> None:
        """Have these keys from now on."""
        self.body = json.dumps(jwks(*keys)).encode()


@contextmanager
def key_server() -> Iterator[KeyServer]:
    """A server of keys on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.count += 1
            server.asked.release()
            assert server.hold.wait(20)
            self.send_response(server.code)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(server.body)

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that went away is no error here."""

    http = Quiet(("127.0.0.1", 0), Handler)
    server = KeyServer(f"http://127.0.0.1:{http.server_port}/jwks.json")
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.hold.set()
        http.shutdown()
        http.server_close()
        thread.join()
