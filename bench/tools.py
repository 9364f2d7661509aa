"""What the peers need: programs compiled and packages installed once, kept in the cache folder.

A folder's name has a hash of all that went into it, so a change makes another one, and nothing in
it is ever updated. It is filled beside its place and moved there when it is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
INSTALL_SECONDS = 300
COMPILE = ("g++", "-std=c++17", "-O2", "-pthread")
# Debian's grpc++ needs libraries that only its own dependencies name.
LIBRARIES = ("-Wl,--copy-dt-needed-entries", "-lgrpc++", "-lgrpc", "-lgpr", "-lprotobuf")


class Missing(Exception):
    """A tool is not there; the text says what to install."""


def need(program: str, install: str) -> str:
    """The path of a program."""
    found = shutil.which(program)
    if found is None:
        raise Missing(f"{program} is missing: {install}")
    return found


def cpp(name: str) -> Path:
    """The program made of cpp/NAME.cc."""
    need("g++", "apt-get install g++")
    need("protoc", "apt-get install protobuf-compiler")
    plugin = need("grpc_cpp_plugin", "apt-get install protobuf-compiler-grpc libgrpc++-dev")
    source, proto = HERE / "cpp" / f"{name}.cc", HERE / "echo.proto"
    version = _run("g++", "--version").encode()
    parts = (source.read_bytes(), proto.read_bytes(), version, repr((COMPILE, LIBRARIES)).encode())

    def build(folder: Path) -> None:
        _run(
            *("protoc", f"-I{HERE}", f"--cpp_out={folder}", f"--grpc_out={folder}"),
            *(f"--plugin=protoc-gen-grpc={plugin}", "echo.proto"),
        )
        generated = (str(folder / "echo.pb.cc"), str(folder / "echo.grpc.pb.cc"))
        made = str(folder / name)
        _run(*COMPILE, f"-I{folder}", str(source), *generated, "-o", made, *LIBRARIES)

    return _once(f"cpp-{name}", parts, build) / name


def pip(*requirements: str) -> Path:
    """A folder with these packages, apart from those of the interpreter that runs this."""
    version = f"{sys.version} {' '.join(requirements)}".encode()

    def build(folder: Path) -> None:
        command = (sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder))
        _run(*command, *requirements)

    name = requirements[0].partition("=")[0]
    return _once(f"pip-{name}", (version,), build)


def npm(*packages: str) -> Path:
    """The node_modules folder with these packages."""
    need("node", "apt-get install nodejs")
    need("npm", "apt-get install npm")

    def build(folder: Path) -> None:
        flags = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder))
        _run("npm", "install", *flags, *packages)

    return _once("npm", (" ".join(packages).encode(),), build) / "node_modules"


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or ""
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "dynserve-bench"


def _once(name: str, parts: Sequence[bytes], build: Callable[[Path], None]) -> Path:
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    target = _folder() / f"{name}-{key}"
    if target.is_dir():
        return target
    print(f"making {target.name} …", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as new:
        made = Path(new) / "made"
        made.mkdir()
        build(made)
        if not target.is_dir():  # another run may have been quicker
            made.rename(target)
    return target


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise Missing(f"{' '.join(command[:4])} … failed: {lines[-1][:300]}")
    return done.stdout
