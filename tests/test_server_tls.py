"""TLS of a server: what is served, what is refused, and files that change."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest

from dynserve import CredentialsError, Kind
from dynserve import server_tls as module
from dynserve.server_tls import ServerTLS, server_tls_from
from tests.authority import Authority
from tests.certificates import Files, Pair, certificate
from tests.echo import PATHS, Item, app_with

SECONDS = 20
ALONE = ("grpc.use_local_subchannel_pool", 1)
LATER = datetime.now(timezone.utc) + timedelta(days=30)


@pytest.fixture
def first(authorities: list[Authority]) -> Pair:
    """A certificate for localhost."""
    return certificate(authorities[0], "/O=Test/CN=first", "DNS:localhost,IP:127.0.0.1")


@pytest.fixture
def second(authorities: list[Authority]) -> Pair:
    """Another one, of the same authority."""
    return certificate(authorities[0], "/CN=second")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are looked at before every handshake."""
    monkeypatch.setattr(module, "_PERIOD", 0.0)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged since it was last asked."""
    caplog.set_level(logging.INFO, "dynserve.tls")

    def take() -> list[str]:
        found = [
            f"{one.levelname} {one.getMessage()}"
            for one in caplog.records
            if one.name == "dynserve.tls"
        ]
        caplog.clear()
        return found

    return take


def who(_: Any, context: Any) -> Any:
    identities = [one.decode() for one in context.peer_identities() or ()]
    return Item(text=f"{identities}")


async def async_who(request: Any, context: Any) -> Any:
    return who(request, context)


@contextlib.contextmanager
def serving(tls: ServerTLS, handler: Any = who) -> Iterator[str]:
    """The address of a server, as it is on the certificate."""
    app = app_with(handler, Kind.UNARY_UNARY)
    with app.server("127.0.0.1:0", credentials=tls.credentials()).in_thread() as server:
        yield server.addresses[0].replace("127.0.0.1", "localhost")


def channel_to(address: str, root: bytes, pair: Pair | None = None, name: str = "") -> grpc.Channel:
    key, cert = pair or (None, None)
    options: list[tuple[str, Any]] = [ALONE]
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    credentials = grpc.ssl_channel_credentials(root, key, cert)
    return grpc.secure_channel(address, credentials, options)


def ask(channel: grpc.Channel) -> str:
    call: Any = channel.unary_unary(
        f"/{PATHS[Kind.UNARY_UNARY]}", response_deserializer=Item.FromString
    )
    return str(call(b"", timeout=SECONDS).text)


def answer(*args: Any, **options: Any) -> str:
    """What the server says on a connection of its own, or how the client fails."""
    with channel_to(*args, **options) as channel:
        try:
            return ask(channel)
        except grpc.RpcError as error:
            call: Any = error
            return f"{call.code().name}: {call.details()}"


def presented(address: str) -> bytes:
    """The certificate that a new connection gets."""
    return ssl.get_server_certificate(split(address), timeout=SECONDS).encode()


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


# ---- files that change


@pytest.mark.parametrize("handler", [who, async_who])
def test_new_connections_get_the_new_certificate(
    handler: Any, engine: str, tmp_path: Path, first: Pair, second: Pair, at_once: None,
    authorities: list[Authority], said: Callable[[], list[str]],
) -> None:  # fmt: skip
    """The old ones go on; what is served from now on is logged."""
    files, root = Files(tmp_path, first), authorities[0].root
    tls = ServerTLS(files.cert, files.key)
    with serving(tls, handler) as address, channel_to(address, root) as before:
        answers = [ask(before)]
        files.write(second)
        seen = presented(address)
        answers += [ask(before), answer(address, root)]
    assert (seen, answers) == (second.cert, ["[]", "[]", "[]"])
    until = f"valid until … UTC, from {files.cert}"
    assert [_without_time(one) for one in said()] == [
        f"INFO certificate of CN=first,O=Test for localhost, 127.0.0.1, {until}",
        f"INFO certificate of CN=second for localhost, {until}",
    ]


def _without_time(entry: str) -> str:
    before, mark, rest = entry.partition("valid until ")
    return before + mark + "…" + rest[len("2026-01-01 00:00:00") :] if mark else entry


def test_half_a_change_changes_nothing(
    tmp_path: Path, first: Pair, second: Pair, at_once: None, said: Callable[[], list[str]]
) -> None:
    """A certificate without its key is said once, and tried until the key is there."""
    files = Files(tmp_path, first)
    with serving(ServerTLS(files.cert, files.key)) as address:
        said()
        seen = []
        files.put(files.cert, second.cert)
        seen += [presented(address), presented(address)]
        files.key.write_bytes(b"")
        seen += [presented(address), presented(address)]
        errors = said()
        files.put(files.key, second.key)
        seen.append(presented(address))
    assert seen == [first.cert] * 4 + [second.cert]
    old = "ERROR the TLS files cannot be used, the old ones still are: tls_key: "
    assert errors == [
        f"{old}{files.key}: is not the key to {files.cert}",
        f"{old}{files.key}: not in PEM form, which begins with '-----BEGIN'",
    ]
    assert [_without_time(one) for one in said()] == [
        f"INFO certificate of CN=second for localhost, valid until … UTC, from {files.cert}"
    ]


def test_one_link_swaps_all_files(
    tmp_path: Path, first: Pair, second: Pair, at_once: None, said: Callable[[], list[str]]
) -> None:
    """As Kubernetes does it: the files are links into ``..data``, itself a link to a folder."""
    for name, pair in (("..1", first), ("..2", second)):
        (tmp_path / name).mkdir()
        Files(tmp_path / name, pair)
    data = tmp_path / "..data"
    data.symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    with serving(ServerTLS(tmp_path / "tls.crt", tmp_path / "tls.key")) as address:
        seen = [presented(address)]
        (tmp_path / "..data_tmp").symlink_to("..2")
        os.replace(tmp_path / "..data_tmp", data)
        seen.append(presented(address))
    assert seen == [first.cert, second.cert]
    assert [entry for entry in said() if not entry.startswith("INFO")] == []


def test_every_port_gets_the_new_certificate(
    tmp_path: Path, first: Pair, second: Pair, at_once: None
) -> None:
    """Each has credentials of its own, and one that asks late is told too."""
    files = Files(tmp_path, first)
    tls = ServerTLS(files.cert, files.key)
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        ports = [server.add_secure_port("127.0.0.1:0", tls.credentials()) for _ in range(2)]
        server.start()
        seen = [presented(f"localhost:{ports[0]}")]
        files.write(second)
        seen += [presented(f"localhost:{ports[at]}") for at in (0, 0, 1, 1)]
        server.stop(None).wait()
    assert seen == [first.cert, *[second.cert] * 4]


def test_every_address_of_a_server(
    tmp_path: Path, engine: str, first: Pair, second: Pair, at_once: None
) -> None:
    """The settings secure all of them."""
    files = Files(tmp_path, first)
    app = app_with(who, Kind.UNARY_UNARY)
    server = app.server("localhost:0", "127.0.0.1:0", tls_cert=files.cert, tls_key=files.key)
    with server.in_thread():
        seen = [presented(address) for address in server.addresses]
        files.write(second)
        seen += [presented(address) for address in server.addresses]
    assert seen == [first.cert] * 2 + [second.cert] * 2


def test_a_port_is_told_of_a_change_alone(
    tmp_path: Path, first: Pair, second: Pair, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and after handshakes that asked before it are through: gRPC frees what they use."""
    pauses: list[float] = []
    monkeypatch.setattr("dynserve.server_tls.time.sleep", pauses.append)
    files = Files(tmp_path, first)
    current = module._Current(module._Files(files.cert, files.key, None))
    port = module._Port(current)
    answers = [port.fetch(), port.fetch()]
    assert pauses == []
    files.write(second)
    answers += [port.fetch(), port.fetch()]
    assert answers == [None, None, current.configuration, None]
    assert sum(pauses) == pytest.approx(0.1)
    assert len(pauses) == 20


def test_the_authorities_of_clients_change_too(
    tmp_path: Path, engine: str, first: Pair, at_once: None, authorities: list[Authority]
) -> None:
    """Who was trusted is refused, who was not is let in."""
    one, other = authorities
    files = Files(tmp_path, first, one.root)
    clients = [certificate(authority, "/CN=client", "DNS:client") for authority in authorities]
    assert files.client_ca is not None
    with serving(ServerTLS(files.cert, files.key, files.client_ca)) as address:
        before = [answer(address, one.root, pair)[:12] for pair in clients]
        files.put(files.client_ca, other.root)
        after = [answer(address, one.root, pair)[:12] for pair in clients]
    assert (before, after) == (["['client']", "UNAVAILABLE:"], ["UNAVAILABLE:", "['client']"])


def test_files_are_read_once_a_period(
    tmp_path: Path, first: Pair, second: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many connections are made; and by one of them, while the others go on."""
    files = Files(tmp_path, first)
    monkeypatch.setattr(module, "_PERIOD", 1e6)
    current = module._Current(module._Files(files.cert, files.key, None))
    old = current.configuration
    files.write(second)
    found = [current.fetch() for _ in range(100)]
    current._due = 0.0
    with current._lock:
        found.append(current.fetch())
    assert {*found} == {old}
    new = current.fetch()
    assert new is not old
    assert current.fetch() is new


def test_files_written_again_are_the_same(
    tmp_path: Path, first: Pair, at_once: None, said: Callable[[], list[str]]
) -> None:
    """What is in them counts, not when they were written."""
    files = Files(tmp_path, first)
    current = module._Current(module._Files(files.cert, files.key, None))
    old = current.configuration
    said()
    files.write(first)
    assert (current.fetch() is old, said()) == (True, [])


def test_files_that_never_stand_still_are_an_error(
    tmp_path: Path, first: Pair, second: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked has to be what is served."""
    files = Files(tmp_path, first)
    pairs = [second, first] * 10
    check = module._Files._check_pair

    def check_and_change(self: Any) -> None:
        check(self)
        files.write(pairs.pop(0))

    monkeypatch.setattr(module._Files, "_check_pair", check_and_change)
    with pytest.raises(CredentialsError) as caught:
        ServerTLS(files.cert, files.key)
    assert str(caught.value) == f"tls_cert: {files.cert}: changes while it is read"
    del pairs[1:]
    monkeypatch.setattr(
        module._Files,
        "_check_pair",
        lambda self: check_and_change(self) if pairs else check(self),
    )
    ServerTLS(files.cert, files.key)  # stands still after one change


def test_a_file_that_goes_while_it_is_checked(
    tmp_path: Path, first: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error like that of one that never was there."""
    files = Files(tmp_path, first)
    check = module._Files._check_key

    def check_and_remove(self: Any, data: bytes) -> None:
        check(self, data)
        files.key.unlink()

    monkeypatch.setattr(module._Files, "_check_key", check_and_remove)
    with pytest.raises(CredentialsError) as caught:
        ServerTLS(files.cert, files.key)
    assert str(caught.value) == f"tls_cert: {files.cert}: No such file or directory"


def test_certificates_change_under_load(
    tmp_path: Path, engine: str, first: Pair, second: Pair, at_once: None,
    authorities: list[Authority],
) -> None:  # fmt: skip
    """No call fails, on connections that stay and on new ones."""
    files, root = Files(tmp_path, first), authorities[0].root
    failures: list[str] = []
    calls, stop = [0, 0, 0, 0], threading.Event()

    def load(number: int, address: str) -> None:
        stays = channel_to(address, root)
        with stays:
            while not stop.is_set():
                try:
                    ask(stays)
                    if number % 2:
                        with channel_to(address, root) as new:
                            ask(new)
                except Exception as error:
                    failures.append(repr(error))
                calls[number] += 1

    with serving(ServerTLS(files.cert, files.key)) as address:
        threads = [threading.Thread(target=load, args=(i, address)) for i in range(len(calls))]
        for thread in threads:
            thread.start()
        seen = []
        try:
            for pair in (second, first, second, first, second):
                files.write(pair)
                seen.append(presented(address) == pair.cert)
                done = list(calls)
                while any(now <= then for now, then in zip(calls, done, strict=True)):
                    stop.wait(0.001)
                    assert failures == []
        finally:
            stop.set()
            for thread in threads:
                thread.join(SECONDS)
    assert (failures, seen) == ([], [True] * 5)


# ---- certificates and time


def test_an_expired_certificate_is_served_and_said(
    tmp_path: Path, authorities: list[Authority], second: Pair, at_once: None,
    said: Callable[[], list[str]],
) -> None:  # fmt: skip
    """A server that starts too early or too late has the next certificate when the files do."""
    files = Files(tmp_path, certificate(authorities[0], "/CN=old", days=-1))
    current = module._Current(module._Files(files.cert, files.key, None))
    end = current._loaded.certificate.not_after
    assert said()[1:] == [
        f"WARNING clients refuse the certificate in {files.cert}: it expired on {end:%F %T} UTC"
    ]
    current.fetch()
    assert said() == []
    files.write(second)
    current.fetch()
    assert current._loaded.contents[0] == second.cert


@pytest.mark.parametrize(
    ("now", "problem"),
    [
        (LATER, "it expired on {0.not_after:%F %T} UTC"),
        (LATER - timedelta(days=60), "it is not valid before {0.not_before:%F %T} UTC"),
    ],
)
def test_a_certificate_that_is_not_valid_now(
    now: datetime, problem: str, tmp_path: Path, first: Pair, at_once: None,
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The time it happens it is said, once, though the files did not change."""
    files = Files(tmp_path, first)
    current = module._Current(module._Files(files.cert, files.key, None))
    said()
    monkeypatch.setattr(module, "_now", lambda: now)
    current.fetch()
    current.fetch()
    problem = problem.format(current._loaded.certificate)
    assert said() == [f"ERROR clients refuse the certificate in {files.cert}: {problem}"]


def test_an_expired_certificate_does_not_replace_a_valid_one(
    tmp_path: Path, first: Pair, authorities: list[Authority], at_once: None,
    said: Callable[[], list[str]],
) -> None:  # fmt: skip
    """Clients would be refused that are served now."""
    files = Files(tmp_path, first)
    current = module._Current(module._Files(files.cert, files.key, None))
    said()
    files.write(certificate(authorities[0], "/CN=old", days=-1))
    current.fetch()
    current.fetch()
    end = module._Files(files.cert, files.key, None).load().certificate.not_after
    assert current._loaded.contents[0] == first.cert
    assert said() == [
        "ERROR the TLS files cannot be used, the old ones still are: tls_cert:"
        f" {files.cert}: it expired on {end:%F %T} UTC"
    ]


# ---- files that cannot be used


def _write(name: str, data: bytes) -> Callable[[Files, Pair], None]:
    return lambda files, other: files.put(getattr(files, name), data)


def _encrypted(files: Files, _: Pair) -> None:
    files.put(files.key, b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nabc\n")


def _unsigned(pair: Pair) -> bytes:
    """What a certificate says, without what proves it."""
    der = ssl.PEM_cert_to_DER_cert(pair.cert.decode())
    end = 8 + int.from_bytes(der[6:8], "big")  # of its first part, which has a head of four bytes
    unsigned = b"\x30\x82" + (end - 4).to_bytes(2, "big") + der[4:end]
    return ssl.DER_cert_to_PEM_cert(unsigned).encode()


_BAD_BASE64 = b"-----BEGIN CERTIFICATE-----\nab*\n-----END CERTIFICATE-----\n"
_BAD_DER = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"

UNUSABLE: dict[str, tuple[Callable[[Files, Pair], object], str]] = {
    "no certificate": (
        lambda files, _: files.cert.unlink(),
        "tls_cert: {cert}: No such file or directory",
    ),
    "no key": (
        lambda files, _: files.key.unlink(),
        "tls_key: {key}: No such file or directory",
    ),
    "not PEM": (
        _write("cert", b"odd"),
        "tls_cert: {cert}: not in PEM form, which begins with '-----BEGIN'",
    ),
    "exchanged": (
        lambda files, other: files.write(Pair(other.cert, other.key)),
        "tls_cert: {cert}: has no certificate, expected '-----BEGIN CERTIFICATE-----'; a private"
        " key belongs into tls_key",
    ),
    "something else": (
        _write("cert", b"-----BEGIN PUBLIC KEY-----"),
        "tls_cert: {cert}: has no certificate, expected '-----BEGIN CERTIFICATE-----'",
    ),
    "certificate as key": (
        lambda files, other: files.put(files.key, other.cert),
        "tls_key: {key}: has no key, expected '-----BEGIN PRIVATE KEY-----'; a certificate belongs"
        " into tls_cert",
    ),
    "public key": (
        _write("key", b"-----BEGIN PUBLIC KEY-----"),
        "tls_key: {key}: has no key, expected '-----BEGIN PRIVATE KEY-----'",
    ),
    "encrypted": (
        _encrypted,
        "tls_key: {key}: the key is encrypted, expected one without a passphrase; make one with"
        " 'openssl pkey -in {key} -out FILE'",
    ),
    "mismatch": (
        lambda files, other: files.put(files.key, other.key),
        "tls_key: {key}: is not the key to {cert}",
    ),
    "a key that is none": (
        _write("key", b"-----BEGIN PRIVATE KEY-----\nab\n-----END PRIVATE KEY-----\n"),
        "tls_cert: {cert}: OpenSSL cannot use it with {key}: not what its first line says",
    ),
    "not base64": (_write("cert", _BAD_BASE64), "tls_cert: {cert}: certificate 1 is not base64"),
    "not DER": (_write("cert", _BAD_DER), "tls_cert: {cert}: not a certificate of X.509"),
    "authorities that are none": (
        _write("client_ca", _BAD_DER),
        "tls_client_ca: {ca}: not a certificate of X.509",
    ),
    "authorities without a signature": (
        lambda files, other: files.put(files.folder / "ca.crt", _unsigned(other)),
        "tls_client_ca: {ca}: OpenSSL cannot use it: not what its first line says",
    ),
    "no authorities": (
        lambda files, other: files.put(files.folder / "ca.crt", other.key),
        "tls_client_ca: {ca}: has no certificate, expected '-----BEGIN CERTIFICATE-----'; a private"
        " key belongs into tls_key",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_files_that_cannot_be_used(
    case: str, tmp_path: Path, first: Pair, second: Pair, authorities: list[Authority]
) -> None:
    """The setting, the file, what was got and what was expected."""
    files = Files(tmp_path, first, authorities[0].root)
    spoil, text = UNUSABLE[case]
    spoil(files, second)
    with pytest.raises(CredentialsError) as caught:
        ServerTLS(files.cert, files.key, files.client_ca)
    assert str(caught.value) == text.format(cert=files.cert, key=files.key, ca=files.client_ca)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("EC -pkeyopt ec_paramgen_curve:secp256k1", "secp256k1"),
        ("EC -pkeyopt ec_paramgen_curve:P-224", "P-224"),
        ("EC -pkeyopt ec_paramgen_curve:brainpoolP256r1", "1.3.36.3.3.2.8.1.1.7"),
        ("RSA-PSS -pkeyopt rsa_keygen_bits:2048", "RSA-PSS"),
        ("ED448", "Ed448"),
    ],
)
def test_keys_that_grpc_cannot_serve(
    kind: str, name: str, tmp_path: Path, authorities: list[Authority]
) -> None:
    """OpenSSL could; gRPC says no more than that the port cannot be had."""
    files = Files(tmp_path, certificate(authorities[0], "/CN=x", kind=kind))
    with pytest.raises(CredentialsError) as caught:
        ServerTLS(files.cert, files.key)
    assert str(caught.value) == (
        f"tls_cert: {files.cert}: got a key of kind {name}, which gRPC cannot serve; expected RSA,"
        " P-256 or P-384"
    )


@pytest.mark.parametrize(
    ("kind", "name"), [("EC -pkeyopt ec_paramgen_curve:P-521", "P-521"), ("ED25519", "Ed25519")]
)
def test_keys_that_grpc_clients_refuse(
    kind: str, name: str, tmp_path: Path, authorities: list[Authority],
    said: Callable[[], list[str]],
) -> None:  # fmt: skip
    """They are served, with a warning: others understand them."""
    files = Files(tmp_path, certificate(authorities[0], "/CN=x", kind=kind))
    with serving(ServerTLS(files.cert, files.key)) as address:
        refused = answer(address, authorities[0].root)
        assert presented(address) == files.cert.read_bytes()
    assert refused.startswith("UNAVAILABLE: failed to connect to all addresses")
    assert said()[1:] == [
        f"WARNING {files.cert} has a key of kind {name}, which gRPC clients in Python and C++"
        " refuse; RSA, P-256 and P-384 are understood by all"
    ]


def test_a_key_that_is_too_short(tmp_path: Path, authorities: list[Authority]) -> None:
    """gRPC would serve it, and OpenSSL too where the system's settings are old."""
    weak = certificate(authorities[0], "/CN=x", kind="RSA -pkeyopt rsa_keygen_bits:1024")
    files = Files(tmp_path, weak)
    with pytest.raises(CredentialsError) as caught:
        ServerTLS(files.cert, files.key)
    assert str(caught.value) == (
        f"tls_cert: {files.cert}: OpenSSL cannot use it with {files.key}: ee key too small"
    )


@pytest.mark.parametrize(
    "kind",
    ["RSA -pkeyopt rsa_keygen_bits:2048", "EC -pkeyopt ec_paramgen_curve:P-384"],
)
def test_keys_that_all_understand(kind: str, tmp_path: Path, authorities: list[Authority]) -> None:
    """RSA, and the two curves of NIST that everyone has."""
    files = Files(tmp_path, certificate(authorities[0], "/CN=x", kind=kind))
    with serving(ServerTLS(files.cert, files.key)) as address:
        assert answer(address, authorities[0].root) == "[]"


def test_a_key_that_everyone_can_read(
    tmp_path: Path, first: Pair, said: Callable[[], list[str]]
) -> None:
    """It is said, at the start."""
    files = Files(tmp_path, first)
    files.key.chmod(0o644)
    ServerTLS(files.cert, files.key)
    assert said()[1:] == [
        f"WARNING {files.key} can be read by every user of this machine (mode 0644); chmod o="
        f" {files.key}"
    ]


def test_a_certificate_of_many_names(
    tmp_path: Path, authorities: list[Authority], said: Callable[[], list[str]]
) -> None:
    """Ten of them are logged; one without any is told by that."""
    many = ",".join(f"DNS:n{number}" for number in range(12))
    for names in (many, ""):
        files = Files(tmp_path, certificate(authorities[0], "/", names))
        ServerTLS(files.cert, files.key)
    first = ", ".join(f"n{number}" for number in range(10))
    until = f"valid until … UTC, from {tmp_path}/tls.crt"
    assert [_without_time(one) for one in said()] == [
        f"INFO certificate of no subject for {first} and 2 more, {until}",
        f"INFO certificate of no subject for no name, {until}",
    ]


# ---- settings


def test_no_setting_is_no_tls() -> None:
    """Where nothing is asked for there is none; nor where no certificate of clients is."""
    assert server_tls_from() is None
    assert server_tls_from(tls_require_client_cert=False) is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"tls_cert": "c"}, "tls_cert: got it without tls_key, expected both"),
        ({"tls_key": "k"}, "tls_key: got it without tls_cert, expected both"),
        ({"tls_cert": ""}, "tls_cert: got '', expected the path of a PEM file"),
        ({"tls_key": ""}, "tls_key: got '', expected the path of a PEM file"),
        (
            {"tls_cert": "c", "tls_key": "k", "tls_client_ca": ""},
            "tls_client_ca: got '', expected the path of a PEM file",
        ),
        (
            {"tls_client_ca": "a"},
            "tls_client_ca: got it without tls_cert and tls_key, expected all",
        ),
        (
            {"tls_require_client_cert": True},
            "tls_require_client_cert: got True without tls_cert, tls_key and tls_client_ca,"
            " expected all",
        ),
        (
            {"tls_cert": "c", "tls_key": "k", "tls_require_client_cert": True},
            "tls_require_client_cert: got True without tls_client_ca, expected the authorities that"
            " sign the certificates of clients too",
        ),
        (
            {
                "tls_cert": "c",
                "tls_key": "k",
                "tls_client_ca": "a",
                "tls_require_client_cert": False,
            },
            "tls_require_client_cert: got False with tls_client_ca; gRPC for Python either requires"
            " a client's certificate or does not ask for one: leave tls_client_ca out to serve"
            " clients without",
        ),
        (
            {"tls_cert": "c", "tls_key": "-----BEGIN PRIVATE KEY-----secret"},
            "tls_cert: c: No such file or directory",
        ),
        (
            {"tls_cert": "-----BEGIN CERTIFICATE-----", "tls_key": "k"},
            "tls_cert: got what is in a PEM file, expected the path of the file",
        ),
    ],
)
def test_settings_that_do_not_fit(settings: Any, text: str) -> None:
    """Each says what is missing or wrong, and none switches TLS off."""
    with pytest.raises(CredentialsError) as caught:
        server_tls_from(**settings)
    assert (str(caught.value), caught.value.exit_code) == (text, 2)


def test_settings_that_fit(
    tmp_path: Path, first: Pair, authorities: list[Authority], engine: str
) -> None:
    """A client's certificate is required where its authorities are given."""
    files = Files(tmp_path, first, authorities[0].root)
    tls = server_tls_from(
        tls_cert=str(files.cert), tls_key=str(files.key), tls_client_ca=files.client_ca
    )
    assert tls is not None
    with serving(tls) as address:
        known = certificate(authorities[0], "/CN=me", "DNS:me")
        assert answer(address, authorities[0].root, known) == "['me']"
        assert answer(address, authorities[0].root).startswith("UNAVAILABLE: ")


# ---- who is refused


def test_who_is_refused(
    tmp_path: Path, first: Pair, authorities: list[Authority], engine: str
) -> None:
    """What a client sees that has no right to connect, or connects to what is not meant."""
    one, other = authorities
    files = Files(tmp_path, first, one.root)
    known = certificate(one, "/CN=me", "DNS:me")
    cases: dict[str, tuple[Any, ...]] = {
        "known": (one.root, known),
        "no certificate": (one.root,),
        "wrong CA": (one.root, certificate(other, "/CN=me", "DNS:me")),
        "expired": (one.root, certificate(one, "/CN=me", "DNS:me", days=-1)),
        "wrong name": (one.root, known, "elsewhere"),
        "wrong CA of the server": (other.root, known),
    }
    with serving(ServerTLS(files.cert, files.key, files.client_ca)) as address:
        seen = {case: answer(address, *given) for case, given in cases.items()}
    failed = "UNAVAILABLE: failed to connect to all addresses; last error: "
    reasons = {case: text.removeprefix(failed) for case, text in seen.items()}
    assert reasons.pop("known") == "['me']"
    assert all(text.startswith(failed) for case, text in seen.items() if case != "known")
    assert "Hostname Verification Check failed" in reasons.pop("wrong name")
    assert "CERTIFICATE_VERIFY_FAILED" in reasons.pop("wrong CA of the server")
    # The server's reason is not the client's business: it sees that the connection is closed.
    assert [text for text in reasons.values() if "CERT" in text or "expired" in text] == []


def client_hello(version: int) -> bytes:
    """The first message of a client that speaks this version of TLS and none later."""

    def sized(form: str, data: bytes) -> bytes:
        return struct.pack(form, len(data)) + data

    def words(*numbers: int) -> bytes:
        return struct.pack(f">{len(numbers)}H", *numbers)

    # ECDHE-ECDSA with AES-GCM, for 1.2, and with AES-CBC, for all before.
    ciphers = words(0xC02B, 0xC02C, 0xC009, 0xC00A)
    extensions = {
        10: sized(">H", words(0x001D, 0x0017)),  # groups: X25519, P-256
        11: sized("B", b"\0"),  # points are not compressed
        13: sized(">H", words(0x0403, 0x0503)),  # signatures: ECDSA with SHA-256 and SHA-384
        16: sized(">H", sized("B", b"h2")),  # ALPN
    }
    body = struct.pack(">H", version) + bytes(32) + b"\0" + sized(">H", ciphers) + b"\1\0"
    body += sized(
        ">H", b"".join(words(kind) + sized(">H", data) for kind, data in extensions.items())
    )
    return b"\x16\x03\x01" + sized(">H", b"\x01\0" + sized(">H", body))


@pytest.mark.parametrize(
    ("name", "version", "first_bytes"),
    [
        ("TLS 1.2", 0x0303, b"\x16\x03\x03"),
        ("TLS 1.1", 0x0302, b""),
        ("TLS 1.0", 0x0301, b""),
        ("SSL 3.0", 0x0300, b""),
    ],
)
def test_old_versions_are_refused_by_the_server(
    name: str, version: int, first_bytes: bytes, tmp_path: Path, first: Pair, engine: str
) -> None:
    """Bytes that differ in the version alone: the server answers 1.2, and closes on the others."""
    files = Files(tmp_path, first)
    with (
        serving(ServerTLS(files.cert, files.key)) as address,
        socket.create_connection(split(address), SECONDS) as raw,
    ):
        raw.sendall(client_hello(version))
        assert raw.recv(3, socket.MSG_WAITALL) == first_bytes


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("protocols", "spoken"), [(["h2"], True), (["http/1.1"], False), ([], False)]
)
def test_http_2_has_to_be_agreed_on(
    protocols: list[str], spoken: bool, version: ssl.TLSVersion, tmp_path: Path, first: Pair,
    authorities: list[Authority],
) -> None:  # fmt: skip
    """By ALPN; with a client that does not name it the server does not speak."""
    files = Files(tmp_path, first)
    context = ssl.create_default_context(cadata=authorities[0].root.decode())
    context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(protocols)
    with serving(ServerTLS(files.cert, files.key)) as address:
        host, port = split(address)
        with (
            socket.create_connection((host, port), SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=host) as connection,
        ):
            try:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
                heard = connection.recv(9)
            except (ssl.SSLEOFError, ConnectionError):  # closed without a word
                heard = b""
    assert (heard[3:4] == b"\4") is spoken  # a SETTINGS frame is a server's first
    assert spoken or heard == b""


# ---- who calls

PROVEN = {
    "peer_dns": [b"me.example"],
    "peer_email": [b"me@example.org"],
    "peer_ip": [b"10.1.2.3"],
    "peer_spiffe_id": [b"spiffe://example.org/me"],
    "peer_uri": [b"spiffe://example.org/me"],
    "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"],
    "ssl_session_reused": [b"false"],
    "transport_security_type": [b"ssl"],
    "x509_common_name": [b"me"],
    "x509_subject": [b"CN=me,O=Test"],
    "x509_subject_alternative_name": [
        b"me.example",
        b"spiffe://example.org/me",
        b"me@example.org",
        b"10.1.2.3",
    ],
}


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_handler_knows_of_the_client(
    is_async: bool, tmp_path: Path, first: Pair, authorities: list[Authority], engine: str
) -> None:
    """All that its certificate says, in the same words on every engine."""
    told: list[Any] = []

    def tell(_: Any, context: Any) -> Any:
        told.append(
            (
                {key: list(values) for key, values in context.auth_context().items()},
                list(context.peer_identities()),
                context.peer_identity_key(),
            )
        )
        return Item()

    async def async_tell(request: Any, context: Any) -> Any:
        return tell(request, context)

    authority = authorities[0]
    names = "DNS:me.example,URI:spiffe://example.org/me,email:me@example.org,IP:10.1.2.3"
    me = certificate(authority, "/O=Test/CN=me", names)
    files = Files(tmp_path, first, authority.root)
    tls = ServerTLS(files.cert, files.key, files.client_ca)
    with serving(tls, async_tell if is_async else tell) as address:
        assert answer(address, authority.root, me) == ""
    [(context, identities, key)] = told
    assert context.pop("x509_pem_cert") == [me.cert]
    newer = {"ssl_requested_server_name", "ssl_tls_version", "ssl_negotiated_key_exchange_group"}
    assert {name: context[name] for name in context.keys() - newer} == PROVEN
    assert (identities, key) == (
        PROVEN["x509_subject_alternative_name"],
        "x509_subject_alternative_name",
    )


def test_a_client_without_other_names(
    tmp_path: Path, first: Pair, authorities: list[Authority], engine: str
) -> None:
    """Is known by its common name."""
    told: list[Any] = []

    def tell(_: Any, context: Any) -> Any:
        told.append((context.peer_identity_key(), list(context.peer_identities())))
        return Item()

    authority = authorities[0]
    files = Files(tmp_path, first, authority.root)
    with serving(ServerTLS(files.cert, files.key, files.client_ca), tell) as address:
        answer(address, authority.root, certificate(authority, "/O=Test/CN=me", ""))
    assert told == [("x509_common_name", [b"me"])]
