"""The arithmetic and the options of bench/surroundings.py; nothing is started or measured."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The programs of bench/, which import each other as scripts do."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        patch.syspath_prepend(BENCH / "servers")
        names = ("measure", "surroundings", "surrounded_app")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if (getattr(module, "__file__", None) or "").startswith(str(BENCH)):
            del sys.modules[name]


def test_what_is_extra_is_set_against_both_bare_servers(bench: Any) -> None:
    """In each round, against their mean; the bare ones stand first, and show how far apart."""
    rounds = [
        {
            "nothing": {"cpu": 40.0, "rate": 1000.0},
            "a": {"cpu": 52.0, "rate": 500.0},
            "nothing, once more": {"cpu": 44.0, "rate": 1000.0},
        },
        {
            "nothing": {"cpu": 52.0, "rate": 2000.0},
            "a": {"cpu": 62.0, "rate": 1500.0},
            "nothing, once more": {"cpu": 48.0, "rate": 2000.0},
        },
    ]
    section = bench.measure.Section("k", "queue engine, sync handler", ("rate", "cpu"), (), rounds)
    assert bench.surroundings.table(section, list(rounds[0])) == (
        "## queue engine, sync handler\n"
        "\n"
        "| around the handler | CPU µs | extra CPU µs | calls a second | calls ÷ bare |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| nothing | 46.0 | +0.0 (-1.0 to +1.0) | 1,500 | 1.00 |\n"
        "| nothing, once more | 46.0 | +0.0 (-1.0 to +1.0) | 1,500 | 1.00 |\n"
        "| a | 57.0 | +11.0 (+10.5 to +11.5) | 1,000 | 0.62 (0.56 to 0.69) |\n"
    )


def test_every_row_is_served(bench: Any) -> None:
    """What a row asks the server for is there, and no row has the name of another."""
    pytest.importorskip("jwt")
    rows = bench.surroundings.surroundings()
    assert {row.around for row in rows} == set(bench.surrounded_app.AROUNDS)
    assert set(bench.surroundings.FEW) <= set(bench.surrounded_app.AROUNDS)
    assert len({row.name for row in rows}) == len(rows)
    assert [row.name for row in rows if row.is_bare] == ["nothing", "nothing, once more"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--rounds", "0"], "--starts, --rounds and --seconds must be more than 0"),
        (["--only", "queue sync,x"], "x: not one of queue sync, queue async, aio sync, aio async"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    bench: Any, argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started."""
    with pytest.raises(SystemExit) as ended:
        bench.surroundings.options(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {told}")
