"""The leader: one thread that takes events off the completion queue and acts on them.

Events come in bursts. A burst is taken to its end before anybody is woken: whoever then runs, a
worker or the loop, finds all its messages there, and what it answers leaves together, so that the
client's next requests come together too.

A sync handler that has proved quick runs on the leader itself. Should it take long after all, the
watchdog lets another thread lead; the one that it held up ends with its handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dynserve.engine.threads import Pools, ThreadPool

from .call import won
from .clock import Clock
from .loop import QueueLoop

if TYPE_CHECKING:
    from .async_call import AsyncCall
    from .call import Call
    from .plan import Plan
    from .sync_call import Gate, SyncCall

__all__ = ["Poller"]

_log = logging.getLogger(__name__)

_BURST = 64  # events; others have to get on as well
_LOOP_TURN = 0.002  # seconds that the leader leaves to the loop after it gave it something to do
_TICK = 0.004  # seconds; a handler holds up the leader for two of them at most
# Times in a row that the loop was given something, and no worker, after which the loop leads.
_PATIENCE, _MOST_PATIENCE = 32, 1 << 14
_QUIET = 50  # ticks without a handler on the leader, after which the watchdog sleeps

_Lead = list[int]  # of one leader: while a handler runs on it, the number of the run


class Poller:
    """Leads, and has what its calls share.

    Args:
        queue: the completion queue.
        loop: where async handlers run.
        pools: where sync handlers run.
        largest: bytes of a message that the core sends.
        queue_wait: seconds that a unary call waits for a thread; None: as long as it takes.
        abandon: ends the server, when its loop was closed.
    """

    def __init__(
        self,
        queue: Any,
        loop: asyncio.AbstractEventLoop,
        pools: Pools,
        largest: int,
        queue_wait: float | None,
        abandon: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.pools = pools
        self.largest = largest
        self.queue_wait = queue_wait
        self.clock = Clock(loop)
        self.context = contextvars.copy_context()  # what handlers find set
        self.serving: set[Call] = set()  # their handlers have not ended
        self.exempt: set[Call] = set()  # those of them that do not count for the limit
        self.open = 0  # calls whose end the core has not told
        self.is_cancelling = False  # all calls, now and from now on; by the loop, or by the leader
        # ---- the leader's
        self.wake_later: list[Gate] = []
        self.jobs: list[Callable[[], object]] = []  # for the loop
        self.quick: deque[tuple[SyncCall, bytes | None]] = deque()  # to be run on the leader
        # ---- the loop's
        self.launched: list[AsyncCall] = []
        self._queue = queue
        self._abandon = abandon
        self._lead: _Lead = []  # the present leader's
        self._runs = itertools.count()
        self._on_leader: Plan | None = None  # whose handler runs there
        self._leaders = ThreadPool(1 << 30, "dynserve-poller")
        self._watchdog_wanted = threading.Event()
        self._halted = threading.Event()
        self._on_idle: Callable[[], None] | None = None
        # ---- the lead of the loop
        self._may_lend = isinstance(loop, QueueLoop)
        self._loop_leads = False
        self._async_in_row = 0  # times that only the loop was given something
        self._patience = _PATIENCE  # how many of them it takes
        self._recent: Any = None  # a call of the core's, for the loop to lead with
        self._lent: list[None] = []  # the right to lead on, while the loop is asked to
        self._is_leaving = False  # a thread is needed
        self._turns = 0  # of the loop, since it leads

    # ---- calls

    def enter(self, call: Call) -> None:
        """A call begins; by the leader."""
        self.open += 1
        self.serving.add(call)

    def needs_a_thread(self) -> None:
        """A sync handler has something to do: the loop is not the one to lead; by the leader."""
        self._async_in_row, self._is_leaving = 0, True

    def may_lend_with(self, call: Any) -> None:
        """The loop may lead with this call of the core's; by the leader."""
        if self._may_lend:
            self._recent = call

    def left(self, call: Call) -> None:
        """The handler of a call has ended, or never runs; any thread."""
        self.serving.discard(call)
        if self.exempt:
            self.exempt.discard(call)
        if call.is_timed:
            self.clock.forget(call)

    def closed_one(self) -> None:
        """The core told the end of a call; by the leader."""
        self.open -= 1
        if not self._may_lend:
            self._recent = None  # it may have been noted when lending ended, and none may be held
        if not self.open and self._on_idle is not None:
            self._on_idle()

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call ``then`` when no call is open; by the leader."""
        self._on_idle = then
        if not self.open:
            then()

    # ---- leading

    def start(self) -> None:
        """Begin to lead, on a thread of its own."""
        threading.Thread(target=self._watch, name="dynserve-watchdog", daemon=True).start()
        self._new_leader()

    def halt(self) -> None:
        """Stop leading; by the leader."""
        self._halted.set()
        self._watchdog_wanted.set()
        self._leaders.close()
        self.clock.stop()
        self.pools.close()

    def _new_leader(self) -> None:
        lead: _Lead = []
        self._lead = lead
        self._leaders.submit(lambda: self._run(lead))

    def _run(self, lead: _Lead) -> None:
        poll = self._queue.poll
        # What an earlier leader left behind comes first: no event may ever follow.
        while (not self.quick or self._run_quick(lead)) and not self._halted.is_set():
            if self._async_in_row >= self._patience and self._lend():
                return
            self._deal(poll(None))
            for _ in range(_BURST):
                if self._halted.is_set() or not self._deal(poll(0.0)):
                    break
            self._wake_sleepers()
            self._give_jobs()

    @staticmethod
    def _deal(event: Any) -> bool:
        """Act on an event; False where it is none, but the end of the time to wait for one."""
        if event.tag is None:
            return False
        try:
            event.tag(event)
        except BaseException:  # of whatever kind: the leader has to go on
            _log.exception("an event was not dealt with")
        return True

    def _wake_sleepers(self) -> None:
        if self.wake_later:
            self.needs_a_thread()
            for gate in self.wake_later:
                gate.wake()
            self.wake_later.clear()

    def _give_jobs(self) -> None:
        if self.jobs:
            self._async_in_row += 1
            jobs, self.jobs = self.jobs, []
            turn = threading.Lock()
            turn.acquire()
            try:
                self.loop.call_soon_threadsafe(self._do, jobs, turn, context=self.context)
            except RuntimeError:  # the loop was closed: nobody is left to serve
                self._may_lend, self._recent = False, None
                self._abandon()
                return
            # While the loop works it would not let go of the interpreter for long, so that polling
            # meanwhile would only make both slower.
            turn.acquire(timeout=_LOOP_TURN)

    def _do(self, jobs: list[Callable[[], object]], turn: threading.Lock | None) -> None:  # loop
        for job in jobs:
            try:
                job()
            except Exception:
                _log.exception("an event was not dealt with")
        if self.launched:
            launched, self.launched = self.launched, []
            self.loop.call_soon(self._after_first_steps, launched, turn)
        elif turn is not None:
            turn.release()

    @staticmethod
    def _after_first_steps(calls: list[AsyncCall], turn: threading.Lock | None) -> None:  # loop
        if turn is not None:
            turn.release()
        for call in calls:
            call.after_first_step()

    # ---- the lead of the loop

    def _lend(self) -> bool:
        """Have the loop lead; by the leader, a thread, for which that is the end."""
        if self._recent is None or not self._may_lend:
            self._async_in_row, self._recent = 0, None
            return False
        self._lead = []  # nothing for the watchdog
        self._lent.append(None)
        self.loop.closers.append(self._on_loop_close)  # type: ignore[attr-defined]
        try:
            self.loop.call_soon_threadsafe(self._lead_on_loop)
        except RuntimeError:  # it was closed
            self._may_lend, self._recent = False, None
            return not won(self._lent)
        return True

    def _lead_on_loop(self) -> None:  # loop
        self._lent.clear()
        held = self._recent
        self._is_leaving, self._turns = False, 0
        if held is None or not self._may_lend:  # the server stops
            self._lead_again()
            return
        try:
            self._loop_leads = self.loop.lead(self._poll_on_loop, held)  # type: ignore[attr-defined]
        except BaseException as error:
            _log.warning("the loop cannot lead now", exc_info=True)
            if not isinstance(error, Exception):  # a signal handler's
                self._lead_again()
                raise
        if not self._loop_leads:  # or another server has it
            self._async_in_row = 0
            self._patience = min(self._patience * 2, _MOST_PATIENCE)
            self._lead_again()

    def _lead_again(self) -> None:  # loop
        """Have a thread lead, when nobody does."""
        with contextlib.suppress(ValueError):  # it is being closed
            self.loop.closers.remove(self._on_loop_close)  # type: ignore[attr-defined]
        self._new_leader()

    def _poll_on_loop(self, deadline: float) -> None:  # loop, which leads
        poll = self._queue.poll
        if self._deal(poll(deadline)):
            for _ in range(_BURST):
                if not self._deal(poll(0.0)):
                    break
        self._wake_sleepers()
        if self.jobs:
            jobs, self.jobs = self.jobs, []
            self.context.run(self._do, jobs, None)
        self._turns += 1
        if self._is_leaving:
            # Had it led for long it was worth it; else it will be waited for longer.
            long = self._turns >= _MOST_PATIENCE
            self._patience = _PATIENCE if long else min(self._patience * 2, _MOST_PATIENCE)
            self._take_back()

    def stop_lending(self) -> None:
        """The server stops: a thread leads from here on, and no call is held. On the loop."""
        self._may_lend, self._recent = False, None
        self._take_back()

    def _take_back(self) -> None:  # loop
        self._async_in_row = 0
        if self._loop_leads:
            self._loop_leads = False
            self.loop.leave()  # type: ignore[attr-defined]
            self._lead_again()

    def _on_loop_close(self) -> None:  # loop, which leads or is asked to
        self.stop_lending()
        if won(self._lent):
            self._new_leader()
        self._abandon()

    # ---- quick handlers

    def _run_quick(self, lead: _Lead) -> bool:
        """Run what waits; False where the lead was lost meanwhile."""
        while self.quick:
            call, request = self.quick.popleft()
            if not call.plan.is_quick:  # it was, until one of its runs took long
                call.launch(request)
                continue
            self._on_leader = call.plan
            lead.append(next(self._runs))
            if not self._watchdog_wanted.is_set():
                self._watchdog_wanted.set()
            self.context.copy().run(call.run, request, True)
            if not won(lead):  # type: ignore[arg-type]
                return False
        return True

    def _watch(self) -> None:
        seen: int | None = None
        quiet = _QUIET + 1
        while not self._halted.is_set():
            if quiet > _QUIET:
                self._watchdog_wanted.clear()
                if not (self._lead or self._halted.is_set()):  # asked after it was announced
                    self._watchdog_wanted.wait()
                quiet = 0
            time.sleep(_TICK)
            lead = self._lead
            now = next(iter(lead[:1]), None)
            if now is None or now != seen:
                quiet = quiet + 1 if now is None else 0
                seen = now
            elif won(lead):  # type: ignore[arg-type]  # maybe of a later run: it loses the lead then
                seen = None
                if self._on_leader is not None:
                    self._on_leader.forget()  # or the next call would hold up the next leader
                self._new_leader()
