"""A hand-written grpc.server with generated code: hand_sync.py PORT [THREADS]"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import echo_pb2  # type: ignore[import-not-found]  # generated for each run, never committed
import echo_pb2_grpc  # type: ignore[import-not-found]
import grpc

from handlers import SyncEcho


def serve(port: str, threads: str = "10") -> None:
    """Serves until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(int(threads)), options=(("grpc.so_reuseport", 0),))
    servicer = SyncEcho(echo_pb2.SayReply, echo_pb2.Item)
    echo_pb2_grpc.add_EchoServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(*sys.argv[1:])
