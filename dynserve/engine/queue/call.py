"""A call: what it receives, what it sends, how it ends. Common to sync and async handlers.

Each attribute and each method says on which side it is used: by the leader, the thread that takes
events off the completion queue, or by the handler, which runs on a worker thread or on the loop.
"""

from __future__ import annotations

import abc
import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import grpc

from dynserve.engine.limits import EXPIRED

from . import core
from .context import Context, Metadata

if TYPE_CHECKING:
    from .plan import Plan
    from .poller import Poller

__all__ = ["END", "Call", "run_all", "won"]

_log = logging.getLogger(__name__)

Operations = tuple[Any, ...]

# A buffer is full at _MANY messages or _LARGE bytes, and has room again at _FEW messages and half
# the bytes. What lies between is what one switch between threads can serve.
_MANY, _FEW = 64, 16
_LARGE = 256 * 1024

_UNSENDABLE = grpc.StatusCode.INTERNAL.value[0], "the answer cannot be sent"
END = None  # in a buffer, after its last message; what the core has for the end of requests too


def won(token: list[None]) -> bool:
    """Take the token, if it is there: of several threads that ask, one gets it."""
    try:
        token.pop()
    except IndexError:
        return False
    return True


def run_all(callbacks: Iterable[Callable[[], None]]) -> None:
    """Run callbacks of the user's; none keeps the others from being run."""
    for callback in callbacks:
        try:
            callback()
        except BaseException:
            _log.exception("a callback at the end of a call failed")


def _ignore(_event: Any) -> None:
    """The tag of a batch whose outcome another event tells."""


class Call(Context):
    """One call, and the context that its handler gets.

    Defaults are on the class: what a call does not use costs it nothing.
    """

    _sent_headers = False  # by who has the right to send
    _is_ending = False  # the leader's: the end of requests was told once
    is_timed = False  # the clock's, who never resets it

    def __init__(self, poller: Poller, plan: Plan, event: Any) -> None:
        super().__init__(event)
        self._poller = poller
        self.plan = plan
        self._unwatched: list[None] = [None]  # the right to ask the core for the end of the call
        self._callbacks: deque[Callable[[], None]] = deque()
        if plan.streams_in:
            self._in: deque[bytes | None] = deque()
            self._in_put = self._in_got = 0  # bytes: written by the leader, by the handler
            self._paused: list[None] = []  # the right to start the next receive
        if plan.streams_out:
            self._out: deque[Any] = deque()
            self._out_put = self._out_sent = (
                0  # bytes: by the handler, by who has the right to send
            )
            self._idle: list[None] = [None]  # the right to send the next message

    # ---- what runs the handler: for a subclass to say

    @abc.abstractmethod
    def launch(self, request: bytes | None) -> None:
        """Have the handler run; by the leader."""

    @abc.abstractmethod
    def _wake_reader(self) -> None:
        """There are requests, or there is an end of them; by the leader."""

    @abc.abstractmethod
    def _wake_writer(self) -> None:
        """There may be room for responses, or no use for them; by the leader."""

    @abc.abstractmethod
    def _interrupt(self) -> None:
        """The call was cancelled; by the leader."""

    @abc.abstractmethod
    def _run_callbacks(self, callbacks: Iterable[Callable[[], None]]) -> None:
        """The call is over; by the leader."""

    # ---- the beginning

    def begin(self) -> None:
        """By the leader, once."""
        if not self.plan.is_unary or self._poller.is_cancelling:
            self.watch()
        if self.plan.streams_in:
            self._receive(self._on_message)
            self.launch(None)
        else:
            self._receive(self._on_request)

    def refuse(self, code: grpc.StatusCode, details: str) -> None:
        """End a call whose handler does not run; by the leader."""
        self._code, self._details = code, details.encode()
        self._end(())
        self._poller.left(self)

    def grant(self, seconds: float | None) -> None:
        """Have the call end with DEADLINE_EXCEEDED after so long; by the leader, before it runs."""
        if seconds is not None:
            self._granted = time.monotonic() + seconds
            self._poller.clock.set(self, seconds, Call._expire)

    def _expire(self) -> None:  # any thread
        code, text = EXPIRED
        self._call.cancel(code.value[0], text)
        self.watch()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What runs the handler on the loop, None where a thread does."""
        return None

    def wait_no_longer(self) -> None:
        """It has waited for a thread for so long, and is refused unless it has one; on the loop."""

    def watch(self) -> None:
        """Have the core tell the end of the call as it comes; any thread."""
        if won(self._unwatched):
            self._call.start_server_batch((core.ReceiveClose(0),), self._on_close)

    # ---- requests

    def _receive(self, tag: Callable[[Any], None]) -> None:
        self._call.start_server_batch((core.ReceiveMessage(0),), tag)

    def _on_request(self, event: Any) -> None:  # leader
        request = event.batch_operations[0].message()
        if request is None:
            self._violated("none")
        elif self._is_closed:  # nothing would come of another receive
            self._poller.left(self)
        else:
            self._request = request
            self._receive(self._on_request_end)

    def _on_request_end(self, event: Any) -> None:  # leader
        request, self._request = self._request, None
        if event.batch_operations[0].message() is None:
            self.launch(request)
        else:
            self._violated("more than one")

    def _violated(self, got: str) -> None:
        # https://grpc.github.io/grpc/core/md_doc_statuscodes.html, "cardinality violation"
        self.refuse(grpc.StatusCode.UNIMPLEMENTED, f"expected one request message, got {got}")

    def _on_message(self, event: Any) -> None:  # leader
        message = event.batch_operations[0].message()
        if self._is_finished:
            return
        if message is None and not self._is_ending:
            # A cancelled call ends its requests first and tells its end a moment later; but before
            # another receive is through.
            self._is_ending = True
            self._receive(self._on_message)
            return
        self._in.append(message)
        if message is not None:
            self._in_put += len(message)
            if len(self._in) < _MANY and self._in_put - self._in_got < _LARGE:
                self._receive(self._on_message)
            else:
                self._paused.append(None)
                self._resume()  # the handler may have taken all before it could see the token
        self._wake_reader()

    def _resume(self) -> None:  # leader, handler
        if (
            len(self._in) <= _FEW
            and self._in_put - self._in_got <= _LARGE // 2
            and won(self._paused)
        ):
            self._receive(self._on_message)

    def _take(self) -> bytes | None:  # handler
        """The next request that is there, or the end.

        Raises:
            IndexError: there is none yet.
        """
        message = self._in.popleft()
        if message is END:
            self._in.append(END)
        else:
            self._in_got += len(message)
            if self._paused:
                self._resume()
        return message

    def _decoded(self, request: bytes) -> Any:  # handler
        decode = self.plan.deserialize
        return request if decode is None else decode(request)

    # ---- responses: the first leaves at once, each that has left sends the next

    def _respond(self, response: Any) -> None:  # handler
        data = self._encoded(response)
        self._out_put += len(data)
        self._queue(data if not self._flags else (data, self._take_flags()))

    def _queue(self, item: Any) -> None:  # handler
        self._out.append(item)
        if self._idle and won(self._idle):  # mostly it is not there, which is told at less cost
            self._send_next()

    def _is_full(self) -> bool:  # handler
        return len(self._out) >= _MANY or self._out_put - self._out_sent >= _LARGE

    def _has_room(self) -> bool:
        few = len(self._out) <= _FEW and self._out_put - self._out_sent <= _LARGE // 2
        return few or self._is_cancelled or self._is_closed

    def _send_next(self) -> None:  # who has the right to
        out = self._out
        while not out:
            self._idle.append(None)
            if not out or not won(self._idle):
                return  # there is really nothing, or who put it there has the token
        item = out.popleft()
        if item is END:
            self._end(())  # the token is gone: nothing may follow
            return
        data, flags = item if type(item) is tuple else (item, 0)
        self._out_sent += len(data)
        if not out:
            self._start((*self._headers(), core.SendMessage(data, flags)), self._on_sent)
        elif out[0] is END:
            out.popleft()
            self._end((core.SendMessage(data, flags),))
        else:
            if self._is_followed():
                flags |= core.BUFFER_HINT
            self._start((*self._headers(), core.SendMessage(data, flags)), self._on_sent)

    def _is_followed(self) -> bool:
        """Whether the next message is sure to follow as soon as the core has this one.

        This one need not leave alone then. What lies in the core is lost should the next batch be
        refused there: for its size, or for the trailing metadata where it is the last.
        """
        out = self._out
        following = out[0]
        data = following[0] if type(following) is tuple else following
        is_last = len(out) > 1 and out[1] is END
        return len(data) <= self._poller.largest and not (is_last and self._trailing)

    def _on_sent(self, event: Any) -> None:  # leader
        if event.success:
            self._send_next()
        else:
            self._is_cancelled = True  # the close event says the same, but maybe later
        self._wake_writer()

    def _encoded(self, response: Any) -> bytes:  # handler
        encode = self.plan.serialize
        data = response if encode is None else encode(response)
        if type(data) is not bytes:
            raise TypeError(f"a response is {type(data).__name__}, expected bytes")
        return data

    # ---- the end

    def _headers(self, metadata: Metadata = ()) -> Operations:
        """The initial metadata, when it is first asked for; by who has the right to send."""
        if self._sent_headers:
            return ()
        self._sent_headers = True
        if self._encoding:
            metadata = ((core.ENCODING_KEY, self._encoding), *metadata)
        return (core.SendHeaders(metadata, 0),)

    def _send_headers(self, metadata: Any) -> None:  # handler
        if self._sent_headers:
            raise ValueError("the initial metadata was sent before")
        self._start(self._headers(tuple(metadata or ())), _ignore)

    def _take_flags(self) -> int:
        flags, self._flags = self._flags, 0
        return flags

    def _conclude(self, response: Any = None) -> None:  # handler
        """The handler is done: the status, after all responses; with the one response, if one."""
        if self.plan.streams_out:
            self._queue(END)
        elif self._is_aborted:
            self._end(())
        else:
            self._end((core.SendMessage(self._encoded(response), self._take_flags()),))

    def _may_answer(self) -> bool:  # handler
        """Whether the call has no status yet, as far as is known."""
        return not (self._is_cancelled or self._is_finished)

    def _end(self, operations: Operations) -> None:
        """The status, after these operations. Does not fail: who else would tell the client?"""
        self._is_finished = True
        code = 0 if self._code is None else self._code._value_[0]
        status = core.SendStatus(self._trailing, code, self._details, 0)
        operations = (*self._headers(), *operations, status)
        if won(self._unwatched):
            self._start((*operations, core.ReceiveClose(0)), self._on_close)
        else:
            self._start(operations, _ignore)

    def _start(self, operations: Operations, tag: Callable[[Any], None]) -> None:
        try:
            if not self._call.start_server_batch(operations, tag):
                return
            _log.error("the core refuses what %s answers", self._path())
        except Exception:  # of a type that the core does not take
            _log.exception("cannot send what %s answers", self._path())
        self._is_finished = True
        self._call.cancel(*_UNSENDABLE)  # or the client would wait for its deadline
        self.watch()
        if tag == self._on_close:  # the right to watch was taken by what has failed
            self._call.start_server_batch((core.ReceiveClose(0),), self._on_close)

    def _failed(self, error: BaseException) -> None:  # handler
        """The handler raised."""
        if not self._may_answer():
            return
        if not self._is_aborted:
            self._is_aborted = True
            if isinstance(error, asyncio.CancelledError):
                code, details = grpc.StatusCode.CANCELLED, b"the handler was cancelled"
            else:
                _log.error("%s failed", self._path(), exc_info=error)
                code, details = grpc.StatusCode.UNKNOWN, b"the handler failed"
            if self._code in (None, grpc.StatusCode.OK):  # else it has said what its error means
                self._code, self._details = code, details
        self._conclude()

    def _on_close(self, event: Any) -> None:  # leader
        if event.batch_operations[-1].cancelled():
            self._is_cancelled = True
        self._let_go()
        try:
            if self.plan.streams_in:  # a thread or a task of the handler's may wait for more
                self._in.append(END)
                self._wake_reader()
            if self.plan.streams_out:
                self._wake_writer()
            if self._is_cancelled:
                self._interrupt()
            callbacks = []
            while self._callbacks:
                callbacks.append(self._callbacks.popleft())
            if callbacks:
                self._run_callbacks(callbacks)
        finally:  # whatever happens: a server that counts on would never stop
            self._poller.closed_one()

    def _add_callback(self, callback: Callable[[], None]) -> bool:
        self._callbacks.append(callback)
        self.watch()
        if self._is_closed:  # withdrawn, unless the leader has it already
            try:
                self._callbacks.remove(callback)
            except ValueError:
                return True
            return False
        return True
