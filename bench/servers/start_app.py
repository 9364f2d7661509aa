"""The server of which the start is measured, as a user would write it: start_app.py PORT"""

from __future__ import annotations

import os
import sys

from dynserve import App
from handlers import AsyncEcho

app = App(os.path.join(os.path.dirname(__file__), "..", "echo.proto"))
reply, item = app.schema.message("bench.SayReply"), app.schema.message("bench.Item")
app.add_servicer(AsyncEcho(reply, item), "bench.Echo")

if __name__ == "__main__":
    app.run(f"127.0.0.1:{sys.argv[1]}")
