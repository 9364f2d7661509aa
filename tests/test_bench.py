"""The benchmark's arithmetic and options; nothing is started or measured."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"
NAMES = ("aims", "loads", "measure", "page", "plot", "report", "run")


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The programs of bench/, which import each other as scripts do."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if (getattr(module, "__file__", None) or "").startswith(str(BENCH)):
            del sys.modules[name]


@pytest.fixture
def run(bench: Any) -> Any:
    """Two variants under one load, in three rounds."""
    rounds = [
        {
            "dynserve queue sync": {"rate": 40.0, "cpu": 5.0},
            "grpc.server": {"rate": 10.0, "cpu": 8},
        },
        {
            "dynserve queue sync": {"rate": 90.0, "cpu": 7.0},
            "grpc.server": {"rate": 20.0, "cpu": 8},
        },
        {
            "dynserve queue sync": {"rate": 50.0, "cpu": 6.0},
            "grpc.server": {"rate": 10.0, "cpu": 8},
        },
    ]
    ratios = (("rate", "grpc.server"), ("rate", "c++"))
    section = bench.measure.Section(
        "unary 8x8", "unary 8x8", ("rate", "cpu", "p50"), ratios, rounds, failures=["x: why"]
    )
    return bench.report.Run(["dynserve 1"], "3 rounds.", ["c++ is left out: no g++"], [section])


def test_a_ratio_is_the_median_of_the_rounds_own(bench: Any, run: Any) -> None:
    """Each round's figures are divided first; the quartiles are those of the ratios."""
    spread = bench.measure.ratio(run.sections[0], "dynserve queue sync", "grpc.server", "rate")
    assert str(spread) == "4.50 (4.25 to 4.75)"


def test_rounds_alternate_and_a_variant_that_fails_is_out(bench: Any) -> None:
    """The order turns round; what failed once is neither measured again nor in the table."""
    asked = []

    def measure(name: str) -> dict[str, float]:
        asked.append(name)
        if asked.count("b") == 2 and name == "b":
            raise bench.measure.BenchError("broke\nat length")
        return {"rate": 1.0}

    section = bench.measure.Section("load", "load", ("rate",))
    bench.measure.alternate(section, ["a", "b", "c"], 3, measure)
    assert asked == ["a", "b", "c", "c", "b", "a", "a", "c"]
    assert section.names == ["a", "c"]
    assert section.failures == ["b: broke"]


def test_a_table_says_what_was_measured(bench: Any, run: Any) -> None:
    """Ratios against what is not there have no column, figures that are not there a dash."""
    assert bench.report.markdown(run.sections[0]) == (
        "## unary 8x8\n"
        "\n"
        "| variant | per second | CPU µs | p50 µs | per second ÷ grpc.server |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| dynserve queue sync | 50 | 6.0 | - | 4.50 (4.25 to 4.75) |\n"
        "| grpc.server | 10 | 8.0 | - | 1.00 |\n"
        "\n"
        "Failed: x: why\n"
    )


def test_results_survive_their_file(bench: Any, run: Any, tmp_path: Path) -> None:
    """What is written as JSON reads back the same, and makes the same page."""
    run.write(tmp_path / "results.json")
    again = bench.report.Run.read(tmp_path / "results.json")
    assert again == run
    assert again.markdown() == run.markdown()


def test_aims_are_held_against_the_figures(bench: Any, run: Any) -> None:
    """What was reached is told, what misses is bold, what was not measured is said."""
    lines = bench.aims.table(run).splitlines()
    assert lines[2].endswith("| 4x | 8x8 4.50x | yes |")
    assert lines[3].endswith("| 4x | not in this run |  |")
    run.sections[0].rounds = run.sections[0].rounds[:1]
    run.sections[0].rounds[0]["grpc.server"] = {"rate": 16.0, "cpu": 8}
    assert bench.aims.table(run).splitlines()[2].endswith("| 4x | **8x8 2.50x** | no |")


def test_a_page_gets_figures_between_its_marks(bench: Any, run: Any) -> None:
    """The text around them stays; a page without the marks is an error."""
    page = f"a\n{bench.page.BEGIN}\nold\n{bench.page.END}\nb\n"
    made = bench.page.replaced(page, "new")
    assert made == f"a\n{bench.page.BEGIN}\n\nnew\n\n{bench.page.END}\nb\n"
    with pytest.raises(ValueError, match="must have the lines"):
        bench.page.replaced("a", "new")
    assert "| dynserve queue sync | 50 · 6 |" in bench.page.figures(run)


def test_the_page_in_docs_has_the_marks(bench: Any) -> None:
    """A run can write its figures there."""
    page = bench.page.PAGE.read_text("utf-8")
    assert (page.count(bench.page.BEGIN), page.count(bench.page.END)) == (1, 1)


def test_the_plot_has_a_bar_for_each_variant(bench: Any, run: Any) -> None:
    """With its name and its figure; a load that was not measured has no panel."""
    svg = bench.plot.svg(run)
    assert svg.count('rx="2"') == 2
    assert ">dynserve queue sync</text>" in svg
    assert ">50</text>" in svg
    assert "ping-pong" not in svg


def test_options(bench: Any) -> None:
    """--quick sets what a run takes; parts that do not exist, and rounds below one, are refused."""
    args = bench.run.options(["--quick", "--only", "unary,schema", "--variants", "queue,c++"])
    assert (args.rounds, args.seconds) == (3, 0.2)
    assert args.only == ("unary", "schema")
    assert args.words == ["queue", "c++"]
    for wrong in (["--only", "unari"], ["--rounds", "0"], ["--seconds", "x"]):
        with pytest.raises(SystemExit):
            bench.run.options(wrong)


def test_latencies_are_read_from_h2loads_log(bench: Any, tmp_path: Path) -> None:
    """The third column, in microseconds: its median and its 99th percentile."""
    log = tmp_path / "calls.tsv"
    log.write_text("".join(f"1795267585754156\t200\t{n}\n" for n in range(200, 0, -1)))
    assert bench.loads.percentiles(log) == {"p50": 101, "p99": 199}
