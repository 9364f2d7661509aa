"""One worker of bench/kill_worker.py: answers with its pid. Started by dynserve's supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

from dynserve import App, Schema, addresses, channel_arguments
from dynserve.engines import new_event_loop
from dynserve.workers.link import Link

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
ENGINE = os.environ.get("DYNSERVE_ENGINE", "queue")

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


async def main(link: Link) -> None:
    """What a server does that is a worker."""
    stop, cancel = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    serving = app.server(*link.listen, engine=ENGINE)
    await link.open(heed=lambda statuses: None, stop=lambda replaced: stop.set(), cancel=cancel.set)
    await serving.start()
    link.ready(serving.addresses)
    await stop.wait()
    stopping = asyncio.ensure_future(serving.stop(GRACE))
    cancelled = asyncio.ensure_future(cancel.wait())
    await asyncio.wait({stopping, cancelled}, return_when=asyncio.FIRST_COMPLETED)
    cancelled.cancel()
    await serving.stop(None)
    await asyncio.wait({stopping, cancelled})
    link.close()


if __name__ == "__main__":
    found = Link.of_environment()
    if found is None:
        sys.exit("this is started by bench/kill_worker.py")
    # The supervisor has the port: the probe would find it taken. Of an argument that is given twice
    # gRPC's core takes the first.
    addresses._why_not_host = lambda host, port: ""
    channel_arguments._ALWAYS = (("grpc.so_reuseport", 1),)  # type: ignore[assignment]
    new_event_loop(ENGINE).run_until_complete(main(found))
