"""A proper client, which has to be served whatever others do."""

from __future__ import annotations

import time
from typing import Any

import grpc

from tests.wire.lab import HONEST, WAIT

__all__ = ["Honest"]

APART = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own for each channel


class Honest:
    """A proper client beside the hostile ones, with a connection that was open before.

    Args:
        address: ``HOST:PORT``.
        path: the method that it calls.
    """

    def __init__(self, address: str, path: str = "/wire.Sync/Unary") -> None:
        self._address = address
        self._path = path
        self._old = grpc.insecure_channel(address, options=APART)
        self._call(self._old)

    def __enter__(self) -> Honest:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._old.close()

    def answered(self) -> float:
        """Call on the old connection and on a new one; the slower answer's seconds.

        Raises:
            grpc.RpcError: a call fails.
        """
        old = self._call(self._old)
        with grpc.insecure_channel(self._address, options=APART) as new:
            return max(old, self._call(new))

    def answered_again(self) -> float:
        """As :meth:`answered`, for a server whose port was closed for a moment: after as many tries
        as it takes; seconds in all.
        """
        start = time.monotonic()
        for channel in (self._old, grpc.insecure_channel(self._address, options=APART)):
            while True:
                try:
                    self._call(channel)
                    break
                except grpc.RpcError:
                    if time.monotonic() > start + WAIT:
                        raise
            if channel is not self._old:
                channel.close()
        return time.monotonic() - start

    def _call(self, channel: grpc.Channel) -> float:
        start = time.monotonic()
        call: Any = channel.unary_unary(self._path)
        got = call(HONEST, timeout=WAIT)
        assert got == HONEST
        return time.monotonic() - start
