"""Certificates that are replaced under load: calls, failures, and what a handshake costs.

    python bench/rotate_certificates.py --seconds 10 --engine queue

Threads call on connections that stay, others on a new connection for every call, while the files
are replaced again and again, the certificate before the key, so that between the two they do not
fit. The same load without a change comes before. 1 where a call failed, or where a new connection
did not get the new certificate.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from dynserve import App
from dynserve.server_tls import ServerTLS

PROTO = """
syntax = "proto3";
package hello;
message Name {}
service Hello { rpc Greet(Name) returns (Name); }
"""
METHOD = "/hello.Hello/Greet"
NAME = "localhost"
STAY, NEW = 4, 2  # threads: on one connection each, and on one for every call
_ALONE = ("grpc.use_local_subchannel_pool", 1)


def openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


class Certificates:
    """An authority and two pairs of its, one of which is where the server reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        openssl(folder, f"req -x509 {curve} -keyout ca.key -out ca.crt -days 2 -subj /CN=bench")
        (folder / "names").write_text(f"subjectAltName=DNS:{NAME}\n")
        for name in ("one", "other"):
            openssl(folder, f"req {curve} -keyout {name}.key -out {name}.csr -subj /CN={name}")
            openssl(
                folder,
                f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial"
                f" -extfile names -out {name}.crt -days 2",
            )
        self.root = (folder / "ca.crt").read_bytes()
        self.served = ""
        self.put("one")

    def put(self, name: str) -> bytes:
        """Put a pair in place, file by file; returns its certificate."""
        self.served = name
        for end in ("crt", "key"):
            data = (self.folder / f"{name}.{end}").read_bytes()
            new = self.folder / "new"
            new.write_bytes(data)
            new.chmod(0o600)
            os.replace(new, self.folder / f"tls.{end}")
        return (self.folder / f"{name}.crt").read_bytes()


class Load:
    """Calls from several threads, until the block ends."""

    def __init__(self, address: str, root: bytes) -> None:
        self.seconds: dict[str, list[float]] = {"stays": [], "new connection": []}
        self.failures: list[str] = []
        self._address = address
        self._credentials = grpc.ssl_channel_credentials(root)
        self._is_over = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        kinds = ["stays"] * STAY + ["new connection"] * NEW
        threads = [threading.Thread(target=self._run, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()

    def _channel(self) -> grpc.Channel:
        return grpc.secure_channel(self._address, self._credentials, [_ALONE])

    def _run(self, kind: str) -> None:
        with self._channel() as channel:
            while not self._is_over.is_set():
                start = time.perf_counter()
                try:
                    if kind == "stays":
                        call(channel)
                    else:
                        with self._channel() as new:
                            call(new)
                except grpc.RpcError as error:
                    self.failures.append(str(error))
                self.seconds[kind].append(time.perf_counter() - start)

    def report(self, title: str) -> None:
        for kind, seconds in self.seconds.items():
            cuts = statistics.quantiles(seconds, n=1000)
            shown = ", ".join(f"{name} {cuts[at - 1] * 1000:.2f}" for name, at in POINTS)
            print(f"{title:>16} | {kind:<14} | {len(seconds):>7} calls | {shown} ms")
        print(f"{title:>16} | failed calls: {len(self.failures)}")
        for text in self.failures[:3]:
            print(text)


POINTS = (("median", 500), ("99 %", 990), ("99.9 %", 999))


def call(channel: grpc.Channel) -> None:
    method: Any = channel.unary_unary(METHOD)
    method(b"", timeout=20)


def presented(address: str) -> bytes:
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=20).encode()


def rotate(certificates: Certificates, address: str, seconds: float, every: float) -> list[float]:
    """How long after each change a new connection got the new certificate, in seconds."""
    delays: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        expected = certificates.put("other" if certificates.served == "one" else "one")
        start = time.monotonic()
        while presented(address) != expected:
            if time.monotonic() - start > 20:
                raise SystemExit("a new certificate was not served within 20 s")
            time.sleep(0.01)  # another connection, not the same question again at once
        delays.append(time.monotonic() - start)
        time.sleep(every)
    return delays


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the two loads")
    parser.add_argument("--every", type=float, default=0.2, help="seconds between two changes")
    parser.add_argument("--engine", default="queue")
    given = parser.parse_args()
    app = App(PROTO)
    app.add(lambda request: request, "hello.Hello/Greet")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificates = Certificates(folder)
        tls = ServerTLS(folder / "tls.crt", folder / "tls.key")
        server = app.server("127.0.0.1:0", credentials=tls.credentials(), engine=given.engine)
        with server.in_thread() as served:
            address = served.addresses[0].replace("127.0.0.1", NAME)
            still = Load(address, certificates.root)
            with still.running():
                time.sleep(given.seconds)
            still.report("no change")
            changing = Load(address, certificates.root)
            with changing.running():
                delays = rotate(certificates, address, given.seconds, given.every)
            changing.report(f"{len(delays)} changes")
    print(
        f"served at most {max(delays):.2f} s after a change, median {statistics.median(delays):.2f}"
    )
    print(f"grpcio {grpc.__version__}, engine {given.engine}, Python {sys.version.split()[0]}")
    return 1 if still.failures or changing.failures else 0


if __name__ == "__main__":
    sys.exit(main())
