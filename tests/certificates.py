"""Certificates of every sort, and the files that a server reads them from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from tests.authority import Authority

__all__ = ["Files", "Pair", "certificate"]

P256 = "EC -pkeyopt ec_paramgen_curve:P-256"


class Pair(NamedTuple):
    key: bytes
    cert: bytes


def certificate(
    authority: Authority,
    subject: str,
    names: str = "DNS:localhost",
    *,
    days: int = 2,
    kind: str = P256,
) -> Pair:
    """A certificate; one with ``days=-1`` expired yesterday."""
    folder = authority.folder
    authority._openssl(f"genpkey -algorithm {kind} -out any.key")
    authority._openssl(f"req -new -key any.key -subj {subject} -out any.csr")
    (folder / "names").write_text(f"subjectAltName={names}\n" if names else "")
    authority._openssl(
        "x509 -req -in any.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile names"
        f" -out any.crt -days {days}"
    )
    return Pair((folder / "any.key").read_bytes(), (folder / "any.crt").read_bytes())


class Files:
    """The three files of a server, in a folder."""

    def __init__(self, folder: Path, pair: Pair, client_ca: bytes | None = None) -> None:
        self.folder = folder
        self.cert = folder / "tls.crt"
        self.key = folder / "tls.key"
        self.client_ca = folder / "ca.crt" if client_ca is not None else None
        self.write(pair)
        if self.client_ca is not None and client_ca is not None:
            self.client_ca.write_bytes(client_ca)

    def write(self, pair: Pair) -> None:
        """Put another pair in place, each file at once, one after the other."""
        self.put(self.cert, pair.cert)
        self.put(self.key, pair.key)

    def put(self, path: Path, data: bytes) -> None:
        """Put one file in place, at once, and for its owner alone."""
        new = path.with_suffix(".new")
        new.write_bytes(data)
        new.chmod(0o600)
        os.replace(new, path)
