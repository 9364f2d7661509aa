"""Connections that are encrypted, and who proves what on them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import dynserve
from dynserve import TLS, CredentialsError, Kind, StatusError
from tests.authority import Authority
from tests.client.worlds import World, every_world
from tests.echo import Item, app_with, schema

GRPC_ROOTS = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
UNARY = "echo.Echo/Unary"
KEY = b"-----BEGIN PRIVATE KEY-----secret"


def who(_: Any, context: Any) -> Any:
    """What the server knows of the client."""
    sent = dict(context.invocation_metadata())
    names = [name.decode() for name in context.peer_identities() or ()]
    return Item(text=f"{names} {sent.get('authorization')}")


@contextmanager
def tls_server(authority: Authority, name: str, clients: bytes | None = None) -> Iterator[str]:
    """A server with a certificate for that name; ``clients`` is who signs those of clients."""
    credentials = grpc.ssl_server_credentials(
        [authority.issue(name)], clients, require_client_auth=clients is not None
    )
    app = app_with(who, Kind.UNARY_UNARY)
    with app.server("127.0.0.1:0", credentials=credentials).in_thread() as server:
        yield server.addresses[0].replace("127.0.0.1", "localhost")


def ask(world: World, target: str, **options: Any) -> str:
    """What the server says of who calls."""
    local = [("grpc.use_local_subchannel_pool", 1)]
    if world == "sync":
        with dynserve.connect(target, schema=schema, options=local, **options) as client:
            return str(client.method(UNARY)(timeout=20).text)

    async def main() -> str:
        connected = dynserve.aio.connect(target, schema=schema, options=local, **options)
        async with connected as client:
            return str((await (await client.method(UNARY))(timeout=20)).text)

    return asyncio.run(main())


@every_world
@pytest.mark.parametrize("form", ["path", "text path", "bytes", "TLS", "credentials"])
def test_an_own_authority(world: World, form: str, authorities: list[Authority]) -> None:
    """As a path, as PEM bytes, in a TLS, or as gRPC's own credentials."""
    authority = authorities[0]
    path = authority.folder / "ca.crt"
    forms: dict[str, Any] = {
        "path": path,
        "text path": str(path),
        "bytes": authority.root,
        "TLS": TLS(ca=path),
        "credentials": grpc.ssl_channel_credentials(authority.root),
    }
    with tls_server(authority, "localhost") as target:
        assert ask(world, target, tls=forms[form]) == "[] None"


@every_world
def test_the_authorities_of_the_system(
    world: World, authorities: list[Authority], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What OpenSSL trusts is trusted; SSL_CERT_FILE says what that is."""
    monkeypatch.delenv(GRPC_ROOTS, raising=False)
    first, second = authorities
    with tls_server(first, "localhost") as target:
        monkeypatch.setenv("SSL_CERT_FILE", str(first.folder / "ca.crt"))
        assert ask(world, target, tls=True) == "[] None"
        monkeypatch.setenv("SSL_CERT_FILE", str(second.folder / "ca.crt"))
        with pytest.raises(StatusError) as caught:
            ask(world, target, tls=True)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@every_world
def test_the_name_on_the_certificate_can_be_another(
    world: World, authorities: list[Authority]
) -> None:
    """It must be the host's, unless another is named."""
    authority = authorities[0]
    with tls_server(authority, "elsewhere") as target:
        assert ask(world, target, tls=TLS(ca=authority.root, server_name="elsewhere")) == "[] None"
        with pytest.raises(StatusError) as caught:
            ask(world, target, tls=authority.root)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@every_world
def test_mutual_tls(world: World, authorities: list[Authority]) -> None:
    """The client proves who it is; one that does not is not let in."""
    first, second = authorities
    key, certificate = second.issue("client")
    with tls_server(first, "localhost", clients=second.root) as target:
        proof = TLS(ca=first.root, cert=certificate, key=key)
        assert ask(world, target, tls=proof) == "['client'] None"
        with pytest.raises(StatusError) as caught:
            ask(world, target, tls=first.root)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@every_world
@pytest.mark.parametrize("token", ["abc", lambda: "abc"], ids=["text", "function"])
def test_a_token_goes_with_every_call(
    world: World, token: str | Callable[[], str], authorities: list[Authority]
) -> None:
    """As a bearer token, from a text or from a function that is asked each time."""
    authority = authorities[0]
    with tls_server(authority, "localhost") as target:
        assert ask(world, target, tls=authority.root, token=token) == "[] Bearer abc"


@every_world
def test_a_token_that_cannot_be_had_fails_the_call(
    world: World, authorities: list[Authority]
) -> None:
    """The call ends with UNAVAILABLE, and nothing is sent without it."""

    def token() -> str:
        raise RuntimeError("the vault is shut")

    authority = authorities[0]
    with tls_server(authority, "localhost") as target, pytest.raises(StatusError) as caught:
        ask(world, target, tls=authority.root, token=token)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "the vault is shut" in caught.value.details()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda folder: dynserve.connect("a:1", token="t"),
            "token: would be sent unencrypted; give tls=True, or where the connection is safe by"
            " other means metadata={'authorization': 'Bearer …'}",
        ),
        (lambda folder: TLS(cert="c"), "cert: mutual TLS needs key= too"),
        (lambda folder: TLS(key="k"), "key: mutual TLS needs cert= too"),
        (
            lambda folder: dynserve.connect("a:1", tls=folder / "none.pem"),
            "ca: {folder}/none.pem: No such file or directory",
        ),
        (
            lambda folder: dynserve.connect("a:1", tls=folder / "odd.pem"),
            "ca: {folder}/odd.pem: not in PEM form, which begins with '-----BEGIN'",
        ),
        (
            lambda folder: dynserve.connect("a:1", tls=b"odd"),
            "ca: the bytes: not in PEM form, which begins with '-----BEGIN'",
        ),
        (
            lambda folder: TLS(cert="c.pem", key=KEY.decode()).credentials(),
            "key: a str is the path of a file; give what is in it as bytes",
        ),
    ],
)
def test_what_cannot_secure_a_connection_is_refused(
    make: Callable[[Path], Any], text: str, tmp_path: Path
) -> None:
    """When the client is made, with the argument and what to do."""
    (tmp_path / "odd.pem").write_text("odd")
    with pytest.raises(CredentialsError) as caught:
        make(tmp_path)
    assert str(caught.value) == text.replace("{folder}", str(tmp_path))


def test_without_roots_of_the_system_grpc_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has no bundle of authorities is no reason to fail."""
    monkeypatch.delenv(GRPC_ROOTS, raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    paths: Any = ssl.get_default_verify_paths()._replace(cafile=None)  # type: ignore[arg-type]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    assert isinstance(TLS().credentials(), grpc.ChannelCredentials)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", GRPC_ROOTS])
def test_a_variable_that_names_no_roots_is_an_error(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others would be trusted without a word."""
    monkeypatch.delenv(GRPC_ROOTS, raising=False)
    (tmp_path / "odd.pem").write_text("odd")
    said = []
    for name in ("none.pem", "odd.pem"):
        monkeypatch.setenv(variable, str(tmp_path / name))
        with pytest.raises(CredentialsError) as caught:
            dynserve.connect("a:1", tls=True)
        said.append(str(caught.value))
    assert said == [
        f"{variable}: {tmp_path}/none.pem: No such file or directory",
        f"{variable}: {tmp_path}/odd.pem: not in PEM form, which begins with '-----BEGIN'",
    ]


def test_the_roots_that_grpc_is_told_are_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its own variable names them; it goes before OpenSSL's, and an own authority first."""
    monkeypatch.delenv(GRPC_ROOTS, raising=False)
    given: list[Any] = []
    real = grpc.ssl_channel_credentials

    def ssl_channel_credentials(root_certificates: Any, **others: Any) -> Any:
        given.append(root_certificates)
        return real(root_certificates, **others)

    monkeypatch.setattr(grpc, "ssl_channel_credentials", ssl_channel_credentials)
    roots = tmp_path / "ca.pem"
    roots.write_bytes(b"-----BEGIN CERTIFICATE-----")
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    TLS().credentials()
    monkeypatch.setenv(GRPC_ROOTS, str(roots))
    TLS().credentials()
    TLS(ca=b"-----BEGIN mine").credentials()
    assert given == [b"-----BEGIN CERTIFICATE-----", None, b"-----BEGIN mine"]


def test_no_key_is_shown() -> None:
    """Nor the bytes of a certificate; paths are."""
    shown = [
        TLS(),
        TLS(ca=Path("ca.pem"), cert="c.pem", key="k.pem", server_name="name"),
        TLS(ca=b"-----BEGIN", cert=KEY.decode(), key=KEY),
    ]
    assert list(map(repr, shown)) == [
        "TLS(ca=None, cert=None, key=None, server_name=None)",
        "TLS(ca=PosixPath('ca.pem'), cert='c.pem', key=..., server_name='name')".replace(
            "PosixPath", type(Path()).__name__
        ),
        "TLS(ca=..., cert=..., key=..., server_name=None)",
    ]
