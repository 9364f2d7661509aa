"""The other end of the wire: what a call costs its client, and the first answer of a command."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing

import variants
from measure import Sample, Section, alternate, failed, say
from process import BenchError, Child, Client, free_port, run_to_end
from workspace import HERE, SERVERS, Workspace

PARTS = ("client", "command")
WORLDS = ("sync", "async")
KEYS = (*(f"client {world}" for world in WORLDS), "command")  # of the sections
COMMAND_SECONDS = 30.0
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "dynserve call": (sys.executable, "-m", "dynserve", "call", "{target}", "bench.Echo/Say"),
    "grpcurl": ("grpcurl", "-plaintext", "{target}", "bench.Echo/Say"),
}


def compare(part: str, rounds: int, seconds: float, workspace: Workspace) -> Iterator[Section]:
    """The sections of a part, on a server that answers at once."""
    server = next(one for one in variants.THROUGHPUT if one.name == "dynserve queue async")
    port = free_port()
    env = server.environment(workspace)
    probe = Client([sys.executable, str(HERE / "client.py")], env, workspace.log("probe"))
    child = Child(server.argv(workspace, port), env, workspace.log(server.name))
    with closing(probe), closing(child):
        probe.ask("probe", child, port)
        if part == "client":
            for world in WORLDS:
                yield _stubs(world, port, rounds, seconds, workspace)
        else:
            yield _commands(port, rounds, workspace)


def _stubs(world: str, port: int, rounds: int, seconds: float, workspace: Workspace) -> Section:
    """Both stubs are in one process, on one channel."""
    title = f"{world} client: a unary call, one at a time"
    section = Section(f"client {world}", title, ("us", "cpu us"))
    section.ratios = (("us", "generated stub"), ("cpu us", "generated stub"))
    script = (sys.executable, str(SERVERS / "caller.py"), str(port), world, str(seconds))
    env, log = workspace.environment(), workspace.log(f"caller {world}")
    try:
        for number in range(rounds):
            say(f"{section.key}: round {number + 1} of {rounds}")
            turned = ("turned",) if number % 2 else ()
            ended = run_to_end((*script, *turned), env, log, seconds + COMMAND_SECONDS)
            section.rounds.append(json.loads(ended.output))
    except BenchError as error:
        failed(section, "caller", error)
    return section


def _commands(port: int, rounds: int, workspace: Workspace) -> Section:
    title = "a command that calls a method it knows from reflection, start to end"
    section = Section("command", title, ("ms", "cpu ms", "peak MB"))
    section.ratios = (("ms", "grpcurl"),)
    env, log = workspace.environment(), workspace.log("command")

    def once(name: str) -> Sample:
        argv = [word.replace("{target}", f"127.0.0.1:{port}") for word in COMMANDS[name]]
        ended = run_to_end(argv, env, log, COMMAND_SECONDS)
        return {
            "ms": ended.seconds * 1000,
            "cpu ms": ended.cpu_seconds * 1000,
            "peak MB": ended.peak_megabytes,
        }

    there = [name for name, argv in COMMANDS.items() if shutil.which(argv[0])]
    for name in there:  # fills caches
        once(name)
    section.notes += [f"{name} is not installed" for name in COMMANDS if name not in there]
    return alternate(section, there, rounds, once)
