"""From the start of a server's process to the first call it answers, as a client sees it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing

from measure import Sample, alternate, median, ratio, say
from process import Child, Client, free_port
from report import Table
from variants import Variant
from workspace import Workspace


def once(variant: Variant, client: Client, workspace: Workspace) -> Sample:
    """Starts the variant once. The client tries from before the process exists."""
    port = free_port()
    env = workspace.environment(variant.cold)
    client.send("probe", port)
    argv, log = variant.argv(workspace, port), workspace.log(variant.name)
    start = time.monotonic()  # the same clock in all processes
    with closing(Child(argv, env, log)) as server:
        answered = client.receive(server)["at"]
        cpu = server.cpu_seconds()
    return {"ms": (answered - start) * 1000, "cpu": cpu * 1000}


def compare(
    variants: Sequence[Variant], bases: Sequence[str], rounds: int, workspace: Workspace
) -> Table:
    """All variants, one process at a time."""
    by_name = {variant.name: variant for variant in variants}
    log = workspace.log("start-client")
    with closing(Client(workspace.python, workspace.environment(), log)) as client:
        for variant in variants:  # fills dynserve's cache, Python's .pyc files and the page cache
            once(variant, client, workspace)
            say(f"started once: {variant.name}")
        results = alternate(
            list(by_name), rounds, lambda name: once(by_name[name], client, workspace), "start"
        )
    columns = ("variant", "ms", "CPU ms", *(f"ms ÷ {base}" for base in bases))
    table = Table("process start to first answered call", columns)
    for name in by_name:
        cells = [name, *(f"{median(results, name, figure):.0f}" for figure in ("ms", "cpu"))]
        table.rows.append([*cells, *(str(ratio(results, name, base, "ms")) for base in bases)])
    return table
