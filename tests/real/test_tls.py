"""TLS as openssl and grpcurl see it: versions, cipher suites, and who is refused."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from dynserve import Kind
from dynserve.server_tls import ServerTLS
from tests.authority import Authority
from tests.certificates import P256, Files, certificate
from tests.echo import Item, app_with
from tests.running import output_of

pytestmark = pytest.mark.real

SECONDS = 30
RSA = "RSA -pkeyopt rsa_keygen_bits:2048"
# Whatever this machine's openssl would refuse by itself, so that it is the server that refuses.
ANY = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"

OpenSSL: TypeAlias = Callable[..., str]


@pytest.fixture
def openssl(tool: Callable[[str], str]) -> OpenSSL:
    """``openssl(address, *words)``: what ``openssl s_client`` says of the connection."""
    path = tool("openssl")

    def connect(address: str, *words: str) -> str:
        done = subprocess.run(
            [path, "s_client", "-connect", address, *words],
            input=b"",
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        return (done.stdout + done.stderr).decode("latin1")

    return connect


@contextlib.contextmanager
def serving(tls: ServerTLS) -> Iterator[str]:
    def who(_: Any, context: Any) -> Any:
        return Item(text=f"{[one.decode() for one in context.peer_identities() or ()]}")

    app = app_with(who, Kind.UNARY_UNARY)
    with app.server("127.0.0.1:0", credentials=tls.credentials()).in_thread() as server:
        yield server.addresses[0].replace("127.0.0.1", "localhost")


@pytest.fixture(params=[P256, RSA], ids=["P-256", "RSA"])
def files(request: pytest.FixtureRequest, tmp_path: Path, authorities: list[Authority]) -> Files:
    """A server's files, with each of the two kinds of key that are usual."""
    return Files(tmp_path, certificate(authorities[0], "/CN=localhost", kind=request.param))


def agreed(output: str) -> str:
    """The cipher suite that both agreed on, "(NONE)" where they did not."""
    return output.partition("Cipher is ")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("version", "spoken"),
    [("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)],
)
def test_versions(version: str, spoken: bool, files: Files, openssl: OpenSSL, engine: str) -> None:
    """1.2 and 1.3, and none before; what is refused is closed by the server."""
    with serving(ServerTLS(files.cert, files.key)) as address:
        output = openssl(address, version, "-cipher", ANY, "-alpn", "h2")
    if "unknown option" in output.lower():
        pytest.skip(f"this openssl has no {version}")
    assert (agreed(output) != "(NONE)") is spoken
    assert ("ALPN protocol: h2" in output) is spoken
    # Not "no protocols available", which would be openssl's own refusal.
    assert spoken or "unexpected eof" in output


def test_cipher_suites(files: Files, openssl: OpenSSL, tool: Callable[[str], str]) -> None:
    """Only those with forward secrecy and authenticated encryption."""
    offered = output_of([tool("openssl"), "ciphers", ANY]).strip().split(":")
    accepted = set()
    with serving(ServerTLS(files.cert, files.key)) as address:
        for suite in offered:
            if suite.startswith("TLS_"):
                output = openssl(address, "-tls1_3", "-ciphersuites", suite)
            else:
                output = openssl(address, "-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
            if agreed(output) == suite:
                accepted.add(suite)
    kind = "RSA" if len(files.key.read_bytes()) > 1000 else "ECDSA"
    assert accepted == {
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
        f"ECDHE-{kind}-AES128-GCM-SHA256",
        f"ECDHE-{kind}-AES256-GCM-SHA384",
    }


def test_the_chain_is_sent(files: Files, openssl: OpenSSL, authorities: list[Authority]) -> None:
    """All certificates of the file, so that a client that knows the root alone can verify."""
    files.put(files.cert, files.cert.read_bytes() + authorities[0].root)
    with serving(ServerTLS(files.cert, files.key)) as address:
        root = str(authorities[0].folder / "ca.crt")
        output = openssl(address, "-CAfile", root, "-alpn", "h2", "-showcerts")
    assert output.count("-----BEGIN CERTIFICATE-----") == 2
    assert "Verify return code: 0 (ok)" in output


def test_who_is_refused(
    tmp_path: Path, authorities: list[Authority], tool: Callable[[str], str], engine: str
) -> None:
    """grpcurl, with Go's TLS: who has a right to connect gets an answer."""
    grpcurl = tool("grpcurl")
    one, other = authorities
    files = Files(tmp_path, certificate(one, "/CN=localhost"), one.root)
    clients = {
        "known": certificate(one, "/CN=me", "DNS:me"),
        "unknown": certificate(other, "/CN=me", "DNS:me"),
        "expired": certificate(one, "/CN=me", "DNS:me", days=-1),
    }
    for name, pair in clients.items():
        (tmp_path / f"{name}.key").write_bytes(pair.key)
        (tmp_path / f"{name}.crt").write_bytes(pair.cert)

    def ask(address: str, *words: str, ca: Authority = one, wait: str = "1") -> str:
        options = ["-connect-timeout", wait, "-cacert", str(ca.folder / "ca.crt"), *words]
        return output_of([grpcurl, *options, address, "echo.Echo/Unary"])

    def proof(name: str) -> list[str]:
        return ["-cert", f"{tmp_path}/{name}.crt", "-key", f"{tmp_path}/{name}.key"]

    with serving(ServerTLS(files.cert, files.key, files.client_ca)) as address:
        assert ask(address, *proof("known"), wait="20") == '{\n  "text": "[\'me\']"\n}\n'
        refused = {
            "no certificate": ask(address),
            "unknown": ask(address, *proof("unknown")),
            "expired": ask(address, *proof("expired")),
            "wrong name": ask(address, *proof("known"), "-servername", "elsewhere"),
            "wrong CA of the server": ask(address, *proof("known"), ca=other),
        }
    assert "certificate is valid for localhost, not elsewhere" in refused.pop("wrong name")
    assert "unknown authority" in refused.pop("wrong CA of the server")
    # With TLS 1.3 a client is ready before it is refused; Go's dials again until its time is over.
    assert {case: text.partition('"')[0] for case, text in refused.items()} == {
        "no certificate": "Failed to dial target host ",
        "unknown": "Failed to dial target host ",
        "expired": "Failed to dial target host ",
    }
