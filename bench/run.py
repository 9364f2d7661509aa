"""Measures dynserve beside its peers; tables to stdout, progress to stderr."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import aims
import calling
import loads
import own
import page
import schema
import startup
import throughput
import tools
import tree
import variants
from loads import Load
from measure import Section
from process import BenchError
from report import Run, markdown, versions
from workspace import HERE, Workspace

LOADS: dict[str, tuple[Load, ...]] = {
    "unary": loads.UNARY,
    "streams": loads.STREAMS,
    "mixed": loads.MIXED,
    "waits": loads.WAITS,
    "open": loads.OPEN,
}
PARTS = (*LOADS, *own.PARTS, "start", "schema", *calling.PARTS)
NEED_CLIENT = ("streams", "mixed", "open", "plain")
NEED_H2LOAD = ("unary", "mixed", "waits", "plain", "growth")
STARTS_PER_ROUND = 2  # a start takes a fraction of a second, and is noisier than a load
QUICK = {"rounds": 3, "seconds": 0.2}
RESULTS = HERE / "results.json"


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    # A default that is text goes through `type` as well, and reads better in the help.
    parser.add_argument(
        "--only", type=_parts, default=",".join(PARTS), metavar="PART,…", help="the parts"
    )
    parser.add_argument("--rounds", type=_positive(int), default=9, help="alternating rounds")
    parser.add_argument(
        "--seconds", type=_positive(float), default=0.8, help="each load on each variant and round"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few minutes: " + ", ".join(f"--{name} {value}" for name, value in QUICK.items()),
    )
    parser.add_argument(
        "--variants",
        default="",
        metavar="WORD,…",
        help="only variants with one of these words in their name",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="write results.json, and from it results.md, results.svg and docs/performance.md",
    )
    parser.add_argument(
        "--add",
        action="store_true",
        help="as --write, and keep what results.json has of parts that are not measured now",
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="JSON",
        help="measure nothing; read this results.json (with --write: write the pages again)",
    )
    args = parser.parse_args(argv)
    if args.quick:
        vars(args).update(QUICK)
    args.words = [word for word in args.variants.split(",") if word]
    return args


def sections(args: argparse.Namespace, run: Run, workspace: Workspace) -> Iterator[Section]:
    """The parts that were asked for, one section after the other."""
    rounds, seconds = args.rounds, args.seconds
    # A stream needs a thread of grpc.server's pool: those of `open` have a thousand.
    for servers, parts in (
        (variants.THROUGHPUT, ("unary", "streams", "mixed", "waits")),
        (variants.OPEN, ("open",)),
    ):
        asked = [load for part in parts if part in args.only for load in LOADS[part]]
        chosen = variants.available(servers, args.words, run.skipped) if asked else []
        if chosen:
            streams = client(args.only)
            with throughput.serving(chosen, workspace, streams, run.skipped) as targets:
                throughput.warm_up(asked[0], targets)
                for load in asked:
                    fit = {
                        v: t for v, t in targets.items() if load in loads.UNARY or not v.only_say
                    }
                    yield throughput.compare(load, fit, rounds, seconds)
    for name, part in own.PARTS.items():
        if name in args.only:
            chosen = variants.available(part.variants, args.words, run.skipped)
            yield from own.compare(name, chosen, rounds, seconds, workspace, client([name]))
    if "start" in args.only:
        chosen = variants.available(variants.START, args.words, run.skipped)
        yield startup.compare(chosen, rounds * STARTS_PER_ROUND, workspace)
    if "schema" in args.only:
        ways = variants.available(schema.WAYS, args.words, run.skipped)
        yield from schema.compare(ways, rounds, workspace)
    for called in calling.PARTS:
        if called in args.only:
            yield from calling.compare(called, rounds, seconds, workspace)


def client(parts: Sequence[str]) -> list[str] | None:
    """The command of the client in C++, where one of the parts needs it."""
    return [str(tools.cpp("client"))] if set(parts) & set(NEED_CLIENT) else None


def without_missing(args: argparse.Namespace, run: Run) -> None:
    """Takes the parts out that cannot be measured here."""
    missing: dict[tuple[str, ...], str] = {}
    if shutil.which("h2load") is None:
        missing[NEED_H2LOAD] = "h2load is missing: apt-get install nghttp2-client"
    try:
        client(args.only)
    except tools.Missing as error:
        missing[NEED_CLIENT] = str(error)
    for needing, why in missing.items():
        lost = [part for part in args.only if part in needing]
        args.only = tuple(part for part in args.only if part not in needing)
        if lost:
            run.skipped.append(f"{', '.join(lost)} left out: {why}")
            print(run.skipped[-1], file=sys.stderr)


def measured(args: argparse.Namespace) -> Run:
    """Measures, and prints each table when it is there."""
    settings = f"{args.rounds} rounds, {args.seconds:g} s for each load, variant and round."
    run = Run(versions(), settings)
    print(run.stated(), flush=True)
    without_missing(args, run)
    with tempfile.TemporaryDirectory(prefix="dynserve-bench-") as folder:
        workspace = Workspace(folder)
        workspace.generate()
        tree.write_many(workspace)
        for section in sections(args, run, workspace):
            run.sections.append(section)
            print(markdown(section), flush=True)
    return run


def added(kept: Run, run: Run) -> Run:
    """The run that is kept, with the sections of another, which say so."""
    new = {section.key: section for section in run.sections}
    for section in new.values():
        section.notes.append(f"Measured by itself: {run.stated()}")
    kept.sections = [one for one in kept.sections if one.key not in new] + run.sections
    return kept


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 1 where a variant failed, 130 on Ctrl-C; its children are ended either way."""
    args = options(argv)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)
    try:
        run = Run.read(args.source) if args.source else measured(args)
    except (BenchError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"## Aims\n\n{aims.table(run)}\n")
    if args.add:
        run = added(Run.read(RESULTS), run)
    if args.write or args.add:
        run.write(RESULTS)
        page.write(run)
    return 1 if any(section.failures for section in run.sections) else 0


def _interrupt(number: int, frame: object) -> NoReturn:
    # Once is enough: a second signal would stop the ending of the children half way.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parts(text: str) -> tuple[str, ...]:
    parts = tuple(text.split(","))
    if unknown := [part for part in parts if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(PARTS)}")
    return parts


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text}: must be more than 0")
        return value

    parse.__name__ = f"positive {kind.__name__}"  # argparse shows it where `kind` itself fails
    return parse


if __name__ == "__main__":
    raise SystemExit(main())
