"""What runs around a handler, beside a bare server: CPU µs and calls a second; stdout has a table.

    python bench/surroundings.py --write

All servers of a table are up at once and take turns, in the opposite order each round. A process
keeps a few percent of its luck (where its memory lies) for as long as it lives: so all are started
again several times. Every server is checked with a real client before and after its load.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc

from measure import Round, Sample, Section, Spread, alternate, say
from process import BenchError, Child, free_port
from report import versions
from workspace import HERE, SERVERS, Workspace

RESULTS = HERE / "results-surroundings.md"
CONNECTIONS, STREAMS = 8, 8
H2LOAD_SECONDS, START_SECONDS, CALL_SECONDS = 120, 60, 10.0
LEAST = 200  # calls of a measurement
HELLO = b"\n\nxxxxxxxxxx"  # SayRequest and SayReply are the same on the wire
BARE, AGAIN = "nothing", "nothing, once more"
OF_OTHERS = ("grpclib", "connectrpc", "pyvoy", "@grpc", "Node", "gRPC C++", "g++", "buf")
Headers = tuple[tuple[str, str], ...]

HEAD = """# What runs around a handler

Made by `python bench/surroundings.py --write`. A unary call with a string of 10 bytes, whose
handler takes the context, from h2load: {connections} connections, {streams} calls at once on each.
Middleware and interceptors do nothing, logs and spans go nowhere.

'Extra CPU µs' is the CPU of the server's process for a call, by the process's own clock, less that
of the two bare servers in the same round; 'calls ÷ bare' is the same for calls a second, of which
the load takes its part of the machine. Both are medians of the rounds, with their quartiles in
brackets. How far the two bare servers are apart is what to take small figures with.
"""


@dataclass(frozen=True, slots=True)
class Surrounding:
    """A row of a table: what surrounded_app.py puts around, and what calls bring."""

    name: str
    around: str
    headers: Headers = ()
    is_refused: bool = False  # without these headers

    @property
    def is_bare(self) -> bool:
        """Whether the others are set against it."""
        return self.name in (BARE, AGAIN)


def surroundings() -> tuple[Surrounding, ...]:
    """All that are measured."""
    from surrounded_app import TOKEN, made_token

    token = (("authorization", f"Bearer {TOKEN}"),)
    made = (("authorization", f"Bearer {made_token()}"),)
    ten = tuple((f"x-header-{n}", f"a value of an ordinary length {n}") for n in range(10))
    traced = (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)
    return (
        Surrounding(BARE, "nothing"),
        Surrounding("1 sync middleware", "1 sync"),
        Surrounding("3 sync middlewares", "3 sync"),
        Surrounding("1 async middleware", "1 async"),
        Surrounding("3 async middlewares", "3 async"),
        Surrounding("1 grpc.ServerInterceptor", "interceptor"),
        Surrounding("nothing, sent a token", "nothing", token),
        Surrounding("bearer token", "bearer", token, is_refused=True),
        Surrounding("JWT, remembered", "jwt", made, is_refused=True),
        Surrounding("access log, text", "text log"),
        Surrounding("access log, JSON", "json log"),
        Surrounding("access log, 1 % of the calls", "sampled log"),
        Surrounding(AGAIN, "nothing"),
        Surrounding("traces, no SDK", "traces"),
        Surrounding("traces, SDK takes 10 %", "10 % of traces"),
        Surrounding("traces, SDK takes all", "all traces"),
        Surrounding("traces, the client's, SDK takes all", "all traces", traced),
        Surrounding("metrics", "metrics"),
        Surrounding("limits", "limits"),
        Surrounding("nothing, sent 10 pairs of metadata", "nothing", ten),
        Surrounding("token, 3 sync, JSON, 10 %, metrics, limits", "production", token, True),
    )


FEW = ("nothing", "1 sync", "1 async", "bearer", "json log", "metrics", "production")  # on aio


class Server(Child):
    """A server of one process, whose CPU is known to the nanosecond."""

    def cpu_seconds(self) -> float:
        """By the clock of the process, as clock_getcpuclockid(3) names it; /proc has 10 ms."""
        return time.clock_gettime((~self.process.pid << 3) | 2)


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs."""

    server: Server
    port: int
    surrounding: Surrounding
    body: Path

    def once(self, count: int) -> Sample:
        """So many calls."""
        self.server.require_alive()
        before = self.server.cpu_seconds()
        rate = self._load(count)
        return {"rate": rate, "cpu": (self.server.cpu_seconds() - before) / count * 1e6}

    def _load(self, count: int) -> float:
        headers = (
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *self.surrounding.headers,
        )
        command = [
            *("h2load", "-n", str(count), "-t", "1", "-d", str(self.body)),
            *("-c", str(CONNECTIONS), "-m", str(STREAMS)),
            *(word for name, value in headers for word in ("-H", f"{name}: {value}")),
            f"http://127.0.0.1:{self.port}/bench.Echo/Say",
        ]
        try:
            out = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=H2LOAD_SECONDS
            ).stdout
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"no end after {error.timeout:.0f} s") from error
        good = re.search(r"(\d+) succeeded", out)
        rate = re.search(r"([\d.]+) req/s", out)
        if not good or not rate or int(good[1]) != count or not float(rate[1]):
            raise BenchError(f"not all of {count} calls succeeded:\n{out[-2000:]}")
        return float(rate[1])

    def check(self, seconds: float = CALL_SECONDS) -> None:
        """A real client gets the right answer, and is refused where it should be.

        h2load counts HTTP's 200, whatever the status of the call.
        """
        self.server.require_alive()
        channel: Any  # grpc-stubs insist on serializers
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            try:
                grpc.channel_ready_future(channel).result(seconds)
                call = channel.unary_unary("/bench.Echo/Say")
                answer = call(HELLO, timeout=CALL_SECONDS, metadata=self.surrounding.headers)
            except (grpc.RpcError, grpc.FutureTimeoutError) as error:
                self.server.require_alive()
                raise BenchError(f"{type(error).__name__}: {error}") from error
            if answer != HELLO:
                raise BenchError(f"got {answer!r}, expected {HELLO!r}")
            if self.surrounding.is_refused:
                self._check_refusal(call)

    @staticmethod
    def _check_refusal(call: Any) -> None:
        try:
            call(HELLO, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return
            raise BenchError(f"a call without a token got {error.code()}") from error
        raise BenchError("a call without a token was served")


@contextlib.contextmanager
def serving(
    chosen: Sequence[Surrounding], world: str, engine: str, workspace: Workspace
) -> Iterator[Mapping[str, Served]]:
    """All of them, started at once and checked."""
    body = workspace.folder / "body.bin"
    body.write_bytes(b"\0" + len(HELLO).to_bytes(4, "big") + HELLO)
    script = str(SERVERS / "surrounded_app.py")
    with ExitStack() as stack:
        served = {}
        for number, one in enumerate(chosen):
            port = free_port()
            argv = [sys.executable, script, str(port), world, engine, one.around]
            server = Server(argv, workspace.environment(), workspace.log(f"server {number}"))
            stack.enter_context(closing(server))
            served[one.name] = Served(server, port, one, body)
        for one_served in served.values():
            one_served.check(START_SECONDS)
        yield served
        for one_served in served.values():
            one_served.check()


def compare(
    title: str,
    chosen: Sequence[Surrounding],
    args: argparse.Namespace,
    workspace: Workspace,
) -> Section:
    """A table: all rounds of all starts."""
    engine, world = title.split()
    whole = Section(title, f"{engine} engine, {world} handler", ("rate", "cpu"))
    for start in range(args.starts):
        part = Section(f"{title}, start {start + 1} of {args.starts}", title, whole.figures)
        say(f"{part.key}: {len(chosen)} servers")
        # A server that was started first, or is measured first, is not so the next time.
        turned = [*chosen[start:], *chosen[:start]]
        with serving(turned, world, engine, workspace) as served:
            counts = {name: _count(one, args.seconds) for name, one in served.items()}

            def measure(
                name: str, served: Mapping[str, Served] = served, counts: Any = counts
            ) -> Sample:
                return served[name].once(counts[name])

            alternate(part, list(served), args.rounds, measure)
        if part.failures:
            raise BenchError(f"{part.key}: {'; '.join(part.failures)}")
        whole.rounds += part.rounds
    return whole


def _count(served: Served, seconds: float) -> int:
    """How many calls take so long; they warm it up as well."""
    rate = served.once(LEAST * 5)["rate"]
    return max(LEAST, int(served.once(max(LEAST, int(rate * seconds)))["rate"] * seconds))


def bare(round_: Round, figure: str) -> float:
    """The mean of a figure of the two bare servers."""
    return (round_[BARE][figure] + round_[AGAIN][figure]) / 2


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def table(section: Section, order: Sequence[str]) -> str:
    """The section as Markdown; the bare servers first."""
    names = sorted(order, key=lambda name: name not in (BARE, AGAIN))
    lines = [
        f"## {section.title}",
        "",
        "| around the handler | CPU µs | extra CPU µs | calls a second | calls ÷ bare |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in names:
        samples = [each[name] for each in section.rounds]
        extra = spread([each[name]["cpu"] - bare(each, "cpu") for each in section.rounds])
        ratio = spread([each[name]["rate"] / bare(each, "rate") for each in section.rounds])
        cpu = statistics.median(sample["cpu"] for sample in samples)
        rate = statistics.median(sample["rate"] for sample in samples)
        shown = f"{extra.median:+.1f} ({extra.low:+.1f} to {extra.high:+.1f})"
        lines.append(f"| {name} | {cpu:.1f} | {shown} | {rate:,.0f} | {ratio} |")
    return "\n".join([*lines, ""])


def stated(args: argparse.Namespace) -> str:
    """What was measured, where, and when."""
    own = [one for one in versions() if not one.startswith(OF_OTHERS)]
    settings = f"{args.starts} starts with {args.rounds} rounds each, {args.seconds:g} s a server."
    return f"{datetime.date.today().isoformat()}. {', '.join(own)}. {settings}\n"


def measured(args: argparse.Namespace) -> str:
    """The whole page; each table is printed when it is there."""
    sys.path.insert(0, str(SERVERS))
    all_of = tuple(
        one
        for one in surroundings()
        if one.is_bare or not args.words or any(word in one.name for word in args.words)
    )
    parts = [HEAD.format(connections=CONNECTIONS, streams=STREAMS), stated(args)]
    print(parts[-1], flush=True)
    with tempfile.TemporaryDirectory(prefix="dynserve-bench-") as folder:
        workspace = Workspace(folder)
        for title in args.only:
            chosen = [one for one in all_of if title.startswith("queue") or one.around in FEW]
            section = compare(title, chosen, args, workspace)
            parts.append(table(section, [one.name for one in chosen]))
            print(parts[-1], flush=True)
    return "\n".join(parts)


TABLES = ("queue sync", "queue async", "aio sync", "aio async")


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=2, help="times that all servers are started")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of each start")
    parser.add_argument("--seconds", type=float, default=0.25, help="each server in each round")
    parser.add_argument("--only", default=",".join(TABLES), metavar="TABLE,…", help="the tables")
    parser.add_argument(
        "--variants", default="", metavar="WORD,…", help="only those with a word in their name"
    )
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    args = parser.parse_args(argv)
    if args.starts < 1 or args.rounds < 1 or args.seconds <= 0:
        parser.error("--starts, --rounds and --seconds must be more than 0")
    args.only = tuple(args.only.split(","))
    if unknown := [one for one in args.only if one not in TABLES]:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(TABLES)}")
    args.words = [word for word in args.variants.split(",") if word]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 1 where a server failed, 130 on Ctrl-C; its children are ended either way."""
    args = options(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    if shutil.which("h2load") is None:
        print("error: h2load is missing: apt-get install nghttp2-client", file=sys.stderr)
        return 1
    start = time.monotonic()
    try:
        page = measured(args)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    say(f"{time.monotonic() - start:.0f} s")
    if args.write:
        RESULTS.write_text(page)
        say(f"written: {RESULTS}")
    return 0


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
