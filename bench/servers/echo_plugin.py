"""The plugin that `dynserve run` serves in the start-up measurement."""

from __future__ import annotations

from pathlib import Path

from dynserve import App
from handlers import AsyncEcho

app = App(Path(__file__).parent.parent / "echo.proto")
app.add_servicer(
    AsyncEcho(app.schema.message("bench.SayReply"), app.schema.message("bench.Item")), "bench.Echo"
)
