""".proto texts → one serialised descriptor set, by protoc in a child process.

protoc aborts on some inputs, recurses on others and writes its diagnostics past Python's stderr,
so it never runs in the process that serves. The texts are laid out in a private folder under the
names that they are imported by: what is compiled is exactly what was hashed for the cache.
"""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dynserve.errors import CompileError, CompilerError, Diagnostic

from .imports import SourceTree, find_root
from .toolchain import FLAGS, Limits

__all__ = ["compile_tree"]

_OUTPUT, _ERRORS = "set.binpb", "stderr"
_MAX_STDERR = 256 * 1024  # bytes of diagnostics that are read
_POSITION = re.compile(r":(\d+):(\d+): ")
_NOT_FOUND = re.compile(r'Import "(.*)" was not found or had errors\.$')
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
    with tempfile.TemporaryDirectory(prefix="dynserve-") as temporary:
        stage, output, errors = (Path(temporary) / name for name in ("src", _OUTPUT, _ERRORS))
        stage.mkdir()
        for name, text in tree.texts.items():
            file = stage / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
        code = _run_child(stage, output, errors, tree, limits)
        with errors.open("rb") as stream:
            said = stream.read(_MAX_STDERR).decode(errors="replace")
        if code not in (0, 1):
            raise CompilerError(_describe_crash(code, said, limits), tree.wanted)
        diagnostics = _parse(said, tree)
        if code:
            raise CompileError(diagnostics or [Diagnostic("protoc", 0, 0, said.strip())])
        return output.read_bytes(), diagnostics


def _run_child(stage: Path, output: Path, errors: Path, tree: SourceTree, limits: Limits) -> int:
    tools = importlib.util.find_spec("grpc_tools")
    if tools is None or not tools.submodule_search_locations:
        raise CompilerError("grpcio-tools is not installed", tree.wanted)
    job = {
        "packages": str(Path(tools.submodule_search_locations[0]).parent),
        "files": tree.wanted,
        "flags": [f"--descriptor_set_out={Path('..', output.name)}", *FLAGS],
        "memory": limits.memory,
        "seconds": limits.seconds,
        "enough": _MAX_STDERR // 4,
    }
    with errors.open("wb") as stderr:
        try:
            return subprocess.run(
                [sys.executable, "-I", "-S", str(_CHILD)],
                input=json.dumps(job).encode(),
                stdout=subprocess.DEVNULL,
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
    if "MemoryError" in text or "bad_alloc" in text:
        return f"protoc needs more than its limit of {limits.memory >> 20} MiB"
    if code == -getattr(signal, "SIGXCPU", 0):
        return f"protoc was stopped after {limits.seconds} s"
    try:
        how = f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        how = f"ended with exit code {code}"
    reasons = re.findall(r"Check failed: .*", text) or text.strip().splitlines()[-1:]
    return f"protoc {how}" + (f": {reasons[0].strip()}" if reasons else "")


def _parse(text: str, tree: SourceTree) -> list[Diagnostic]:
    """protoc's lines as diagnostics: each once, with the source line, and a hint for an import."""
    unique = dict.fromkeys(line for line in text.splitlines() if line.strip())
    parsed = [_parse_line(line, tree) for line in unique]
    explained = {name for _, _, name in parsed if name is not None}
    return [
        diagnostic
        for diagnostic, subject, _ in parsed
        # 'x.proto: File not found.' says nothing that the import's own diagnostic does not
        if not (diagnostic.message == "File not found." and subject in explained)
    ]


def _parse_line(line: str, tree: SourceTree) -> tuple[Diagnostic, str, str | None]:
    """A diagnostic, the name it is about, and the import it could not find."""
    position = _POSITION.search(line)
    if position is None:
        name, _, message = line.rpartition(": ")
        return Diagnostic(tree.place(name), 0, 0, message), name, None
    name, message = line[: position.start()], line[position.end() :]
    row, column = int(position[1]), int(position[2])
    missing = _NOT_FOUND.search(message)
    unknown = missing is not None and missing[1] not in tree.texts
    diagnostic = Diagnostic(
        tree.place(name),
        row,
        column,
        message,
        _source_line(tree.texts.get(name, b""), row),
        _hint(missing[1], tree) if missing and unknown else "",
    )
    return diagnostic, name, missing[1] if missing and unknown else None


def _source_line(text: bytes, row: int) -> str:
    lines = text.splitlines()
    return lines[row - 1].decode(errors="replace") if 0 < row <= len(lines) else ""


def _hint(name: str, tree: SourceTree) -> str:
    lines = ["searched: " + (", ".join(map(_shown, tree.roots)) or "no folder")]
    root = find_root(name, _near(tree))
    if root is not None:
        lines.append(f"this import would resolve with `-I {_shown(root)}`")
    return "\n".join(lines)


def _near(tree: SourceTree) -> Iterable[Path]:
    yield Path.cwd()
    yield from dict.fromkeys(path.parent for path in tree.paths.values())


def _shown(path: Path) -> str:
    cwd = Path.cwd()
    return str(path.relative_to(cwd)) if path == cwd or cwd in path.parents else str(path)
