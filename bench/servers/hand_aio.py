"""A hand-written grpc.aio server with generated code: hand_aio.py PORT [builtin] [sync]

`builtin` adds reflection and health, which dynserve serves by default. `sync` serves the sync
handlers, which grpc.aio runs on a pool of ten threads.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import echo_pb2  # type: ignore[import-not-found]  # generated for each run, never committed
import echo_pb2_grpc  # type: ignore[import-not-found]
import grpc.aio

from handlers import AsyncEcho, SyncEcho


def add_builtin(server: grpc.aio.Server) -> None:
    """What a hand-written server does to have reflection and health."""
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection

    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = ("bench.Echo", health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)


async def serve(port: str, builtin: bool, sync: bool) -> None:
    """Serves until the process is ended."""
    pool = ThreadPoolExecutor(10) if sync else None
    server = grpc.aio.server(pool, options=(("grpc.so_reuseport", 0),))
    servicer = (SyncEcho if sync else AsyncEcho)(echo_pb2.SayReply, echo_pb2.Item)
    echo_pb2_grpc.add_EchoServicer_to_server(servicer, server)
    if builtin:
        add_builtin(server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], "builtin" in sys.argv[2:], "sync" in sys.argv[2:]))
