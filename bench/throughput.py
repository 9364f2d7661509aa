"""Calls and messages a second, and the server's CPU for each, all variants being up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager

from loads import Load, Target
from measure import Sample, alternate, median, ratio, say
from process import Child, Client, free_port
from report import Table
from variants import Variant
from workspace import Workspace

CHECK_MESSAGES = 50
MOST = 200_000


@contextmanager
def serving(variants: Sequence[Variant], workspace: Workspace) -> Iterator[Mapping[str, Target]]:
    """Starts every variant, and checks every method of each with a real client."""
    with ExitStack() as stack:
        env = workspace.environment()
        client = Client(workspace.python, env, workspace.log("client"))
        stack.enter_context(closing(client))
        targets: dict[str, Target] = {}
        for variant in variants:
            port = free_port()
            argv, log = variant.argv(workspace, port), workspace.log(variant.name)
            server = Child(argv, workspace.environment(variant.cold), log)
            stack.enter_context(closing(server))
            client.ask("probe", server, port)
            client.ask("check", server, port, CHECK_MESSAGES)
            say(f"checked: {variant.name}")
            targets[variant.name] = Target(server, port, client, workspace.folder)
        yield targets


def once(load: Load, target: Target, count: int) -> Sample:
    """One measurement."""
    before = target.server.cpu_seconds()
    seconds = load.run(target, count)
    used = target.server.cpu_seconds() - before
    return {"rate": count / seconds, "cpu": used / count * 1e6}


def sizes(load: Load, targets: Mapping[str, Target], seconds: float) -> dict[str, int]:
    """Warms every server up, and finds how many calls fill the time on each."""
    found = {}
    for name, target in targets.items():
        load.run(target, load.least)
        fitting = int(seconds * load.least / load.run(target, load.least))
        found[name] = max(load.least, min(fitting, MOST))
    return found


def compare(
    load: Load, targets: Mapping[str, Target], bases: Sequence[str], rounds: int, seconds: float
) -> Table:
    """All variants under one load; `bases` are the variants the ratios are set against."""
    names = list(targets)
    count = sizes(load, targets, seconds)
    results = alternate(
        names, rounds, lambda name: once(load, targets[name], count[name]), load.name
    )
    table = Table(load.name, ("variant", "per second", "CPU µs each"))
    for base in bases:
        table.columns += (f"rate ÷ {base}", f"CPU ÷ {base}")
    for name in names:
        cells = [name, f"{median(results, name, 'rate'):,.0f}"]
        cells.append(f"{median(results, name, 'cpu'):.1f}")
        for base in bases:
            cells += [str(ratio(results, name, base, figure)) for figure in ("rate", "cpu")]
        table.rows.append(cells)
    return table
