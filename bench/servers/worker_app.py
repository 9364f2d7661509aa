"""One worker of bench/kill_worker.py: answers with its pid. Started by dynserve's supervisor."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from dynserve import App, Schema

PROTO = """
syntax = "proto3";
package workers;
message Nothing {}
message Pid { int64 pid = 1; }
service Who {
  rpc Ask(Nothing) returns (Pid);
  rpc Slow(Nothing) returns (Pid);
  rpc Watch(Nothing) returns (stream Pid);
}
"""
GRACE = 5.0

app = App(schema=Schema.load(PROTO, cache=False))
PID = {"pid": os.getpid()}


@app.rpc
async def ask(request: Any) -> dict[str, int]:
    return PID


@app.rpc
def slow(request: Any) -> dict[str, int]:
    time.sleep(0.02)
    return PID


@app.rpc
async def watch(request: Any) -> Any:
    while True:
        yield PID
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    app.run(grace=GRACE)
