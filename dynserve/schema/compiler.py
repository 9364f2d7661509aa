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
from typing import NamedTuple

from dynserve.errors import CompileError, CompilerError, Diagnostic

from .imports import SourceTree, find_root
from .toolchain import FLAGS, Limits

__all__ = ["compile_tree"]

_OUTPUT, _ERRORS = "set.binpb", "stderr"
_MAX_STDERR = 16 << 20  # bytes of diagnostics that are read: a large tree has many warnings
_MAX_HINTS = 20  # imports for which a root is looked for
_TAB = 8  # protoc counts columns in bytes, and a tab as far as the next multiple of this
_OUT_OF_MEMORY = re.compile(
    "MemoryError|bad_alloc|[Cc]annot allocate memory|failed to map segment|[Oo]ut of memory"
)
_POSITION = re.compile(r":(\d+):(\d+): ")
_NOT_FOUND = re.compile(r'Import "(.*)" was not found or had errors\.$', re.DOTALL)
_LOG = re.compile(r"[IWEF]\d{4} [\d:.]+ +\d+ [^\]]+\] (.*)", re.DOTALL)  # of protoc's own library
_LOG_HEAD = "WARNING: All log messages before absl::InitializeLog() is called"
_NO_SYNTAX = re.compile(r"No edition or syntax specified for the proto file: (.*)\. Please use .*")
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
            wrong = [item for item in diagnostics if not item.is_warning]
            raise CompileError(wrong or [Diagnostic("protoc", 0, 0, said.strip())])
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


def _parse(text: str, tree: SourceTree) -> list[Diagnostic]:
    """protoc's lines as diagnostics: each once, with the source line, and a hint for an import."""
    for name in tree.texts:  # a name may hold a line break, but no NUL
        if "\n" in name:
            text = text.replace(name, name.replace("\n", "\0"))
    lines = dict.fromkeys(line for line in text.split("\n") if line.strip())
    parsed = [
        _parse_line(line.replace("\0", "\n"), tree)
        for line in lines
        if not line.startswith(_LOG_HEAD)
    ]
    wrong = {line.name for line in parsed if not line.diagnostic.is_warning}
    unfound = dict.fromkeys(line.imports for line in parsed if line.imports not in tree.texts)
    hints = {name: _hint(name, tree) for name in list(unfound)[:_MAX_HINTS] if name}
    return [
        line.diagnostic._replace(hint=hints.get(line.imports, ""))
        for line in parsed
        # 'x.proto: File not found.' says nothing that the import's own diagnostic does not, and
        # 'Import "x.proto" had errors' nothing that these errors do not
        if not (line.diagnostic.message == "File not found." and line.name in unfound)
        if not (line.imports in wrong and line.imports in tree.texts)
    ]


class _Line(NamedTuple):
    """A diagnostic, the name of the file it is about, and the import that failed."""

    diagnostic: Diagnostic
    name: str
    imports: str = ""


def _parse_line(line: str, tree: SourceTree) -> _Line:
    logged = _LOG.fullmatch(line)
    if logged is not None:
        no_syntax = _NO_SYNTAX.fullmatch(logged[1])
        name = no_syntax[1] if no_syntax else "protoc"
        said = "no syntax or edition is given, so it is proto2" if no_syntax else logged[1]
        return _Line(Diagnostic(tree.place(name), 0, 0, f"warning: {said}"), name)
    position = _known(_POSITION.finditer(line), line, tree)
    if position is None:
        end = _known(re.finditer(": ", line), line, tree)
        name, message = (line[: end.start()], line[end.end() :]) if end else ("protoc", line)
        return _Line(Diagnostic(tree.place(name), 0, 0, message), name)
    name, message = line[: position.start()], line[position.end() :]
    row = int(position[1])
    source = _source_line(tree.texts.get(name, b""), row)
    column = _characters(source, int(position[2]))
    failed = _NOT_FOUND.search(message)
    shown = source.decode(errors="replace").rstrip("\r")
    diagnostic = Diagnostic(tree.place(name), row, column, message, shown)
    return _Line(diagnostic, name, failed[1] if failed else "")


def _known(ends: Iterable[re.Match[str]], line: str, tree: SourceTree) -> re.Match[str] | None:
    """Where a file's name ends: a name may look like a position, so one we know is preferred."""
    found = list(ends)
    known = (end for end in found if line[: end.start()] in tree.texts)
    return next(known, found[0] if found else None)


def _source_line(text: bytes, row: int) -> bytes:
    lines = text.split(b"\n", row)  # as protoc counts them
    return lines[row - 1] if row <= len(lines) else b""


def _characters(line: bytes, column: int) -> int:
    """protoc's column of a source line, counted in characters."""
    width = 0
    for position, byte in enumerate(line):
        if width >= column - 1:
            return len(line[:position].decode(errors="ignore")) + 1
        width += _TAB - width % _TAB if byte == 0x09 else 1
    return len(line.decode(errors="ignore")) + 1 if line else column


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
