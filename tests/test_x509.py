"""What a certificate says, compared with what was asked of openssl."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynserve.x509 import Certificate, read_certificate
from tests.authority import Authority
from tests.certificates import P256, Pair, certificate


def read(pair: Pair) -> Certificate:
    return read_certificate(ssl.PEM_cert_to_DER_cert(pair.cert.decode()))


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ("/CN=localhost", "CN=localhost"),
        ("/C=DE/ST=B/L=B/O=Org/OU=Unit/CN=x", "CN=x,OU=Unit,O=Org,L=B,ST=B,C=DE"),
        ("/DC=org/DC=example/emailAddress=a@b", "emailAddress=a@b,DC=example,DC=org"),
        ("/CN=a,b;c", "CN=a\\,b\\;c"),
        ("/title=Dr", "2.5.4.12=Dr"),
        ("/", ""),
    ],
)
def test_the_subject(subject: str, shown: str, authorities: list[Authority]) -> None:
    """As RFC 4514 writes it, the last first."""
    assert read(certificate(authorities[0], subject)).subject == shown


NAMES = {
    "DNS:a.example,DNS:*.b.example": ("a.example", "*.b.example"),
    "IP:127.0.0.1,IP:::1": ("127.0.0.1", "::1"),
    "URI:spiffe://example.org/me,email:me@example.org": (
        "spiffe://example.org/me",
        "me@example.org",
    ),
    "otherName:1.2.3.4;UTF8:odd,DNS:c": ("c",),
    "": (),
}


@pytest.mark.parametrize("names", NAMES)
def test_the_names(names: str, authorities: list[Authority]) -> None:
    """Hosts, addresses, URIs and mail addresses; others are left out."""
    assert read(certificate(authorities[0], "/CN=x", names)).names == NAMES[names]


@pytest.mark.parametrize("days", [-1, 1, 20000, 2000000])
def test_until_when(days: int, authorities: list[Authority]) -> None:
    """To the second, before and after 2050, where the form of the year changes."""
    found = read(certificate(authorities[0], "/CN=x", days=days))
    assert found.not_after - found.not_before == timedelta(days=days)
    assert abs(found.not_before - datetime.now(timezone.utc)) < timedelta(minutes=5)


KINDS = {
    P256: "P-256",
    "EC -pkeyopt ec_paramgen_curve:P-521": "P-521",
    "EC -pkeyopt ec_paramgen_curve:brainpoolP256r1": "1.3.36.3.3.2.8.1.1.7",
    "RSA -pkeyopt rsa_keygen_bits:2048": "RSA",
    "ED25519": "Ed25519",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_key(kind: str, authorities: list[Authority]) -> None:
    """The algorithm, or the curve where it is of elliptic ones."""
    assert read(certificate(authorities[0], "/CN=x", kind=kind)).key == KINDS[kind]


# ---- certificates that openssl's command does not make


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    return bytes([tag, 0x82]) + size.to_bytes(2, "big") + content


OID, SEQUENCE, SET, BITS = 0x06, 0x30, 0x31, 0x03
TIMES = (der(0x17, b"500101000000Z"), der(0x17, b"491231235959Z"))


def handmade(
    subject: bytes = b"", times: tuple[bytes, ...] = TIMES, extensions: bytes = b""
) -> bytes:
    """A certificate of version 1, or what an extension makes of it."""
    algorithm = der(SEQUENCE, der(OID, bytes([42, 134, 72, 134, 247, 13, 1, 1, 1])))
    whole = der(
        SEQUENCE,
        der(0x02, b"\1"),
        algorithm,
        der(SEQUENCE),
        der(SEQUENCE, *times),
        der(SEQUENCE, subject),
        der(SEQUENCE, algorithm, der(BITS, b"\0")),
        extensions,
    )
    return der(SEQUENCE, whole, algorithm, der(BITS, b"\0"))


def attribute(tag: int, text: bytes) -> bytes:
    return der(SEQUENCE, der(OID, b"\x55\4\3"), der(tag, text))


def test_the_least_that_a_certificate_says() -> None:
    """Version 1, with years of two digits: from 50 on they are of the century before."""
    assert read_certificate(handmade()) == Certificate(
        subject="",
        names=(),
        not_before=datetime(1950, 1, 1, tzinfo=timezone.utc),
        not_after=datetime(2049, 12, 31, 23, 59, 59, tzinfo=timezone.utc),
        key="RSA",
    )


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (der(SET, attribute(0x0C, b"a\nb\x1b")), "CN=a\\0ab\\1b"),
        (der(SET, attribute(0x0C, "a\u2028ü".encode())), "CN=a\\e2\\80\\a8ü"),
        (der(SET, attribute(0x1E, "Zoë".encode("utf-16-be"))), "CN=Zoë"),
        (der(SET, attribute(0x0C, b"\xff")), "CN=\ufffd"),
        (der(SET, attribute(0x0C, b"a"), attribute(0x0C, b"b")), "CN=a+CN=b"),
    ],
)
def test_odd_subjects(subject: bytes, shown: str) -> None:
    """Nothing in them ends a line of a log, or hides in it."""
    assert read_certificate(handmade(subject)).subject == shown


CUT = [handmade()[:size] for size in range(0, len(handmade()), 7)]
BROKEN = {
    "three times": handmade(times=(*TIMES, TIMES[0])),
    "no year": handmade(times=(der(0x17, b"990000000000Z"), TIMES[1])),
    "an address of 5 bytes": handmade(
        extensions=der(
            0xA3,
            der(
                SEQUENCE,
                der(
                    SEQUENCE,
                    der(OID, b"\x55\x1d\x11"),
                    der(4, der(SEQUENCE, der(0x87, b"12345"))),
                ),
            ),
        )
    ),
    "a number without digits": handmade(der(SET, der(SEQUENCE, der(OID), der(0x0C)))),
    **{f"{len(part)} bytes of it": part for part in CUT},
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_certificate(case: str) -> None:
    """One error, whatever is wrong."""
    with pytest.raises(ValueError, match=r"^not a certificate of X\.509$"):
        read_certificate(BROKEN[case])


@given(st.data())
def test_any_bytes_at_all(data: st.DataObject) -> None:
    """They are a certificate, or that error; nothing else is raised."""
    whole = bytearray(handmade(der(SET, attribute(0x0C, b"abc"))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    outcome = "a certificate"
    try:
        read_certificate(bytes(whole))
    except ValueError as error:
        outcome = str(error)
    assert outcome in ("a certificate", "not a certificate of X.509")
