"""What this project aims at, as ratios within one run, and what a run reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from measure import Section, median, ratio
from report import Run

QUEUE = "dynserve queue {}"
WORLDS = ("sync", "async")
NOT_MEASURED = "not in this run"


@dataclass(frozen=True, slots=True)
class Reached:
    """A figure that an aim is held against."""

    text: str
    good: bool


@dataclass(frozen=True, slots=True)
class Aim:
    """One line of the table; `reached` may say several figures, each of which counts."""

    text: str
    least: str
    reached: Callable[[Run], Iterator[Reached]]


def _times(
    run: Run, key: str, variant: str, base: str, least: float, figure: str = "rate", what: str = ""
) -> Iterator[Reached]:
    """How many times as good as the base; for times, which are better when smaller, the inverse."""
    section = run.section(key)
    if section is None or not {variant, base} <= set(section.names):
        return
    if figure == "rate":
        times = ratio(section, variant, base, figure).median
    else:
        times = ratio(section, base, variant, figure).median
    # What is shown decides: 1.05 is 1.05.
    yield Reached(f"{what}{times:.2f}x", round(times, 2) >= least)


def _unary(variant: str, base: str, least: float) -> Callable[[Run], Iterator[Reached]]:
    def reached(run: Run) -> Iterator[Reached]:
        for load in ("8x8", "50x10"):
            yield from _times(run, f"unary {load}", variant, base, least, what=f"{load} ")

    return reached


def _against_js(run: Run) -> Iterator[Reached]:
    for world in WORLDS:
        variant = QUEUE.format(world)
        yield from _times(run, "unary 8x8", variant, "grpc-js", 1.05, what=f"{world} ")


def _context_cpu(run: Run) -> Iterator[Reached]:
    section = run.section("unary 8x8")
    for world in WORLDS:
        name = QUEUE.format(world) + ", context"
        if section is None or name not in section.names:
            continue
        micros = median(section, name, "cpu")
        text, good = f"{world} {micros:.1f} µs", micros <= 50
        if "c++" in section.names:
            times = ratio(section, name, "c++", "cpu").median
            text, good = f"{text} = {times:.2f}x C++", good or round(times, 2) <= 3.2
        yield Reached(text, good)


def _latency(run: Run) -> Iterator[Reached]:
    for figure, least in (("p50", 1.3), ("p99", 1.0)):
        for world in WORLDS:
            variant, what = QUEUE.format(world), f"{world} {figure} "
            yield from _times(run, "unary 1x1", variant, "grpc.server", least, figure, what)


def _streams(run: Run) -> Iterator[Reached]:
    loads = {"stream down": 8.0, "stream up": 6.0, "ping-pong": 1.2, "pipelined": 7.0}
    for world in WORLDS:
        for key, least in loads.items():
            what = f"{world} {key.split()[-1]} "
            yield from _times(run, key, QUEUE.format(world), "grpc.server", least, what=what)


def _growth(run: Run) -> Iterator[Reached]:
    """Within the noise: the quartiles of the ratio reach 1, or it is above 0.97."""
    section = run.section("growth unary 8x8")
    for world in WORLDS:
        name = QUEUE.format(world)
        small, large = f"{name}, 5 methods", f"{name}, 5,000 methods"
        if section is None or not {small, large} <= set(section.names):
            continue
        spread = ratio(section, large, small, "rate")
        yield Reached(f"{world} {spread}x the calls", spread.high >= 1 or spread.median >= 0.97)


def _inside(section: Section | None, name: str, least: dict[str, float]) -> Iterator[Reached]:
    if section is None or name not in section.names:
        return
    for figure, most in least.items():
        value, unit = median(section, name, figure), figure.split()[-1]
        yield Reached(f"{value:.1f} {unit}", round(value, 1) <= most)


def _tree(run: Run) -> Iterator[Reached]:
    limits = {"with a service ms": 100.0, "load MB": 15.0}
    yield from _inside(run.section("schema 5000"), "dynserve, cached", limits)


def _one_service(run: Run) -> Iterator[Reached]:
    limits = {"with a service ms": 25.0}
    yield from _inside(run.section("schema 5000"), "dynserve, one service, cold", limits)


def _start(run: Run) -> Iterator[Reached]:
    section = run.section("start")
    name = "dynserve server.py, cached"
    if section is None or name not in section.names:
        return
    for base in ("grpc.aio", "grpc.aio + reflection + health"):
        if base in section.names:
            times = ratio(section, name, base, "ms").median
            yield Reached(f"{times:.2f}x {base}", round(times, 2) <= 1.05)


def _client(run: Run) -> Iterator[Reached]:
    for world in WORLDS:
        section = run.section(f"client {world}")
        if section is not None and "dynserve" in section.names:
            for figure, what in (("us", "time"), ("cpu us", "CPU")):
                times = ratio(section, "dynserve", "generated stub", figure).median
                yield Reached(f"{world} {times:.3f}x the {what}", round(times, 2) <= 1.03)


AIMS = (
    Aim(
        "unary throughput, sync handlers, against grpc.server with generated code",
        "4x",
        _unary("dynserve queue sync", "grpc.server", 4),
    ),
    Aim(
        "unary throughput, async handlers, against grpc.aio with generated code",
        "4x",
        _unary("dynserve queue async", "grpc.aio", 4),
    ),
    Aim("unary throughput against grpc-js + proto-loader", "1.05x", _against_js),
    Aim(
        "CPU a unary call with context, metadata and three middlewares",
        "50 µs, or 3.2x the C++ server's",
        _context_cpu,
    ),
    Aim(
        "latency with one call at a time against grpc.server",
        "1.3x better, p99 no worse",
        _latency,
    ),
    Aim("streams against grpc.server: down, up, ping, pipe", "8, 6, 1.2, 7x", _streams),
    Aim("cost growth from 5 methods to 5,000", "none that can be measured", _growth),
    Aim("tree of 5,000 files from the cache, to its first service", "100 ms, 15 MB", _tree),
    Aim("one service of that tree, cold", "25 ms", _one_service),
    Aim("start to first answered call, cached, against a hand-written server", "1.05x", _start),
    Aim("a client's unary call beside a generated stub's on its channel", "within 3 %", _client),
)


def table(run: Run) -> str:
    """All aims; what misses is in bold, and the last column says whether all was reached."""
    lines = ["| aim | at least | reached | |", "| --- | --- | --- | --- |"]
    for aim in AIMS:
        found = list(aim.reached(run))
        texts = [each.text if each.good else f"**{each.text}**" for each in found]
        verdict = ("yes" if all(each.good for each in found) else "no") if found else ""
        reached = ", ".join(texts) or NOT_MEASURED
        lines.append(f"| {aim.text} | {aim.least} | {reached} | {verdict} |")
    return "\n".join(lines)
