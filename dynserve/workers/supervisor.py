"""Keeps a number of worker processes running, replaces them, and stops them together."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import logging
import os
import signal
from typing import Any

from .backoff import Backoff
from .board import HealthBoard
from .lifeline import lifeline
from .loop import Loop, Timer
from .metrics import metrics_served
from .plan import Plan
from .ports import reserved
from .process import Worker, ending_of

__all__ = ["Supervisor"]

_log = logging.getLogger("dynserve.workers")

_STOPS = (signal.SIGINT, signal.SIGTERM)
_SIGNALS = (*_STOPS, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
_KILL_SECONDS = 2.0  # for the system to end what was killed
_FAILED = 1


class _Slot:
    """A place for a worker, and for its successor while that starts."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: Worker | None = None
        self.successor: Worker | None = None
        self.was_ready = False  # one of its workers was, ever
        self.restart: Timer | None = None
        self.backoff = Backoff()

    def put_off_restart(self) -> None:
        """Something else starts a worker here, or nothing is to."""
        if self.restart is not None:
            self.restart.cancel()
            self.restart = None


class Supervisor:
    """Runs workers until it is told to stop.

    The first worker is started alone: what is wrong with the program is then said once, and what it
    compiles is in the cache for the others. A worker that ends before its place ever had one that
    was ready ends it all. Any that ends later, for whatever reason, is started again.

    SIGTERM and SIGINT stop: the first lets calls under way finish, the second cancels them, the
    third kills. SIGHUP replaces the workers one after the other; SIGUSR1 goes to each. A worker
    that is ready is told to stop over its channel, so that it does not matter whether it gets a
    signal too, from a service manager that signals all processes say.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._loop = Loop()
        self._board = HealthBoard()
        self._slots = [_Slot(number) for number in range(1, plan.workers + 1)]
        self._workers: dict[int, Worker] = {}  # by serial: all that run, those that leave too
        self._serials = itertools.count()
        self._listen: tuple[str, ...] = ()
        self._stops = 0  # signals to stop so far
        self._code: int | None = None  # what run() returns; set once all is to end
        self._was_killed = False
        self._has_begun = False  # the first worker was ready, so all are started
        self._rolling: collections.deque[_Slot] | None = None  # the slots to come
        self._roll_again = False
        self._had_terminal = _has_terminal()
        self._ignores_hangup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN

    def run(self) -> int:
        """Run until all has ended; on the main thread, once.

        Returns:
            What the process is to exit with: 0 where it was told to stop and all ended by
            themselves; the exit code of the worker, 128 + N where signal N killed it, that was
            never ready; 128 + N for the third signal, N; else 1.

        Raises:
            AddressError: an address cannot be listened on, or not be shared.
            DynserveError: metrics are asked for, and their extra is not installed.
        """
        with (
            contextlib.closing(self._loop),
            lifeline() as self._lifeline,
            reserved(self._plan.listen) as self._listen,
            metrics_served(self._plan.metrics) as self._process_ended,
            self._loop.signals(_SIGNALS, self._on_signal),
        ):
            self._start(self._slots[0])
            self._loop.run(self._is_over)
        return _FAILED if self._code is None else self._code

    def _is_over(self) -> bool:
        return self._code is not None and (self._was_killed or not self._workers)

    # ---- starting

    def _start(self, slot: _Slot) -> None:
        """Start the worker of a slot that has none."""
        slot.restart = None
        slot.worker = self._spawn(slot)
        if slot.worker is not None:
            return
        if slot.was_ready:
            self._restart(slot, 0.0)
        else:
            self._end(_FAILED)

    def _spawn(self, slot: _Slot) -> Worker | None:
        serial = next(self._serials)
        try:
            worker = Worker.start(self._plan, self._listen, self._lifeline, slot.number, serial)
        except OSError as error:
            _log.error("worker %d cannot be started: %s", slot.number, error)
            return None
        self._workers[serial] = worker
        self._watch(worker)
        too_late = functools.partial(self._on_too_late, worker)
        worker.set_timer(self._loop.after(self._plan.start_seconds, too_late))
        self._tell_health(worker, self._board.others(serial))
        return worker

    def _restart(self, slot: _Slot, was_ready_for: float) -> None:
        delay = slot.backoff.delay(was_ready_for)
        when = f"in {delay:g} s" if delay else "at once"
        _log.warning("worker %d is started again %s", slot.number, when)
        slot.restart = self._loop.after(delay, functools.partial(self._start, slot))

    def _on_too_late(self, worker: Worker) -> None:
        limit = self._plan.start_seconds
        _log.error("%s was not ready within %g s and is killed", worker, limit)
        worker.is_late = True
        worker.signal(signal.SIGKILL)

    # ---- what a worker says

    def _on_channel(self, worker: Worker) -> None:
        messages, is_open, problem = worker.channel.receive()
        for kind, value in messages:
            self._on_message(worker, kind, value)
        if problem:
            _log.error("%s said what nobody understands, and is to stop: %s", worker, problem)
        if is_open:
            self._flush(worker)
        else:  # a worker that still runs takes it for our end, and stops
            self._hang_up(worker)

    def _on_message(self, worker: Worker, kind: str, value: Any) -> None:
        if kind == "ready" and not worker.is_ready:
            seconds = worker.became_ready()
            _log.info("%s is ready on %s, after %.2f s", worker, ", ".join(value), seconds)
            if not worker.is_leaving:
                worker.set_timer(None)
                self._on_ready(worker)
        elif kind == "health" and not worker.is_leaving:
            self._board.say(worker.serial, value)
            self._share_health()

    def _on_ready(self, worker: Worker) -> None:
        slot = self._slots[worker.slot - 1]
        slot.was_ready = True
        if worker is slot.successor:
            before, slot.worker, slot.successor = slot.worker, worker, None
            if before is None:
                self._roll_on()
            else:
                self._stop(before, "replaced")
        elif not self._has_begun:
            self._has_begun = True
            for other in self._slots[1:]:
                self._start(other)
        if self._roll_again and self._rolling is None:
            self._roll()

    def _share_health(self) -> None:
        for worker in list(self._workers.values()):
            others = self._board.others(worker.serial)
            if others != worker.told:
                self._tell_health(worker, others)

    def _tell_health(self, worker: Worker, others: dict[str, bool]) -> None:
        worker.told = others
        self._send(worker, "health", others)

    def _send(self, worker: Worker, kind: str, value: Any) -> None:
        worker.channel.send(kind, value)
        self._flush(worker)

    def _flush(self, worker: Worker) -> None:
        waits = not worker.channel.flush()
        if waits != worker.waits_for_room:
            worker.waits_for_room = waits
            self._watch(worker)

    def _watch(self, worker: Worker) -> None:
        call = functools.partial(self._on_channel, worker)
        self._loop.watch(worker.channel.fileno(), call, for_room=worker.waits_for_room)

    def _hang_up(self, worker: Worker) -> None:
        self._loop.forget(worker.channel.fileno())
        worker.channel.close()
        worker.waits_for_room = False
        worker.is_deaf = True

    # ---- the end of a worker

    def _on_children(self) -> None:
        for worker in list(self._workers.values()):
            code = worker.code
            if code is not None:
                self._on_end(worker, code)

    def _on_end(self, worker: Worker, code: int) -> None:
        self._on_channel(worker)  # it may have become ready before
        self._hang_up(worker)
        worker.set_timer(None)
        del self._workers[worker.serial]
        self._process_ended(worker.pid)
        self._board.leave(worker.serial)
        self._share_health()
        slot = self._slots[worker.slot - 1]
        if self._code is not None:
            self._on_stopped(worker, code)
        elif worker.is_leaving:
            _log.log(logging.WARNING if code else logging.INFO, "%s %s", worker, ending_of(code))
            self._roll_on()
        elif worker is slot.successor:
            _log.error("%s %s before it was ready", worker, ending_of(code))
            self._give_up_roll(slot)
        elif not slot.was_ready:
            _log.error("%s %s before it was ready; no other is started", worker, ending_of(code))
            self._end(_FAILED if worker.is_late else code if code >= 0 else 128 - code)
        else:
            _log.warning("%s %s", worker, ending_of(code))
            slot.worker = None
            if slot.successor is None:
                self._restart(slot, worker.was_ready_for())

    def _on_stopped(self, worker: Worker, code: int) -> None:
        """One has ended while all are to; one that never became ready may end as it likes."""
        is_bad = code != 0 and worker.is_ready
        _log.log(logging.WARNING if is_bad else logging.INFO, "%s %s", worker, ending_of(code))
        if is_bad and self._code == 0:
            self._code = _FAILED

    # ---- stopping

    def _stop(self, worker: Worker, why: str) -> None:
        """Have a worker end, once: its calls may go on for their time."""
        if worker.is_leaving:
            return
        worker.is_leaving = True
        self._board.leave(worker.serial)
        self._share_health()
        self._tell(worker, "stop", why)
        overdue = functools.partial(self._on_overdue, worker)
        worker.set_timer(self._loop.after(self._plan.stop_seconds, overdue))

    def _tell(self, worker: Worker, kind: str, value: Any) -> None:
        """Tell a worker to stop, one way or the other.

        Not both ways: one that has heard, and has no more to do, would be killed by the signal when
        its handlers are gone.
        """
        if worker.is_ready and not worker.is_deaf:
            self._send(worker, kind, value)
        else:
            worker.signal(signal.SIGTERM)

    def _on_overdue(self, worker: Worker) -> None:
        _log.warning("%s has not ended within %g s and is killed", worker, self._plan.stop_seconds)
        worker.signal(signal.SIGKILL)

    def _end(self, code: int, why: str = "stopping") -> None:
        """Stop all, and return the code in the end."""
        self._code = code
        self._rolling, self._roll_again = None, False
        for slot in self._slots:
            slot.put_off_restart()
        for worker in list(self._workers.values()):
            self._stop(worker, why)

    # ---- signals

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._on_children()
        elif number in _STOPS:
            self._on_stop_signal(number)
        elif number == signal.SIGHUP:
            self._on_hangup()
        else:
            for worker in self._workers.values():
                if worker.is_ready:  # before, it would be killed: it has no handler yet
                    worker.signal(number)

    def _on_stop_signal(self, number: int) -> None:
        self._stops += 1
        name = signal.Signals(number).name
        if self._stops == 1:
            _log.info("%s: the workers stop", name)
            if self._code is None:
                self._end(0, "interrupted" if number == signal.SIGINT else "stopping")
        elif self._stops == 2:
            _log.info("%s again: the workers cancel their calls", name)
            for worker in self._workers.values():
                self._tell(worker, "cancel", True)
        else:
            _log.warning("%s once more: the workers are killed", name)
            self._code = 128 + number  # as shells have it
            for worker in self._workers.values():
                worker.signal(signal.SIGKILL)
            self._loop.after(_KILL_SECONDS, self._do_not_wait)

    def _do_not_wait(self) -> None:
        self._was_killed = True

    def _on_hangup(self) -> None:
        """SIGHUP: someone asks to replace the workers, or the system tells that a terminal is gone.

        The latter ends a program, unless it was started with the signal ignored (nohup).
        """
        if self._had_terminal and not _has_terminal():
            self._had_terminal = False
            if self._ignores_hangup:
                _log.info("the terminal was closed")
            else:
                self._on_stop_signal(signal.SIGHUP)
        elif self._code is None:
            self._roll()

    # ---- replacing the workers

    def _roll(self) -> None:
        if self._rolling is not None or not all(slot.was_ready for slot in self._slots):
            self._roll_again = True
            return
        self._roll_again = False
        _log.info("the workers are replaced, one after the other")
        self._rolling = collections.deque(self._slots)
        self._roll_on()

    def _roll_on(self) -> None:
        """Replace the next one, after which this is called again."""
        if not self._rolling:
            self._rolling = None
            _log.info("all workers were replaced")
            if self._roll_again:
                self._roll()
            return
        slot = self._rolling.popleft()
        slot.put_off_restart()
        slot.successor = self._spawn(slot)
        if slot.successor is None:
            self._give_up_roll(slot)

    def _give_up_roll(self, slot: _Slot) -> None:
        _log.error("worker %d is not replaced, nor are those after it", slot.number)
        self._rolling, slot.successor = None, None
        if slot.worker is None:
            self._restart(slot, 0.0)
        if self._roll_again:
            self._roll()


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
