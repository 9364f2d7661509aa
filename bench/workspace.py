"""The temporary folder of a run: generated code, caches and logs, gone when the run is over."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from process import BenchError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SERVERS = HERE / "servers"
PROTOC_SECONDS = 120


class Workspace:
    """Where a run keeps what it makes, and the environment its processes get."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.python = sys.executable
        self._generated = self.folder / "generated"
        self._cache = self.folder / "cache"
        for path in (self._generated, self._cache):
            path.mkdir()

    def generate(self) -> None:
        """Makes echo_pb2 and echo_pb2_grpc, which the hand-written servers stand on."""
        out = str(self._generated)
        self.protoc("-I", str(HERE), "--python_out", out, "--grpc_python_out", out, "echo.proto")

    def protoc(self, *arguments: str) -> None:
        """Runs the compiler of grpcio-tools."""
        command = [self.python, "-m", "grpc_tools.protoc", *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=PROTOC_SECONDS
        )
        if done.returncode:
            raise BenchError(f"protoc failed:\n{done.stderr[-3000:]}")

    def environment(self, cold: bool = False) -> dict[str, str]:
        """All processes get the same; `cold` gives dynserve a cache folder never used before."""
        cache = tempfile.mkdtemp(prefix="cold-", dir=self.folder) if cold else str(self._cache)
        path = os.pathsep.join(map(str, (ROOT, SERVERS, self._generated)))
        own = {
            "PYTHONPATH": path,
            "DYNSERVE_CACHE_DIR": cache,
            # A start from .pyc files, as installed packages have them, whatever the caller has set.
            "PYTHONPYCACHEPREFIX": str(self.folder / "pycache"),
            "PYTHONDONTWRITEBYTECODE": "",
        }
        return {**os.environ, **own}

    def log(self, name: str) -> Path:
        """A log file of that name."""
        return self.folder / f"{name.replace(' ', '-').replace('/', '-')}.log"
