""".proto texts → one serialised descriptor set, by protoc in a child process.

protoc aborts on some inputs, recurses on others and writes its diagnostics past Python's stderr,
so it never runs in the process that serves. The texts are laid out in a private folder under the
names that they are imported by: what is compiled is exactly what was hashed for the cache.
"""

from __future__ import annotations

import importlib.util
import marshal
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from dynserve.errors import CompileError, CompilerError, Diagnostic

from .diagnostics import parse
from .imports import SourceTree
from .toolchain import FLAGS, Limits

__all__ = ["compile_tree"]

_MAX_STDERR = 16 << 20  # bytes of diagnostics that are read: a large tree has many warnings
_MAX_WRITTEN = 1 << 30  # bytes of the set, and of diagnostics
_OUT_OF_MEMORY = re.compile(
    "MemoryError|bad_alloc|[Cc]annot allocate memory|failed to map segment|[Oo]ut of memory"
)
_CHILD = Path(__file__).with_name("_protoc.py")


def compile_tree(tree: SourceTree, limits: Limits) -> tuple[bytes, list[Diagnostic]]:
    """Compile ``tree.wanted`` with all they import.

    Returns:
        The serialised ``FileDescriptorSet``, each file after those it imports, with source
        locations and source-retention options; and protoc's warnings.

    Raises:
        CompileError: the sources have errors.
        CompilerError: protoc crashed, or ran out of time or memory.
    """
    try:
        temporary = tempfile.TemporaryDirectory(prefix="dynserve-", ignore_cleanup_errors=True)
    except OSError as error:
        raise CompilerError(f"there is no temporary folder: {error}", tree.wanted) from error
    with temporary:
        folder = Path(temporary.name)
        stage, output, errors = folder / "src", folder / f"{folder.name}.binpb", folder / "stderr"
        _lay_out(tree, stage)
        code = _run_child(stage, output, errors, tree, limits)
        with errors.open("rb") as stream:
            said = stream.read(_MAX_STDERR).decode(errors="replace")
        if code not in (0, 1):
            raise CompilerError(_describe_crash(code, said, limits), tree.wanted)
        unwritten = re.search(rf"^\.\./{output.name}: (.*)$", said, re.MULTILINE)
        if unwritten is not None:  # the disk is full, or the set larger than the limit
            problem = f"the descriptor set cannot be written: {unwritten[1]}"
            raise CompilerError(problem, tree.wanted)
        diagnostics = parse(said, tree)
        # where the program ignores SIGCHLD the code is lost, and is 0
        if code or not output.exists():
            wrong = [item for item in diagnostics if not item.is_warning]
            problem = said.strip() or "no descriptor set was written"
            raise CompileError(wrong or [Diagnostic("protoc", 0, 0, problem)])
        return output.read_bytes(), diagnostics


def _lay_out(tree: SourceTree, stage: Path) -> None:
    """Write every text below ``stage``, under the name that it is imported by."""
    stage.mkdir()
    for name, text in tree.texts.items():
        file = stage / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
        except OSError as error:  # the disk is full, or 'a.proto' and 'a.proto/b.proto' are files
            problem = f"{name!r} cannot be laid out for protoc: {error.strerror}"
            raise CompilerError(problem, tree.wanted) from error


def _run_child(stage: Path, output: Path, errors: Path, tree: SourceTree, limits: Limits) -> int:
    tools = importlib.util.find_spec("grpc_tools")
    if tools is None or not tools.submodule_search_locations:
        raise CompilerError("grpcio-tools is not installed", tree.wanted)
    job = {
        "packages": str(Path(tools.submodule_search_locations[0]).parent),
        "files": tree.wanted,
        "output": f"../{output.name}",
        "flags": FLAGS,
        "memory": float(limits.memory),  # of whatever type it was given
        "seconds": float(limits.seconds),
        "written": _MAX_WRITTEN,
        "enough": _MAX_STDERR // 4,
    }
    with errors.open("wb") as stderr:
        try:
            return subprocess.run(
                [sys.executable, "-I", "-S", str(_CHILD)],
                input=marshal.dumps(job),
                stdout=subprocess.PIPE,  # to wait for its end; nothing is written there
                stderr=stderr,
                cwd=stage,
                timeout=limits.seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            problem = f"protoc was stopped after {limits.seconds} s"
            raise CompilerError(problem, tree.wanted) from error
        except OSError as error:
            problem = f"protoc cannot be started with {sys.executable!r}: {error.strerror}"
            raise CompilerError(problem, tree.wanted) from error


def _describe_crash(code: int, text: str, limits: Limits) -> str:
    if _OUT_OF_MEMORY.search(text):
        return f"protoc needs more than its limit of {limits.memory >> 20} MiB"
    if code == -getattr(signal, "SIGXCPU", 0):
        return f"protoc was stopped after {limits.seconds} s"
    try:
        how = f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        how = f"ended with exit code {code}"
    reasons = re.findall(r"Check failed: .*", text) or text.strip().splitlines()[-1:]
    return f"protoc {how}" + (f": {reasons[0].strip()}" if reasons else "")
