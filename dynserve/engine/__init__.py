"""What carries calls: plain ``grpc.GenericRpcHandler`` in, nothing of dynserve."""

from .aio import AioEngine

__all__ = ["AioEngine"]
