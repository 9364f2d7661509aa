"""How a call on the event loop truly ended.

grpc.aio takes a message that could not be sent for the end of the call, and sets INTERNAL. Most
often the server has ended a stream of requests early, and its own status has just been there, and
is lost, or is about to come. The first status that is set gRPC tells of, and the last can be asked
for: one of the two is the server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

from dynserve.status import Metadata

__all__ = ["Ending"]

_FAULT = "Internal error from Core"  # the details of a status that no server sent
_PATIENCE, _STEP = 1.0, 0.002  # seconds; the call has ended, but for the news of it


class Ending:
    """The status of a call; has the methods of gRPC's errors."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._is_known = False
        self._code = grpc.StatusCode.INTERNAL
        self._details = _FAULT
        self._trailing: Metadata = ()
        call.add_done_callback(self._note)

    def _note(self, call: Any) -> None:
        details = _now(call.details()) or ""
        if not self._is_known and details != _FAULT:
            self._is_known = True
            self._code = _now(call.code())
            self._details = details
            self._trailing = tuple(_now(call.trailing_metadata()) or ())

    async def instead_of(self, error: Any) -> Any:
        """The error itself, or what truly ended the call if the error is not that."""
        return await self.known() if error.details() == _FAULT else error

    @property
    def is_known(self) -> bool:
        """Whether this is the server's own status."""
        return self._is_known

    async def known(self, patience: float = _PATIENCE) -> Ending:
        """This, when the call has ended; where the status does not come, after some seconds."""
        await self._call.code()
        clock = asyncio.get_running_loop().time
        end = clock() + patience
        while not self._is_known and clock() < end:
            self._note(self._call)
            if not self._is_known:
                await asyncio.sleep(_STEP)
        return self

    def code(self) -> grpc.StatusCode:
        """The status code."""
        return self._code

    def details(self) -> str:
        """The text of the status."""
        return self._details

    def initial_metadata(self) -> Metadata:
        """What the server sent first: of a call that has ended it is there."""
        return tuple(_now(self._call.initial_metadata()) or ())

    def trailing_metadata(self) -> Metadata:
        """What the server sent with the status."""
        return self._trailing


def _now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that has nothing to wait for; None if it has."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    return None
