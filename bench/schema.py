"""Loading trees of .proto files, and what compilers take for them: each time a fresh process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import tree
import variants
from measure import Sample, Section, alternate, failed, say
from process import BenchError, run_to_end
from tree import Tree
from variants import Program
from workspace import HERE, Workspace

FILES = {"a small tree": 6, "a tree": 180, "a large tree": 5000}
PROBE_SECONDS = 120
INSIDE = ("load ms", "with a service ms", "load MB")  # what a probe says of itself
OUTSIDE = ("process ms", "cpu ms", "peak MB")


@dataclass(frozen=True, slots=True)
class Way:
    """A way to load a tree, in a process of its own."""

    name: str
    arguments: Callable[[Tree, Workspace], list[str]]
    program: Callable[[], Program] = lambda: Program((sys.executable,))
    cold: bool = False
    probe: bool = True  # prints the figures of INSIDE


def _probe(way: str, what: Callable[[Tree], list[str]]) -> Callable[[Tree, Workspace], list[str]]:
    def arguments(tree: Tree, workspace: Workspace) -> list[str]:
        path, *include = what(tree)
        return [str(HERE / "schema_probe.py"), way, path, tree.service, *include]

    return arguments


def _folder(tree: Tree) -> list[str]:
    return [str(tree.root)]


def _file(tree: Tree) -> list[str]:
    return [str(tree.service_file), str(tree.root)]


def _set(tree: Tree) -> list[str]:
    return [str(tree.set)]


def _node(tree: Tree, workspace: Workspace) -> list[str]:
    return [str(HERE / "schema_probe.js"), str(tree.root), str(tree.names), tree.service]


def _protoc(of: Tree, workspace: Workspace) -> list[str]:
    return tree.protoc_arguments(of, workspace.folder / "protoc.binpb")


def _buf(tree: Tree, workspace: Workspace) -> list[str]:
    return ["build", str(tree.root), "-o", str(workspace.folder / "buf.binpb")]


WAYS = (
    Way("dynserve, cold", _probe("dynserve", _folder), cold=True),
    Way("dynserve, cached", _probe("dynserve", _folder)),
    Way("dynserve, one service, cold", _probe("dynserve", _file), cold=True),
    Way("dynserve, one service, cached", _probe("dynserve", _file)),
    Way("dynserve, descriptor set", _probe("dynserve", _set)),
    Way("DescriptorPool, descriptor set", _probe("eager", _set)),
    Way("protoc of grpcio-tools", _protoc, variants.protoc, probe=False),
    Way("buf build", _buf, variants.buf, probe=False),
    Way("proto-loader", _node, variants.node),
)


def once(way: Way, of: Tree, workspace: Workspace) -> Sample:
    """Loads the tree one time."""
    program = way.program()
    argv = [*program.argv, *way.arguments(of, workspace)]
    env = {**workspace.environment(way.cold), **program.env}
    ended = run_to_end(argv, env, workspace.log("schema"), PROBE_SECONDS)
    answer = json.loads(ended.output) if way.probe else {}
    if way.probe and not answer.pop("request").startswith("tree."):
        raise BenchError(f"{way.name} made another message: {ended.output}")
    outside = (ended.seconds * 1000, ended.cpu_seconds * 1000, ended.peak_megabytes)
    return {
        **dict(zip(OUTSIDE, outside, strict=True)),
        **{figure: float(value) for figure, value in answer.items()},
    }


def compare(ways: Sequence[Way], rounds: int, workspace: Workspace) -> Iterator[Section]:
    """All ways to load the same trees."""
    for name, files in FILES.items():
        say(f"schema: making and compiling {files} files")
        of = tree.build(files, workspace)
        size = of.set.stat().st_size / 1e6
        title = f"{name}: {files:,} files, compiled {size:.2f} MB"
        section = Section(f"schema {files}", title, (*INSIDE, *OUTSIDE))
        good = {}
        for way in ways:  # fills caches; what cannot do it at all is out
            try:
                once(way, of, workspace)
            except BenchError as error:
                failed(section, way.name, error)
                continue
            good[way.name] = way
        yield measured(section, good, of, rounds, workspace)


def measured(
    section: Section, ways: dict[str, Way], of: Tree, rounds: int, workspace: Workspace
) -> Section:
    """The rounds; large trees take seconds, and get half as many."""
    rounds = rounds if of.files < 1000 else max(1, rounds // 2)
    return alternate(section, list(ways), rounds, lambda name: once(ways[name], of, workspace))
