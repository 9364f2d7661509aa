"""What carries calls: plain ``grpc.GenericRpcHandler`` in, nothing of dynserve."""

from .base import Engine

__all__ = ["Engine"]
