"""A table of secrets, each with the name of who has it."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from dynserve.auth.metadata import MAX_CREDENTIAL
from dynserve.auth.watched import WatchedFile
from dynserve.errors import CredentialsError
from dynserve.identity import Identity

__all__ = ["MIN_SECRET", "SecretTable"]

MIN_SECRET = 16  # characters; 16 random ones of base64 are 96 bits
_MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'

_Entries: TypeAlias = "tuple[tuple[bytes, Identity], ...]"


class SecretTable:
    """Finds who has a secret, in a time that tells nothing of which are known.

    Only keyed hashes are kept. Each look-up compares the hash of what was given with all of them,
    each in constant time, so it takes time in proportion to their number: 0.2 µs each.

    Args:
        secrets: a mapping from secret to name, or the path of a file with a line ``name:secret``,
            or only ``secret``, for each; empty lines and those that start with ``#`` are left out.
        scheme: of the identities.
        noun: what a secret is, for errors: ``"token"``.
        name: the argument, for errors.

    Raises:
        CredentialsError: there are none, one is too short or cannot be sent, two are the same, or
            the file cannot be read. Its text has no secret in it.
        TypeError: neither a mapping nor a path.
    """

    def __init__(
        self,
        secrets: Mapping[str, str] | str | os.PathLike[str],
        scheme: str,
        noun: str,
        name: str,
    ) -> None:
        self._scheme = scheme
        self._noun = noun
        self._key = os.urandom(32)  # what is compared tells nothing of the secret's own hash
        self._file: WatchedFile[_Entries] | None = None
        self._entries: _Entries = ()
        given: object = secrets
        if isinstance(secrets, Mapping):
            lines = ((f"of {who!r}", secret, who) for secret, who in secrets.items())
            try:
                self._entries = self._of(lines)
            except ValueError as error:
                raise CredentialsError(name, str(error)) from error
        elif isinstance(given, (str, os.PathLike)):
            self._file = WatchedFile(given, self._parsed, name, is_secret=True)
            self._entries = self._file.value()
        else:
            kind = type(given).__name__  # the value may be a secret
            raise TypeError(
                f"{name}: got a {kind}, expected a mapping from {noun} to name, or the path of a"
                " file"
            )
        if not self._entries:
            where = f" in {str(self._file.path)!r}" if self._file else ""
            raise CredentialsError(name, f"there is no {noun}{where}, so nobody could call")

    def identity_of(self, secret: str) -> Identity | None:
        """Who has this secret; None where nobody has."""
        given = self._hash(secret)
        found = None
        for known, identity in self._entries if self._file is None else self._file.value():
            if hmac.compare_digest(known, given):
                found = identity  # and on to the end: when it was found, tells nobody
        return found

    def __repr__(self) -> str:
        count = len(self._entries if self._file is None else self._file.value())
        where = f"{str(self._file.path)!r}, " if self._file else ""
        return f"({where}{count} {self._noun}{'' if count == 1 else 's'})"

    def _hash(self, secret: str) -> bytes:
        return hashlib.blake2b(secret.encode(), key=self._key, digest_size=32).digest()

    def _parsed(self, data: bytes) -> _Entries:
        try:
            lines = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError("it is not UTF-8 text") from error
        return self._of(self._line(number, line) for number, line in _numbered(lines))

    def _line(self, number: int, line: str) -> tuple[str, str, str]:
        """Where the secret is, the secret, and whose it is."""
        who, colon, secret = line.partition(":")
        if not colon:
            return f"in line {number}", line, f"{self._noun}-{number}"
        return f"in line {number}", secret.strip(), who.strip()

    def _of(self, lines: Iterable[tuple[str, str, str]]) -> _Entries:
        found: dict[bytes, Identity] = {}
        for where, secret, who in lines:
            if problem := _problem(secret, who):
                raise ValueError(f"the {self._noun} {where} {problem}")
            known = self._hash(secret)
            if known in found:
                raise ValueError(f"the {self._noun} {where} is that of {found[known].name!r} too")
            found[known] = Identity(who, self._scheme)
        return tuple(found.items())


def _numbered(lines: Iterable[str]) -> Iterable[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield number, text


def _problem(secret: object, who: object) -> str:
    """What is wrong with a secret, or with the name of who has it; empty where nothing is."""
    if not isinstance(secret, str) or not isinstance(who, str):
        return "and its name are to be str"
    if not who.strip():
        return "has no name: write name:secret, or only the secret"
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        return "has characters other than printable ASCII without spaces, so it cannot be sent"
    if len(secret) < MIN_SECRET:
        expected = f"expected at least {MIN_SECRET}; make one with: {_MAKE_ONE}"
        return f"has {len(secret)} characters, {expected}"
    if len(secret) > MAX_CREDENTIAL // 2:
        return f"has {len(secret)} characters, expected at most {MAX_CREDENTIAL // 2}"
    return ""
