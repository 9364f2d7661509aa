"""Servers for tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import FILES, lab


@pytest.fixture(scope="module")
def protos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the .proto files of the lab."""
    folder = tmp_path_factory.mktemp("protos")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def address(cache: Path, protos: Path) -> Iterator[str]:
    """The address of the lab, with reflection."""
    options = [("grpc.max_receive_message_length", -1)]
    with lab(protos).server("127.0.0.1:0", options=options).in_thread() as server:
        yield server.addresses[0]


@pytest.fixture(scope="module")
def silent(cache: Path, protos: Path) -> Iterator[str]:
    """The address of the lab without reflection."""
    with lab(protos).server("127.0.0.1:0", reflection=False).in_thread() as server:
        yield server.addresses[0]


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    return "127.0.0.1:1"
