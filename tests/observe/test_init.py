"""The package: what it offers, and that nothing of it is imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dynserve import observe


def test_every_name_is_there() -> None:
    """What is listed can be had, by the name that it has."""
    for name in observe.__all__:
        assert getattr(observe, name).__name__ == name


def test_a_name_that_is_not_there() -> None:
    """It is missing as from any module."""
    with pytest.raises(AttributeError) as caught:
        observe.Tracing  # type: ignore[attr-defined]  # noqa: B018
    assert str(caught.value) == "module 'dynserve.observe' has no attribute 'Tracing'"


def test_extras_are_imported_when_they_are_used() -> None:
    """All names, an access log and its formatter import neither OpenTelemetry nor Prometheus."""
    program = (
        "import sys\n"
        "from dynserve.observe import *\n"
        "AccessLog()\n"
        "names = ('opentelemetry', 'prometheus_client')\n"
        "print([name for name in sys.modules if name.startswith(names)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
