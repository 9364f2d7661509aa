"""PEM: certificates and keys as text, from files or bytes, for clients and servers alike.

The form is that of RFC 7468: a block begins with a line ``-----BEGIN LABEL-----``.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import TypeAlias

from dynserve.errors import CredentialsError

__all__ = ["PEM", "certificates_in", "is_pem_text", "read_pem", "read_pem_file"]

PEM: TypeAlias = "str | os.PathLike[str] | bytes"

_BEGIN = b"-----BEGIN "
_BEGIN_TEXT = _BEGIN.decode()
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def read_pem(name: str, given: PEM) -> bytes:
    """What is in a PEM file, or the bytes themselves.

    Args:
        name: what the argument, setting or variable is called, for the error.
        given: the path of a file, or the bytes of one.

    Raises:
        CredentialsError: the file cannot be read, or nothing of it is in PEM form.
    """
    if isinstance(given, bytes):
        return _checked(name, given, "the bytes")
    if is_pem_text(given):  # maybe a key, which no message may show
        raise CredentialsError(name, "a str is the path of a file; give what is in it as bytes")
    return read_pem_file(name, given)


def read_pem_file(name: str, path: str | os.PathLike[str]) -> bytes:
    """What is in a PEM file.

    Raises:
        CredentialsError: as :func:`read_pem`; bytes, or a text that is itself PEM, are not a path.
    """
    if isinstance(path, bytes) or is_pem_text(path):
        raise CredentialsError(name, "got what is in a PEM file, expected the path of the file")
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        problem = getattr(error, "strerror", None) or str(error)
        raise CredentialsError(name, f"{os.fspath(path)}: {problem}") from error
    return _checked(name, data, os.fspath(path))


def _checked(name: str, data: bytes, shown: str) -> bytes:
    if _BEGIN not in data:
        raise CredentialsError(name, f"{shown}: not in PEM form, which begins with '-----BEGIN'")
    return data


def is_pem_text(given: PEM) -> bool:
    """Whether a str is what is in a file, where it was to be the path of one."""
    return isinstance(given, str) and _BEGIN_TEXT in given


def certificates_in(data: bytes) -> list[bytes]:
    """The certificates of a PEM file, in its order, each in DER form.

    Raises:
        ValueError: what stands between BEGIN and END is not base64.
    """
    found = []
    for match in _CERTIFICATE.finditer(data):
        try:
            found.append(base64.b64decode(b"".join(match[1].split()), validate=True))
        except binascii.Error as error:
            raise ValueError(f"certificate {len(found) + 1} is not base64") from error
    return found
