"""From the start of a server's process to the first call it answers, as a client sees it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing

from measure import Sample, Section, alternate, failed, say
from process import BenchError, Child, Client, free_port
from variants import Variant
from workspace import HERE, Workspace

RATIOS = (("ms", "grpc.aio"), ("ms", "grpc.aio + reflection + health"))


def once(variant: Variant, client: Client, workspace: Workspace) -> Sample:
    """Starts the variant once. The client tries from before the process exists."""
    port = free_port()
    env = variant.environment(workspace)
    argv, log = variant.argv(workspace, port), workspace.log(variant.name)
    client.send("probe", port)
    start = time.monotonic()  # the same clock in all processes
    with closing(Child(argv, env, log)) as server:
        answered = client.receive(server)["at"]
        return {
            "ms": (answered - start) * 1000,
            "cpu ms": server.cpu_seconds() * 1000,
            "peak MB": server.peak_megabytes(),
        }


def compare(variants: Sequence[Variant], rounds: int, workspace: Workspace) -> Section:
    """All variants, one process at a time."""
    section = Section("start", "process start to first answered call", ("ms", "cpu ms", "peak MB"))
    section.ratios = RATIOS
    good: dict[str, Variant] = {}
    script = [sys.executable, str(HERE / "client.py")]
    log = workspace.log("start-client")
    with closing(Client(script, workspace.environment(), log)) as client:
        for variant in variants:  # fills dynserve's cache, Python's .pyc files and the page cache
            try:
                once(variant, client, workspace)
            except BenchError as error:
                failed(section, variant.name, error)
                continue
            good[variant.name] = variant
            say(f"started once: {variant.name}")
        return alternate(
            section, list(good), rounds, lambda name: once(good[name], client, workspace)
        )
