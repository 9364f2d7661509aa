"""A hand-written grpc.server with generated code and ten threads: hand_sync.py PORT"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import echo_pb2  # type: ignore[import-not-found]  # generated for each run, never committed
import echo_pb2_grpc  # type: ignore[import-not-found]
import grpc

from handlers import SyncEcho


def serve(port: str) -> None:
    """Serves until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(10), options=(("grpc.so_reuseport", 0),))
    servicer = SyncEcho(echo_pb2.SayReply, echo_pb2.Item)
    echo_pb2_grpc.add_EchoServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(sys.argv[1])
