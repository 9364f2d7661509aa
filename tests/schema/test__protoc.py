"""dynserve.schema._protoc: the child process, which is a script and never imported."""

from __future__ import annotations

import importlib.util
import marshal
import subprocess
import sys
from pathlib import Path
from typing import Any

from dynserve.schema import compiler

from .conftest import Tree

P3 = 'syntax = "proto3";\n'
SCRIPT = Path(compiler.__file__).with_name("_protoc.py")


def run(folder: Path, files: list[str], **job: Any) -> tuple[int, str]:
    """The exit code and the diagnostics of a job in the folder."""
    spec = importlib.util.find_spec("grpc_tools")
    assert spec is not None
    assert spec.submodule_search_locations
    job = {
        "packages": str(Path(spec.submodule_search_locations[0]).parent),
        "files": files,
        "output": "set.binpb",
        "flags": [],
        "memory": 1 << 30,
        "seconds": 60,
        "written": 1 << 30,
        "enough": 1 << 20,
        **job,
    }
    with (folder / "stderr").open("wb") as stderr:
        code = subprocess.run(
            [sys.executable, str(SCRIPT)],
            input=marshal.dumps(job),
            stderr=stderr,
            cwd=folder,
            timeout=60,
            check=False,
        ).returncode
    return code, (folder / "stderr").read_text()


def test_a_job_that_succeeds(tree: Tree) -> None:
    """The set is written where the flags say, and nothing is said."""
    folder = tree({"a.proto": P3})
    assert run(folder, ["a.proto"]) == (0, "")
    assert (folder / "set.binpb").read_bytes() == b"\x0a\x11\x0a\x07a.proto\x62\x06proto3"


def test_every_file_has_its_say(tree: Tree) -> None:
    """After a failure each file is run by itself."""
    folder = tree({"a.proto": P3 + "oops", "b.proto": P3, "c.proto": P3 + "oops"})
    said = 'a.proto:2:1: Expected top-level statement (e.g. "message").\n'
    code, text = run(folder, ["a.proto", "b.proto", "c.proto"])
    assert (code, text) == (1, said + said + said.replace("a.proto", "c.proto"))


def test_there_is_an_end_to_it(tree: Tree) -> None:
    """When enough was said, or half of the time is gone, no more files are run."""
    folder = tree({"a.proto": P3 + "oops", "b.proto": P3 + "oops"})
    said = 'a.proto:2:1: Expected top-level statement (e.g. "message").\n'
    assert run(folder, ["a.proto", "b.proto"], enough=10) == (1, said + said)


def test_a_job_that_cannot_be_run(tree: Tree) -> None:
    """What is not protoc's own failure has another exit code, and says what it is."""
    code, text = run(tree({}), ["a.proto"], memory="much")
    assert (code, text) == (70, "TypeError: must be real number, not str\n")
