"""The server that the external tools call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.running import running


@pytest.fixture(scope="module")
def address(engine: str) -> Iterator[str]:
    """The address of `dynserve run examples/route_guide`."""
    with running("examples/route_guide") as address:
        yield address
