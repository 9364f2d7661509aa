"""How the verbs connect: TLS, tokens, and what is told of certificates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from dynserve.cli.main import invoke
from tests.authority import Authority

from .lab import lab

NAMED = "lab.example"


class Secured:
    """Two addresses with TLS, and the files to call them with."""

    def __init__(self, folder: Path, one_way: str, mutual: str) -> None:
        self.folder = folder
        self.one_way = one_way
        self.mutual = mutual


@pytest.fixture(scope="module")
def secured(
    authorities: list[Authority], protos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    authority = authorities[0]
    folder = tmp_path_factory.mktemp("tls")
    (folder / "ca.pem").write_bytes(authority.root)
    (folder / "other.pem").write_bytes(authorities[1].root)
    (folder / "none.pem").write_text("no certificate")
    key, certificate = authority.issue("somebody")
    (folder / "key.pem").write_bytes(key)
    (folder / "cert.pem").write_bytes(certificate)
    app = lab(protos)
    localhost, named = authority.issue("localhost"), authority.issue(NAMED)
    one_way = grpc.ssl_server_credentials([named])
    mutual = grpc.ssl_server_credentials([localhost], authority.root, require_client_auth=True)
    with (
        app.server("localhost:0", credentials=one_way).in_thread() as one,
        app.server("localhost:0", credentials=mutual).in_thread() as other,
    ):
        yield Secured(folder, one.addresses[0], other.addresses[0])


@pytest.mark.parametrize(
    ("server", "words", "text"),
    [
        ("one_way", ["--cacert", "ca.pem", "--server-name", NAMED], ""),
        (
            "one_way",
            ["--cacert", "ca.pem", "--server-name", NAMED, "--token", "secret"],
            "authorization='Bearer secret'",
        ),
        ("mutual", ["--cacert", "ca.pem", "--cert", "cert.pem", "--key", "key.pem"], ""),
    ],
)
def test_tls(
    server: str,
    words: list[str],
    text: str,
    secured: Secured,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An own authority, another name than the host's, a certificate of the client, a token."""
    monkeypatch.chdir(secured.folder)
    address = getattr(secured, server)
    assert invoke(["call", address, "lab.Lab/Metadata", *words, "--emit-defaults"]) == 0
    expected = f'{{"text": "{text}", "number": 0, "parts": []}}\n'
    assert sorted(capsys.readouterr().out) == sorted(expected)


def test_a_token_from_the_environment(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DYNSERVE_TOKEN keeps it from the list of processes, and means TLS as --token does."""
    monkeypatch.chdir(secured.folder)
    monkeypatch.setenv("DYNSERVE_TOKEN", "s3cret")
    words = ("--cacert", "ca.pem", "--server-name", NAMED)
    assert invoke(["call", secured.one_way, "lab.Lab/Metadata", *words]) == 0
    assert capsys.readouterr() == ("""{"text": "authorization='Bearer s3cret'"}\n""", "")


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("one_way", ["--cacert", "other.pem", "--server-name", NAMED]),
        ("one_way", ["--cacert", "ca.pem"]),
        ("one_way", ["--tls", "--server-name", NAMED]),
        ("mutual", ["--cacert", "ca.pem"]),
        ("plain", ["--tls"]),
    ],
)
def test_whom_nobody_trusts(
    server: str,
    words: list[str],
    secured: Secured,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another authority, another name, no certificate, no TLS there: UNAVAILABLE."""
    monkeypatch.chdir(secured.folder)
    target = address if server == "plain" else getattr(secured, server)
    assert invoke(["list", target, *words]) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: UNAVAILABLE: ")


@pytest.mark.parametrize(
    ("words", "err"),
    [
        (["--cacert", "no.pem"], "--cacert: no.pem: No such file or directory"),
        (
            ["--cacert", "none.pem"],
            "--cacert: none.pem: not in PEM form, which begins with '-----BEGIN'",
        ),
        (["--cert", "no.pem", "--key", "key.pem"], "--cert: no.pem: No such file or directory"),
        (["--cert", "cert.pem", "--key", "no.pem"], "--key: no.pem: No such file or directory"),
        (["--cert", "cert.pem"], "USAGE--cert needs --key, too."),
        (["--key", "key.pem"], "USAGE--key needs --cert, too."),
    ],
)
def test_files_that_are_none(
    words: list[str],
    err: str,
    secured: Secured,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The option is named that was given, and nothing is sent."""
    monkeypatch.chdir(secured.folder)
    usage = (
        "Usage: dynserve list [OPTIONS] ADDR|SOURCE [SERVICE]\n"
        "Try 'dynserve list --help' for help.\n\n"
    )
    assert invoke(["list", secured.one_way, *words]) == 2
    shown = f"{usage}Error: {err[5:]}\n" if err.startswith("USAGE") else f"Error: {err}\n"
    assert capsys.readouterr() == ("", shown)


def test_options_reach_the_connection(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--keepalive is gRPC's own; that it is taken is all that can be seen."""
    assert invoke(["list", address, "lab.Lab", "--keepalive", "300"]) == 0
    assert capsys.readouterr().err == ""
