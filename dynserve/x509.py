"""A certificate's facts: whose it is, for which names, until when, with what kind of key.

The standard library tells them of certificates that it was connected with, not of a file. What is
read here is the DER form of RFC 5280, after OpenSSL has accepted the certificate; nothing is
verified.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timezone

__all__ = ["Certificate", "read_certificate"]

# Tags, X.690 8.1.2, and those that RFC 5280 gives to parts.
_UTC_TIME = 0x17
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_TEXTS, _IP = (0x81, 0x82, 0x86), 0x87  # of a GeneralName: a mail address, a host, a URI
_BMP = 0x1E  # a string of two bytes a character

_LONG = 0x80

_SUBJECT_NAMES = "2.5.29.17"
_ATTRIBUTES = {
    "2.5.4.3": "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
_EC = "1.2.840.10045.2.1"
_KEYS = {
    "1.2.840.113549.1.1.1": "RSA",
    "1.2.840.113549.1.1.10": "RSA-PSS",
    "1.2.840.10045.3.1.7": "P-256",
    "1.3.132.0.10": "secp256k1",
    "1.3.132.0.33": "P-224",
    "1.3.132.0.34": "P-384",
    "1.3.132.0.35": "P-521",
    "1.3.101.112": "Ed25519",
    "1.3.101.113": "Ed448",
}
_SPECIAL = frozenset(',+"\\<>;=')


@dataclass(frozen=True)
class Certificate:
    """What a certificate says.

    Args:
        subject: whose it is, as RFC 4514 writes it: ``CN=localhost,O=Example``.
        names: the subject alternative names: hosts, addresses, URIs, mail addresses.
        not_before: when it begins to be valid, in UTC.
        not_after: the last second in which it is, in UTC.
        key: the kind of its key: ``RSA``, ``P-256``, ``Ed25519``; the number of the algorithm or
            curve where it is another.
    """

    subject: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    key: str


def read_certificate(der: bytes) -> Certificate:
    """The facts of a certificate in DER form.

    Raises:
        ValueError: it is not a certificate.
    """
    try:
        return _certificate(der)
    except (ValueError, IndexError) as error:
        raise ValueError("not a certificate of X.509") from error


def _certificate(der: bytes) -> Certificate:
    # SEQUENCE { tbsCertificate SEQUENCE { … }, algorithm, signature }, RFC 5280 4.1
    [(_, whole)] = _parts(der)
    fields = _parts(_parts(whole)[0][1])
    if fields[0][0] == _VERSION:
        del fields[0]
    _serial, _algorithm, _issuer, validity, subject, key, *more = fields
    [not_before, not_after] = [_time(*part) for part in _parts(validity[1])]
    names = [name for tag, content in more if tag == _EXTENSIONS for name in _names(content)]
    return Certificate(_subject(subject[1]), tuple(names), not_before, not_after, _key(key[1]))


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """The values that stand one after the other: the tag and the content of each."""
    found, at = [], 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size >= _LONG:  # what follows is the length of the length
            count = size - _LONG
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("it ends before its parts do")
        found.append((tag, data[at : at + size]))
        at += size
    return found


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # two digits of a year, RFC 5280 4.1.2.5.1
        text = ("19" if text >= "5" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def _subject(content: bytes) -> str:
    """The last attribute comes first, RFC 4514 2.1."""
    shown = []
    for _, together in reversed(_parts(content)):
        pairs = []
        for _, pair in _parts(together):
            (_, number), (tag, value) = _parts(pair)
            name = _number(number)
            text = value.decode("utf-16-be" if tag == _BMP else "utf-8", "replace")
            pairs.append(f"{_ATTRIBUTES.get(name, name)}={_escaped(text)}")
        shown.append("+".join(pairs))
    return ",".join(shown)


def _names(content: bytes) -> list[str]:
    [(_, extensions)] = _parts(content)
    for _, extension in _parts(extensions):
        number, *_critical, (_, value) = _parts(extension)
        if _number(number[1]) == _SUBJECT_NAMES:
            [(_, names)] = _parts(value)
            return [_name(*name) for name in _parts(names) if name[0] in (*_TEXTS, _IP)]
    return []


def _name(tag: int, content: bytes) -> str:
    return str(ipaddress.ip_address(content)) if tag == _IP else _escaped(content.decode("ascii"))


def _key(content: bytes) -> str:
    (_, algorithm), _bits = _parts(content)
    (_, number), *parameters = _parts(algorithm)
    name = _number(number)
    if name == _EC and parameters:
        name = _number(parameters[0][1])
    return _KEYS.get(name, name)


def _number(content: bytes) -> str:
    """An object identifier as people write it, X.690 8.19."""
    numbers, value = [], 0
    for byte in content:
        value = value * 128 + byte % 128
        if byte < _LONG:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - first * 40, *numbers[1:])))


def _escaped(text: str) -> str:
    """Nothing in it ends a value, a line, or a log's entry."""
    return "".join(
        f"\\{char}"
        if char in _SPECIAL
        else char
        if char.isprintable()
        else "".join(f"\\{byte:02x}" for byte in char.encode("utf-8", "replace"))
        for char in text
    )
