"""TLS of a server: credentials from files, which are read again when they change.

What stands behind it, measured with grpcio 1.81 and 1.85:

* The core asks for the certificate at every handshake, on a thread of its own that also reads
  connections, and lets one handshake of a port ask at a time. What is slow there holds up calls.
  So the files are read once a second at most, and checked where something else is in them.
* A port that is told "as before" when it asks for the first time cannot be listened on, and the
  core does not say which port asks. So each port has credentials of its own.
* A new certificate frees the core's old one, which another handshake of the port may be about to
  use: the process ends by SIGABRT or SIGSEGV (https://github.com/grpc/grpc/issues/36693, open).
  Under 12 threads that connect and a new certificate as often as it goes, it did within 20 s each
  time. So a port is told of a change alone, and not before the handshakes that asked earlier are
  through: with that it did not in minutes.
* The core keeps the old certificate where a new one cannot be used, and drops no connection.
* TLS 1.2 and 1.3 are accepted, ECDHE with AES-GCM (1.3: ChaCha20 too), and h2 by ALPN, nothing
  else.
"""

from __future__ import annotations

import logging
import os
import ssl
import stat
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeAlias

import grpc

from dynserve.errors import CredentialsError
from dynserve.pem import certificates_in, read_pem_file
from dynserve.x509 import Certificate, read_certificate

__all__ = ["ServerTLS", "server_tls_from"]

_log = logging.getLogger("dynserve.tls")

_PERIOD = 1.0  # seconds between two looks at the files
_PAUSES = (0.005,) * 20  # seconds, for other handshakes to be through
_TRIES = 3  # to read files that are being replaced
_MAX_NAMES = 10  # that a log entry has
_KEY = b"PRIVATE KEY-----"
_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")
_USABLE = frozenset(["RSA", "P-256", "P-384"])
_RARE = frozenset(["P-521", "Ed25519"])  # the core serves them; gRPC's own clients refuse them
_STRENGTH = "DEFAULT:@SECLEVEL=2"  # RSA of 2048 bits at least, no SHA-1; gRPC alone takes less
_MISMATCH = "KEY_VALUES_MISMATCH"  # as OpenSSL calls it

Path: TypeAlias = "str | os.PathLike[str]"
_Contents: TypeAlias = "tuple[bytes, bytes, bytes | None]"


class ServerTLS:
    """What secures the ports of a server, from PEM files that are read again when they change.

    New connections get the new certificate, those that are open go on. Files that do not fit
    together, as while one is written and the other not yet, change nothing: what is served stays,
    logger ``dynserve.tls`` says why, and they are tried again.

    Args:
        cert: the path of the server's certificate, followed by those that lead to its authority.
        key: the path of the private key to it, without a passphrase.
        client_ca: the path of the certificates of authorities; clients have to prove who they are
            by a certificate that one of them signed.
        require_client_cert: by default whether there is a ``client_ca``. gRPC for Python cannot
            ask for a certificate without requiring it, so another value is an error.

    Raises:
        CredentialsError: a file cannot be used; ``name`` is the setting: ``tls_cert``,
            ``tls_key``, ``tls_client_ca``, ``tls_require_client_cert``.
    """

    def __init__(
        self,
        cert: Path,
        key: Path,
        client_ca: Path | None = None,
        require_client_cert: bool | None = None,
    ) -> None:
        if require_client_cert and client_ca is None:
            raise CredentialsError(
                "tls_require_client_cert",
                "got True without tls_client_ca, expected the authorities that sign the"
                " certificates of clients too",
            )
        if require_client_cert is False and client_ca is not None:
            raise CredentialsError(
                "tls_require_client_cert",
                "got False with tls_client_ca; gRPC for Python either requires a client's"
                " certificate or does not ask for one: leave tls_client_ca out to serve clients"
                " without",
            )
        self._requires = client_ca is not None
        self._current = _Current(_Files(cert, key, client_ca))

    def credentials(self) -> grpc.ServerCredentials:
        """What to add one port with; each port of each server needs its own."""
        port = _Port(self._current)
        return grpc.dynamic_ssl_server_credentials(
            port.told,
            port.fetch,  # type: ignore[arg-type]  # typeshed does not know that it may return None
            require_client_authentication=self._requires,
        )


def server_tls_from(
    *,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    tls_client_ca: Path | None = None,
    tls_require_client_cert: bool | None = None,
) -> ServerTLS | None:
    """What the settings ask for; None where none of them is given.

    Raises:
        CredentialsError: as :class:`ServerTLS`, or one is given without another that it needs. An
            empty text is an error, not "not given": a variable that is not set must not switch TLS
            off.
    """
    given = {"tls_cert": tls_cert, "tls_key": tls_key, "tls_client_ca": tls_client_ca}
    for name, value in given.items():
        if value is not None and not os.fspath(value):
            raise CredentialsError(name, "got '', expected the path of a PEM file")
    if tls_cert is not None and tls_key is not None:
        return ServerTLS(tls_cert, tls_key, tls_client_ca, tls_require_client_cert)
    if tls_cert is not None or tls_key is not None:
        one, other = ("tls_cert", "tls_key") if tls_key is None else ("tls_key", "tls_cert")
        raise CredentialsError(one, f"got it without {other}, expected both")
    if tls_client_ca is not None:
        raise CredentialsError("tls_client_ca", "got it without tls_cert and tls_key, expected all")
    if tls_require_client_cert:
        raise CredentialsError(
            "tls_require_client_cert",
            "got True without tls_cert, tls_key and tls_client_ca, expected all",
        )
    return None


@dataclass(frozen=True)
class _Loaded:
    """What the files hold, checked: the certificates, the key, the authorities of clients."""

    contents: _Contents
    certificate: Certificate

    def why_not_now(self, now: datetime) -> str:
        """Why clients refuse it at this time, empty where they do not."""
        if now > self.certificate.not_after:
            return f"it expired on {self.certificate.not_after:%Y-%m-%d %H:%M:%S} UTC"
        if now < self.certificate.not_before:
            return f"it is not valid before {self.certificate.not_before:%Y-%m-%d %H:%M:%S} UTC"
        return ""


class _Files:
    """The paths, and how what is in them is checked."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self.cert = cert
        self.key = key
        self.client_ca = client_ca

    def read(self) -> _Contents:
        """What is in the files, as it is.

        Raises:
            CredentialsError: one cannot be read.
        """
        return (
            read_pem_file("tls_cert", self.cert),
            read_pem_file("tls_key", self.key),
            None if self.client_ca is None else read_pem_file("tls_client_ca", self.client_ca),
        )

    def load(self) -> _Loaded:
        """Read and check them.

        Raises:
            CredentialsError: they cannot be used, or not together.
        """
        contents = self.read()
        for _ in range(_TRIES):
            cert, key, client_ca = before = contents
            certificate = self._checked_certificate(cert)
            self._check_key(key)
            self._check_pair()
            if client_ca is not None:
                self._check_authorities(client_ca)
            # OpenSSL reads files by itself; they must have been what was read here.
            contents = self.read()
            if contents == before:
                return _Loaded(contents, certificate)
        raise CredentialsError("tls_cert", f"{os.fspath(self.cert)}: changes while it is read")

    def _checked_certificate(self, data: bytes) -> Certificate:
        shown = os.fspath(self.cert)
        certificate = _certificates("tls_cert", shown, data)[0][1]
        if certificate.key not in _USABLE | _RARE:
            raise CredentialsError(
                "tls_cert",
                f"{shown}: got a key of kind {certificate.key}, which gRPC cannot serve; expected"
                " RSA, P-256 or P-384",
            )
        return certificate

    def _check_key(self, data: bytes) -> None:
        shown = os.fspath(self.key)
        if any(mark in data for mark in _ENCRYPTED):
            raise CredentialsError(
                "tls_key",
                f"{shown}: the key is encrypted, expected one without a passphrase; make one with"
                f" 'openssl pkey -in {shown} -out FILE'",
            )
        if _KEY not in data:
            hint = "; a certificate belongs into tls_cert" if b"BEGIN CERTIFICATE" in data else ""
            raise CredentialsError(
                "tls_key", f"{shown}: has no key, expected '-----BEGIN PRIVATE KEY-----'{hint}"
            )

    def _check_pair(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers(_STRENGTH)
        try:
            # The password: OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.cert, self.key, password=b"")
        except ssl.SSLError as error:
            if error.reason == _MISMATCH:
                problem = f"{os.fspath(self.key)}: is not the key to {os.fspath(self.cert)}"
                raise CredentialsError("tls_key", problem) from error
            problem = f"OpenSSL cannot use it with {os.fspath(self.key)}: {_reason(error)}"
            raise CredentialsError("tls_cert", f"{os.fspath(self.cert)}: {problem}") from error
        except OSError as error:  # gone since it was read
            problem = f"{os.fspath(self.cert)}: {error.strerror}"
            raise CredentialsError("tls_cert", problem) from error

    def _check_authorities(self, data: bytes) -> None:
        shown = os.fspath(self.client_ca or "")
        found = b"".join(der for der, _ in _certificates("tls_client_ca", shown, data))
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=found)
        except ssl.SSLError as error:
            problem = f"{shown}: OpenSSL cannot use it: {_reason(error)}"
            raise CredentialsError("tls_client_ca", problem) from error


def _certificates(name: str, shown: str, data: bytes) -> list[tuple[bytes, Certificate]]:
    """Those of a file: at least one, each in DER form with what it says."""
    try:
        found = [(der, read_certificate(der)) for der in certificates_in(data)]
    except ValueError as error:
        raise CredentialsError(name, f"{shown}: {error}") from error
    if not found:
        hint = "; a private key belongs into tls_key" if _KEY in data else ""
        raise CredentialsError(
            name, f"{shown}: has no certificate, expected '-----BEGIN CERTIFICATE-----'{hint}"
        )
    return found


class _Port:
    """What one port was told. Asked by the core, never by two threads at a time.

    While the core waits for the answer no other handshake of the port can ask, but one that has
    asked before may still be on its way to what it was told. That takes some 0.1 ms of a
    processor; the pauses are many, for a machine where all threads wait for one.
    """

    def __init__(self, current: _Current) -> None:
        self._current = current
        self.told = current.configuration

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What the next handshake is to use; None: what the last one did."""
        configuration = self._current.fetch()
        if configuration is self.told:
            return None
        for pause in _PAUSES:
            time.sleep(pause)
        self.told = configuration
        return configuration


class _Current:
    """What is served now. Asked by all ports, several at a time.

    Raises:
        CredentialsError: the files cannot be used, when it is made.
    """

    def __init__(self, files: _Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._problem = ""  # the last that was logged
        self._take(files.load())
        self._due = time.monotonic() + _PERIOD
        self._warn_of_access()
        # Not an error: the server has the next certificate as soon as the files have it.
        self._refused = self._loaded.why_not_now(_now())  # why clients refuse what is served
        if self._refused:
            _log.warning("clients refuse the certificate in %s: %s", self._shown(), self._refused)

    def fetch(self) -> grpc.ServerCertificateConfiguration:
        """What the next handshakes are to use."""
        if time.monotonic() >= self._due and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._due = time.monotonic() + _PERIOD
                self._lock.release()
        return self.configuration

    def _look(self) -> None:
        try:
            if self._files.read() != self._loaded.contents:
                self._replace(self._files.load())
            self._problem = ""
        except CredentialsError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.error("the TLS files cannot be used, the old ones still are: %s", error)
        refused = self._loaded.why_not_now(_now())
        if refused and not self._refused:
            _log.error("clients refuse the certificate in %s: %s", self._shown(), refused)
        self._refused = refused

    def _replace(self, loaded: _Loaded) -> None:
        now = _now()
        problem = loaded.why_not_now(now)
        if problem and not self._loaded.why_not_now(now):
            raise CredentialsError("tls_cert", f"{self._shown()}: {problem}")
        self._take(loaded)

    def _take(self, loaded: _Loaded) -> None:
        cert, key, client_ca = loaded.contents
        self._loaded = loaded
        self.configuration = grpc.ssl_server_certificate_configuration([(key, cert)], client_ca)
        found = loaded.certificate
        more = len(found.names) - _MAX_NAMES
        _log.info(
            "certificate of %s for %s, valid until %s UTC, from %s",
            found.subject or "no subject",
            (", ".join(found.names[:_MAX_NAMES]) or "no name")
            + (f" and {more} more" if more > 0 else ""),
            f"{found.not_after:%Y-%m-%d %H:%M:%S}",
            self._shown(),
        )
        if found.key in _RARE:
            _log.warning(
                "%s has a key of kind %s, which gRPC clients in Python and C++ refuse; RSA, P-256"
                " and P-384 are understood by all",
                self._shown(),
                found.key,
            )

    def _warn_of_access(self) -> None:
        path = os.fspath(self._files.key)
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if os.name == "posix" and mode & stat.S_IROTH:
            _log.warning(
                "%s can be read by every user of this machine (mode 0%o); chmod o= %s",
                path,
                mode,
                path,
            )

    def _shown(self) -> str:
        return os.fspath(self._files.cert)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's words, without Python's place in a file of C."""
    reason: str | None = error.reason
    return reason.replace("_", " ").lower() if reason else "not what its first line says"
