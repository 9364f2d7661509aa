"""PEM, from files and bytes."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from dynserve import CredentialsError
from dynserve.pem import certificates_in, is_pem_text, read_pem, read_pem_file

BLOCK = b"-----BEGIN CERTIFICATE-----\n%s\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----secret"


def test_a_file_or_its_bytes(tmp_path: Path) -> None:
    """A path, as text or not, and what is in a file."""
    data, path = BLOCK % b"QQ==", tmp_path / "x.pem"
    path.write_bytes(data)
    found = [read_pem("ca", given) for given in (path, str(path), data)]
    assert [*found, read_pem_file("ca", path)] == [data] * 4


@pytest.mark.parametrize(
    ("read", "given", "text"),
    [
        (read_pem, b"odd", "x: the bytes: not in PEM form, which begins with '-----BEGIN'"),
        (read_pem, KEY, "x: a str is the path of a file; give what is in it as bytes"),
        (read_pem, "/none", "x: /none: No such file or directory"),
        (read_pem, "/\0", "x: /\0: embedded null byte"),
        (read_pem_file, KEY, "x: got what is in a PEM file, expected the path of the file"),
        (
            read_pem_file,
            KEY.encode(),
            "x: got what is in a PEM file, expected the path of the file",
        ),
        (read_pem_file, "/", "x: /: Is a directory"),
        (
            read_pem_file,
            "/dev/null",
            "x: /dev/null: not in PEM form, which begins with '-----BEGIN'",
        ),
    ],
)
def test_what_cannot_be_read(read: Any, given: Any, text: str) -> None:
    """The error names the argument and the file, and shows no key."""
    with pytest.raises(CredentialsError) as caught:
        read("x", given)
    assert str(caught.value) == text


def test_pem_text_is_told_from_a_path() -> None:
    """By how a block begins; bytes and paths are not text."""
    assert [is_pem_text(given) for given in (KEY, "a.pem", Path("a"), KEY.encode())] == [
        True,
        False,
        False,
        False,
    ]


def test_the_certificates_of_a_file() -> None:
    """All of them, in order, whatever stands between them, by any line ends."""
    chain = b"# first\n" + BLOCK % base64.b64encode(b"one") + KEY.encode() + b"\n"
    chain += (BLOCK % b"dH\nd\nv").replace(b"\n", b"\r\n")
    assert certificates_in(chain) == [b"one", b"two"]


@pytest.mark.parametrize("inside", [b"ab*=", b"abc"])
def test_a_certificate_that_is_not_base64(inside: bytes) -> None:
    """The error counts them."""
    with pytest.raises(ValueError, match=r"^certificate 2 is not base64$"):
        certificates_in(BLOCK % b"QQ==" + BLOCK % inside)
