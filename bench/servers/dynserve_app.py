"""The same handlers on dynserve, with no generated code: dynserve_app.py PORT KIND ENGINE [TREE]

KIND is sync or async, or either with `-context`. TREE is a folder with services that are all
served as well, each of their methods by a handler of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from context_handlers import AsyncContextEcho, SyncContextEcho
from dynserve import App
from handlers import AsyncEcho, SyncEcho

PROTO = Path(__file__).parent.parent / "echo.proto"
KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "sync": SyncEcho,
    "async": AsyncEcho,
    "sync-context": SyncContextEcho,
    "async-context": AsyncContextEcho,
}
LIMITS = {"threads": 10, "stream_threads": 1100}  # ten, as the hand-written servers have


def add_all(app: App, kind: str) -> None:
    """A handler for each method of the services beside bench.Echo."""
    reply = app.schema.message("many.Reply")
    for name in app.schema.services:
        if name.startswith("many."):
            service = app.service(name)
            for method in app.schema.method_kinds(name):
                service.add(_handler(reply, kind), method)


def _handler(reply: Any, kind: str) -> Callable[..., Any]:
    def answer(request: Any, context: Any) -> Any:
        return reply(message=request.name)

    async def answer_async(request: Any, context: Any) -> Any:
        return reply(message=request.name)

    return answer_async if kind == "async" else answer


def serve(port: str, kind: str, engine: str, *tree: str) -> None:
    """Serves until the process is ended."""
    app = App(PROTO, *tree)
    reply, item = app.schema.message("bench.SayReply"), app.schema.message("bench.Item")
    app.add_servicer(KINDS[kind](reply, item), "bench.Echo")
    if tree:
        add_all(app, kind)
    app.run(f"127.0.0.1:{port}", engine=engine, **LIMITS)  # type: ignore[arg-type]  # a dict of names that are settings


if __name__ == "__main__":
    serve(*sys.argv[1:])
