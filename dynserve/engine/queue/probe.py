"""Whether the queue engine works with the grpcio that is installed: it serves two calls and stops.

Nothing but doing it would tell: grpcio's private layer has no version of its own.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from typing import Any

import grpc

from .engine import QueueEngine

__all__ = ["probe"]

_SECONDS = 10.0


def probe() -> None:
    """Serve a call with a sync handler and one with an async handler, to a client of grpcio.

    Raises:
        Exception: whatever went wrong, or TimeoutError.
    """
    failures: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(asyncio.wait_for(_serve(), _SECONDS))
        except BaseException as error:
            failures.append(error)

    # Not on the thread of the caller, where an event loop may be running.
    thread = threading.Thread(target=work, name="dynserve-probe", daemon=True)
    thread.start()
    thread.join(_SECONDS * 2)
    if failures:
        raise failures[0]
    if thread.is_alive():
        raise TimeoutError(f"no answer in {_SECONDS * 2:.0f} seconds")


async def _serve() -> None:
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Sync": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
        "Async": grpc.stream_stream_rpc_method_handler(_echo),
    }
    with tempfile.TemporaryDirectory(prefix="dynserve-") as folder:
        engine = QueueEngine([grpc.method_handlers_generic_handler("dynserve.Probe", handlers)])
        has_unix = hasattr(socket, "AF_UNIX")
        port = engine.add_port(f"unix:{folder}/probe" if has_unix else "127.0.0.1:0")
        address = f"unix:{folder}/probe" if has_unix else f"127.0.0.1:{port}"
        await engine.start()
        try:
            await asyncio.get_running_loop().run_in_executor(None, _call, address)
        finally:
            await engine.stop(None)


async def _echo(_requests: Any, call: Any) -> None:
    while (request := await call.read()) is not grpc.aio.EOF:
        await call.write(request)


def _call(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        sync: Any = channel.unary_unary("/dynserve.Probe/Sync")
        chat: Any = channel.stream_stream("/dynserve.Probe/Async")
        answers = [
            sync(b"1", timeout=_SECONDS),
            *chat(iter([b"2", b"3"]), timeout=_SECONDS),
        ]
    if answers != [b"1", b"2", b"3"]:
        raise RuntimeError(f"got {answers!r} for what was sent, expected the same again")
