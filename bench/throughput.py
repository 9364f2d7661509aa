"""Calls and messages a second, and the server's CPU and memory, all variants being up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager

from loads import Load, Target
from measure import Sample, Section, alternate, failed, say
from process import BenchError, Child, Client, free_port
from variants import Variant
from workspace import HERE, Workspace

CHECK_MESSAGES = 50
WARM_SECONDS = 2.0
RATIOS = (("rate", "grpc.server"), ("rate", "grpc.aio"), ("rate", "grpc-js"), ("cpu", "c++"))


@contextmanager
def serving(
    variants: Sequence[Variant],
    workspace: Workspace,
    streams: Sequence[str] | None,
    skipped: list[str],
) -> Iterator[Mapping[Variant, Target]]:
    """Starts every variant, and checks every method of each with a real client.

    `streams` is the command of the client that the loads get; None for those that need none. A peer
    that does not work is added to `skipped`; where dynserve does not, the run ends.
    """
    with ExitStack() as stack:
        env = workspace.environment()
        script = [sys.executable, str(HERE / "client.py")]
        checker = Client(script, env, workspace.log("checker"))
        stack.enter_context(closing(checker))
        client = checker
        if streams is not None:
            client = Client(streams, env, workspace.log("client"))
            stack.enter_context(closing(client))
        targets: dict[Variant, Target] = {}
        for variant in variants:
            port = free_port()
            argv, log = variant.argv(workspace, port), workspace.log(variant.name)
            server = Child(argv, variant.environment(workspace), log)
            stack.enter_context(closing(server))
            try:
                checker.ask("probe", server, port)
                checker.ask("check", server, port, CHECK_MESSAGES)
            except BenchError as error:
                if variant.name.startswith("dynserve"):
                    raise
                skipped.append(f"{variant.name} does not serve here: {str(error)[:500]}")
                say(skipped[-1])
                continue
            say(f"checked: {variant.name}")
            targets[variant] = Target(server, port, client, workspace.folder)
        yield targets


def once(load: Load, target: Target, count: int) -> Sample:
    """One measurement."""
    target.server.require_alive()
    target.server.reset_peak()
    before = target.server.cpu_seconds()
    try:
        sample = load.run(target, count)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{load.name}: no end after {error.timeout:.0f} s") from error
    used = target.server.cpu_seconds() - before
    return {
        "rate": count / sample["seconds"],
        "cpu": used / count * 1e6,
        "peak MB": target.server.peak_megabytes(),
        **{figure: sample[figure] for figure in load.figures},
    }


def warm_up(load: Load, targets: Mapping[Variant, Target]) -> None:
    """Keeps every server busy before anything is timed: some compile themselves while they run."""
    for variant, target in targets.items():
        try:
            once(load, target, fitting(load, once(load, target, load.least), WARM_SECONDS))
        except BenchError as error:  # a load that is timed will tell
            say(f"warm-up of {variant.name}: {error}")


def sizes(
    load: Load, targets: Mapping[str, Target], seconds: float, section: Section
) -> dict[str, int]:
    """Finds how many calls fill the time on each, which are warm for this load then."""
    found = {}
    for name, target in targets.items():
        try:
            warm = fitting(load, once(load, target, load.least), seconds / 2)
            found[name] = fitting(load, once(load, target, warm), seconds)
        except BenchError as error:
            failed(section, name, error)
    return found


def fitting(load: Load, sample: Sample, seconds: float) -> int:
    """How many calls take that long at the rate of a sample."""
    return max(load.least, min(int(seconds * sample["rate"]), load.most))


def compare(
    load: Load,
    servers: Mapping[Variant, Target],
    rounds: int,
    seconds: float,
    ratios: Sequence[tuple[str, str]] = RATIOS,
) -> Section:
    """All variants that the load is meant for; `ratios` as in Section."""
    targets = {v.name: target for v, target in servers.items() if load.sync in (None, v.sync)}
    section = Section(load.name, load.name, ("rate", "cpu", *load.figures, "peak MB"))
    section.ratios = tuple(ratios)
    count = sizes(load, targets, seconds, section)
    return alternate(
        section, list(count), rounds, lambda name: once(load, targets[name], count[name])
    )
