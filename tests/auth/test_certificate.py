"""Client certificates: whose names are let in."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from dynserve.auth import ClientCertificate
from dynserve.errors import CredentialsError
from dynserve.identity import Identity
from tests.auth.asking import WORLDS, answer, ask, refusal
from tests.authority import Authority

NEEDED = (grpc.StatusCode.UNAUTHENTICATED, "a client certificate is needed", ())
NOT_ALLOWED = (
    grpc.StatusCode.PERMISSION_DENIED,
    "the client certificate is not allowed here",
    (),
)
SPIFFE = "spiffe://example.com/ns/prod/sa/billing"
SAN, CN, ID = "x509_subject_alternative_name", "x509_common_name", "peer_spiffe_id"


def secured(**names: Sequence[str]) -> dict[str, list[bytes]]:
    """The properties of a connection with a certificate of these names."""
    properties = {
        key: [name.encode() for name in ([value] if isinstance(value, str) else value)]
        for key, value in names.items()
    }
    return {"transport_security_type": [b"ssl"], "security_level": [b"x"], **properties}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (secured(**{CN: "ada"}), ("ada",)),
        (secured(**{CN: "ada", SAN: ["a.example", "b.example"]}), ("a.example", "b.example")),
        (secured(**{ID: SPIFFE, SAN: [SPIFFE, "a.example"], CN: "x"}), (SPIFFE, "a.example")),
        (secured(**{CN: "ad\u00e5"}), ("ad\u00e5",)),
        (secured(**{CN: ["one", "two", "one"]}), ("one", "two")),
    ],
    ids=repr,
)
def test_every_certificate_of_the_authority(
    world: str, properties: dict[str, list[bytes]], expected: tuple[str, ...]
) -> None:
    """Without a list, each is let in by its first name; the common name counts by itself only."""
    found = ask(ClientCertificate(), world, auth=properties)
    assert found == Identity(expected[0], "certificate", {"names": expected})


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"transport_security_type": [b"insecure"], CN: [b"ada"]},
        {"transport_security_type": [], CN: [b"ada"]},
        {CN: [b"ada"]},
        secured(),
        secured(**{CN: ""}),
        secured(**{CN: "a\nb"}),
        secured(**{CN: "ada\0.example"}),
        secured(**{CN: "ada", SAN: "a\0b"}),
    ],
    ids=repr,
)
def test_without_a_certificate(world: str, properties: dict[str, list[bytes]]) -> None:
    """A connection without TLS, or whose client has shown nothing with a name, is refused."""
    for allow in (None, "ada", "**"):
        assert refusal(ClientCertificate(allow), world, auth=properties) == NEEDED


@pytest.mark.parametrize(
    ("allow", "name", "is_allowed"),
    [
        ("ada", "ada", True),
        ("ada", "ada2", False),
        ("ada", "xada", False),
        ("ada", "Ada", False),
        ({"ada", "eve"}, "eve", True),
        (["ada", "e*"], "eve", True),
        (["a|b"], "a", False),
        (("a.c",), "abc", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.example.com.evil", False),
        ("spiffe://example.com/ns/*/sa/billing", SPIFFE, True),
        ("spiffe://example.com/*/billing", SPIFFE, False),
        ("spiffe://example.com/**/billing", SPIFFE, True),
        ("spiffe://example.com/**", SPIFFE, True),
        ("spiffe://example.com*", SPIFFE, False),
        ("*", SPIFFE, False),
        ("**", SPIFFE, True),
        ("[ab]?", "a1", False),
        (lambda name: name.startswith("ad"), "ada", True),
        (lambda name: name.startswith("ad"), "eve", False),
    ],
)
def test_who_is_allowed(allow: Any, name: str, is_allowed: bool) -> None:
    """A name in whole, one with stars, of which one does not cross a slash, or a function."""
    found = answer(ClientCertificate(allow), "sync", auth=secured(**{SAN: name}))
    denied = "the client certificate is not allowed here"
    expected = Identity(name, "certificate", {"names": (name,)}) if is_allowed else denied
    assert found == expected


@pytest.mark.parametrize("world", WORLDS)
def test_the_first_name_that_is_allowed(world: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is the identity's name; where none is, the caller is known, and may not."""
    caplog.set_level(logging.DEBUG, "dynserve.auth")
    properties = secured(**{SAN: ["a.example", "b.example"], CN: "ada"})
    names = {"names": ("a.example", "b.example")}
    found = ask(ClientCertificate({"b.example"}), world, auth=properties)
    assert found == Identity("b.example", "certificate", names)
    for allow in ("ada", "c.example"):
        assert refusal(ClientCertificate(allow), world, auth=properties) == NOT_ALLOWED
    logged = "the client certificate of ('a.example', 'b.example') is not allowed"
    call = "None from ipv4:127.0.0.1:50000: "
    assert [one.getMessage() for one in caplog.records] == [call + logged] * 2


@pytest.mark.parametrize(
    ("allow", "problem"),
    [
        ("", "allow: got '', so nobody could call; None allows every certificate"),
        ([], "allow: got [], so nobody could call; None allows every certificate"),
        (
            ["ada", ""],
            "allow: got ['ada', ''], so nobody could call; None allows every certificate",
        ),
        ([b"ada"], "allow: got [b'ada'], expected names as str, or a function"),
    ],
)
def test_a_list_that_makes_no_sense(allow: Any, problem: str) -> None:
    """An empty list, or an empty name in it, is a mistake, and no permission."""
    with pytest.raises((CredentialsError, TypeError)) as raised:
        ClientCertificate(allow)
    assert str(raised.value) == problem


def test_what_is_shown_of_it() -> None:
    """Its text says whom it lets in."""
    assert repr(ClientCertificate("*.example")) == "ClientCertificate(allow='*.example')"


def test_what_grpc_says_of_a_real_connection(authorities: list[Authority]) -> None:
    """The properties that gRPC has of mutual TLS are those that are read here."""
    first, _ = authorities
    server_key = first.issue("localhost")
    client_key = first.issue("gateway.example")
    seen: dict[str, Any] = {}

    def handler(_: bytes, context: Any) -> bytes:
        seen["mutual" if "mutual" not in seen else "plain"] = dict(context.auth_context())
        return b""

    method: Any = grpc.unary_unary_rpc_method_handler(handler)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("pkg.Service", {"Call": method}),)
    )
    secure = grpc.ssl_server_credentials([server_key], first.root, require_client_auth=True)
    ports = [
        server.add_secure_port("127.0.0.1:0", secure),
        server.add_insecure_port("127.0.0.1:0"),
    ]
    server.start()
    try:
        credentials = grpc.ssl_channel_credentials(first.root, *client_key)
        with (
            grpc.secure_channel(f"localhost:{ports[0]}", credentials) as mutual,
            grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as plain,
        ):
            for channel in (mutual, plain):
                call: Any = channel.unary_unary("/pkg.Service/Call")
                call(b"", timeout=20)
    finally:
        server.stop(0).wait(20)
    expected: Mapping[str, Any] = {"names": ("gateway.example",)}
    authenticate = ClientCertificate("*.example")
    found = ask(authenticate, "sync", auth=seen["mutual"])
    assert found == Identity("gateway.example", "certificate", expected)
    assert refusal(authenticate, "sync", auth=seen["plain"]) == NEEDED
