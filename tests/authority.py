"""Certificates that tests of TLS make for themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["Authority"]


class Authority:
    """A certificate authority of the test's own, made by the openssl command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._openssl(
            "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
            "-keyout ca.key -out ca.crt -days 2 -subj /CN=authority"
        )
        self.root = (folder / "ca.crt").read_bytes()

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """A private key and its certificate."""
        self._openssl(
            "req -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
            f"-keyout {name}.key -out {name}.csr -subj /CN={name}"
        )
        (self.folder / "names").write_text(f"subjectAltName=DNS:{name}\n")
        self._openssl(
            f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial "
            f"-extfile names -out {name}.crt -days 2"
        )
        key, certificate = (self.folder / f"{name}.{end}" for end in ("key", "crt"))
        return key.read_bytes(), certificate.read_bytes()

    def _openssl(self, command: str) -> None:
        done = subprocess.run(
            ["openssl", *command.split()],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
