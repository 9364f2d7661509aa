"""The same handlers on dynserve, with no generated code: dynserve_app.py PORT async|sync ENGINE"""

from __future__ import annotations

import sys
from pathlib import Path

from dynserve import App
from handlers import AsyncEcho, SyncEcho


def serve(port: str, flavour: str, engine: str) -> None:
    """Serves until the process is ended."""
    app = App(Path(__file__).parent.parent / "echo.proto")
    servicer = {"async": AsyncEcho, "sync": SyncEcho}[flavour]
    reply, item = app.schema.message("bench.SayReply"), app.schema.message("bench.Item")
    app.add_servicer(servicer(reply, item), "bench.Echo")
    app.run(f"127.0.0.1:{port}", engine=engine)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], sys.argv[3])
