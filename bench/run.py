"""Measures dynserve beside hand-written grpcio servers; tables to stdout, progress to stderr."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import loads
import schema
import startup
import throughput
import variants
from process import BenchError
from report import HEAD, Table, versions
from variants import Variant
from workspace import HERE, Workspace

PARTS = ("unary", "streams", "start", "schema")
STARTS_PER_ROUND = 3  # a start takes a fraction of a second, and is noisier than a load
RESULTS = HERE / "results.md"


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
        "--seconds", type=_positive(float), default=1.0, help="each load on each variant and round"
    )
    parser.add_argument(
        "--variants",
        default="",
        metavar="WORD,…",
        help="only variants with one of these words in their name",
    )
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} as well")
    return parser.parse_args(argv)


def tables(args: argparse.Namespace, workspace: Workspace) -> Iterator[Table]:
    """The parts that were asked for, one table after the other."""
    rounds, words = args.rounds, [word for word in args.variants.split(",") if word]
    unary = loads.UNARY if "unary" in args.only else ()
    streams = loads.STREAMS if "streams" in args.only else ()
    servers = chosen(variants.THROUGHPUT, words)
    if servers and (unary or streams):
        with throughput.serving(servers, workspace) as targets:
            for load in (*unary, *streams):
                yield throughput.compare(load, targets, bases(servers), rounds, args.seconds)
    servers = chosen(variants.START, words)
    if servers and "start" in args.only:
        yield startup.compare(servers, bases(servers), rounds * STARTS_PER_ROUND, workspace)
    ways = [way for way in variants.SCHEMA if not words or any(word in way for word in words)]
    if ways and "schema" in args.only:
        yield schema.compare(ways, rounds, workspace)


def chosen(servers: Sequence[Variant], words: Sequence[str]) -> list[Variant]:
    """The variants with one of the words in their name; all where there are no words."""
    return [v for v in servers if not words or any(word in v.name for word in words)]


def bases(servers: Sequence[Variant]) -> list[str]:
    """What the others are set against: the hand-written servers, or else the first variant."""
    names = [variant.name for variant in servers]
    return [name for name in names if name.startswith("hand-")] or names[:1]


def report(args: argparse.Namespace) -> None:
    """Measures, prints, and writes."""
    stated = [", ".join(versions()) + "."]
    stated.append(f"{args.rounds} rounds, {args.seconds:g} s for each load, variant and round.")
    parts = [HEAD, "\n".join(stated) + "\n"]
    print("\n".join(parts[1:]), flush=True)
    with tempfile.TemporaryDirectory(prefix="dynserve-bench-") as folder:
        workspace = Workspace(folder)
        workspace.generate()
        for table in tables(args, workspace):
            parts.append(table.markdown())
            print(parts[-1], flush=True)
    if args.write:
        RESULTS.write_text("\n".join(parts))
        print(f"written: {RESULTS}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 1 where a variant failed, 130 on Ctrl-C; its children are ended either way."""
    args = options(argv)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)
    if shutil.which("h2load") is None and "unary" in args.only:
        print("h2load is not installed (Debian: nghttp2-client), or use --only", file=sys.stderr)
        return 1
    try:
        report(args)
    except (BenchError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


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
