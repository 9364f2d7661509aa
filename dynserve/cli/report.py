"""What ``dynserve call --verbose`` says on standard error: metadata and timing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .headers import shown
from .terminal import harmless

if TYPE_CHECKING:
    from dynserve.client.sync_call import Method
    from dynserve.status import Metadata

__all__ = ["Report"]

_Response = TypeVar("_Response")


class Report:
    """Follows a call; says nothing unless it is to be verbose."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._start = time.perf_counter()

    def resolved(self, method: Method) -> None:
        """The method is known."""
        self._say(f"* {method.info} ({method.info.kind}), found in {self._passed()}")

    def sent(self, metadata: Metadata) -> None:
        """The call begins."""
        self._start = time.perf_counter()
        for header in shown(metadata):
            self._say(f"> {header}")

    def received(self, call: Any, responses: Iterable[_Response]) -> Iterator[_Response]:
        """The responses; headers are said when they come, which may be long before the first."""
        if self._verbose:
            headers = call.initial_metadata()
            self._say(f"* headers after {self._passed()}")
            self._received(headers)
        count = 0
        try:
            for response in responses:
                count += 1
                if count == 1:
                    self._say(f"* first response after {self._passed()}")
                yield response
        finally:
            if self._verbose and not call.is_active():
                self._ended(call, count)

    def _ended(self, call: Any, count: int) -> None:
        self._say("* trailers")
        self._received(call.trailing_metadata())
        responses = "1 response" if count == 1 else f"{count} responses"
        self._say(f"* {call.code().name}, {responses}, {self._passed()} in all")

    def _received(self, metadata: Metadata) -> None:
        for header in shown(metadata):
            self._say(f"< {header}")

    def _say(self, line: str) -> None:
        if self._verbose:
            click.echo(harmless(line), err=True)

    def _passed(self) -> str:
        return f"{(time.perf_counter() - self._start) * 1000:.1f} ms"
