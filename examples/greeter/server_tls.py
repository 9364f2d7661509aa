"""The greeter, served over TLS: `python -m examples.greeter.server_tls`."""

import sys
from pathlib import Path

import grpc

from .plugin import app


def main(
    address: str = "localhost:50051", certificate: str = "server.crt", key: str = "server.key"
) -> None:
    pair = Path(key).read_bytes(), Path(certificate).read_bytes()
    app.run(address, credentials=grpc.ssl_server_credentials([pair]))


if __name__ == "__main__":
    main(*sys.argv[1:])
