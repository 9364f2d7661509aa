"""SIGHUP: the workers are replaced one after the other; and what they tell each other of health."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.workers.crew import OBEDIENT, Crew, program

INFO, WARNING, ERROR = (f"{level} dynserve.workers: " for level in ("INFO", "WARNING", "ERROR"))
BEGIN, END = (
    f"{INFO}the workers are replaced, one after the other",
    f"{INFO}all workers were replaced",
)
READY = INFO + "worker {} (pid) is ready on PORT"
ENDED = INFO + "worker {} (pid) ended with exit code 0"
QUIET = ("hears", "alone")


def rolled(crew: Crew) -> list[str]:
    """What was told from the first SIGHUP to the signal to stop, of health nothing."""
    told = crew.told(without=QUIET)
    return told[told.index(BEGIN) : told.index(INFO + "SIGTERM: the workers stop")]


def test_each_worker_is_replaced_when_its_successor_is_ready() -> None:
    """One after the other: start, ready, the old one is told so, its end; then the next."""
    with Crew() as crew:
        old = {crew.ready(1), crew.ready(2)}
        crew.signal(signal.SIGHUP)
        new = {crew.ready(1), crew.ready(2)}
        crew.expect(re.escape(END))
        assert (crew.stop(), old & new) == (0, set())
        assert rolled(crew) == [
            BEGIN,
            *(
                line.format(number)
                for number in (1, 2)
                for line in ("fake {} ready (pid)", READY, "fake {} stops: replaced", ENDED)
            ),
            END,
        ]


def test_a_signal_while_workers_are_replaced_is_remembered_as_one(tmp_path: Path) -> None:
    """However many come: they are replaced once more, after this."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    body = f"""
def on_stop(why):
    tell("stops:", why)
    open({str(gate)!r}).read()
    sys.exit(0)
"""
    with Crew(body + OBEDIENT, workers=1) as crew:
        crew.ready(1)
        crew.signal(signal.SIGHUP)
        crew.expect("fake 1 stops: .*")
        for _ in range(3):
            crew.signal(signal.SIGHUP)
        gate.write_text("")
        crew.expect(re.escape(BEGIN))
        crew.expect("fake 1 stops: .*")
        gate.write_text("")
        crew.expect(re.escape(END))
        crew.signal(signal.SIGTERM)
        crew.expect("fake 1 stops: .*")
        gate.write_text("")
        assert crew.code() == 0
        once = [
            BEGIN,
            "fake 1 ready (pid)",
            READY.format(1),
            "fake 1 stops: replaced",
            ENDED.format(1),
            END,
        ]
        assert rolled(crew) == [*once, *once]


def test_a_signal_before_all_are_ready_is_remembered(tmp_path: Path) -> None:
    """The workers are replaced once they are there."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    body = f"if told['first']:\n    tell('starts')\n    open({str(gate)!r}).read()\n"
    with Crew(body + OBEDIENT) as crew:
        crew.expect("fake 1 starts")
        crew.signal(signal.SIGHUP)
        crew.signal(signal.SIGUSR1)  # goes to none: it would be killed
        gate.write_text("")
        crew.expect(re.escape(END))
        assert crew.stop() == 0
        assert crew.told().count(BEGIN) == 1


def test_where_a_successor_fails_the_old_workers_stay(tmp_path: Path) -> None:
    """The log says so; when what was wrong is put right, SIGHUP replaces them."""
    broken = tmp_path / "broken"
    with Crew(f"os.path.exists({str(broken)!r}) and sys.exit(4)\n" + OBEDIENT) as crew:
        old = crew.ready(1), crew.ready(2)
        broken.touch()
        crew.signal(signal.SIGHUP)
        crew.expect(ERROR + "worker 1 is not replaced, nor are those after it")
        os.kill(old[0], 0)
        os.kill(old[1], 0)
        assert crew.told(without=QUIET)[4:] == [
            BEGIN,
            f"{ERROR}worker 1 (pid) ended with exit code 4 before it was ready",
            f"{ERROR}worker 1 is not replaced, nor are those after it",
        ]
        broken.unlink()
        crew.signal(signal.SIGHUP)
        crew.expect(re.escape(END))
        assert crew.stop() == 0


def test_where_a_successor_hangs_the_old_workers_stay() -> None:
    """It is killed after the time that it has to become ready."""
    body = "told['first'] or time.sleep(60)\n" + OBEDIENT
    with Crew(body, workers=1, start_seconds=0.5) as crew:
        crew.ready(1)
        crew.signal(signal.SIGHUP)
        crew.expect(ERROR + "worker 1 is not replaced, nor are those after it")
        assert crew.stop() == 0
        assert rolled(crew) == [
            BEGIN,
            f"{ERROR}worker 1 (pid) was not ready within 0.5 s and is killed",
            f"{ERROR}worker 1 (pid) was killed by SIGKILL before it was ready",
            f"{ERROR}worker 1 is not replaced, nor are those after it",
        ]


def test_an_old_worker_that_does_not_end_is_killed() -> None:
    """With a warning; then the next is replaced."""
    body = "on_stop = lambda why: number == 1 or sys.exit(0)\n" + OBEDIENT
    with Crew(body + "\nwhile number == 1: signal.pause()", stop_seconds=0.4) as crew:
        old = crew.ready(1)
        crew.ready(2)
        crew.signal(signal.SIGHUP)
        crew.expect(rf"{WARNING}worker 1 \(pid {old}\) has not ended within 0.4 s and is killed")
        crew.expect(rf"{WARNING}worker 1 \(pid {old}\) was killed by SIGKILL")
        crew.expect(re.escape(END))
        assert crew.stop() == 1  # the new one does not end either


@pytest.mark.parametrize("fails", [False, True])
def test_an_old_worker_may_die_while_its_successor_starts(tmp_path: Path, fails: bool) -> None:
    """The successor is the one to start; where it fails, another is."""
    gate, once = tmp_path / "gate", tmp_path / "once"
    os.mkfifo(gate)
    body = f"""
if not told['first'] and not os.path.exists({str(once)!r}):
    open({str(once)!r}, "w").close()
    tell("starts")
    open({str(gate)!r}).read()
    {fails} and sys.exit(1)
"""
    with Crew(body + OBEDIENT, workers=1) as crew:
        old = crew.ready(1)
        crew.signal(signal.SIGHUP)
        crew.expect("fake 1 starts")
        os.kill(old, signal.SIGKILL)
        crew.expect(WARNING + "worker 1 .* was killed by SIGKILL")
        gate.write_text("")
        crew.ready(1)
        assert crew.stop() == 0
        ending = ["fake 1 ready (pid)", READY.format(1), END]
        if fails:
            ending = [
                f"{ERROR}worker 1 (pid) ended with exit code 1 before it was ready",
                f"{ERROR}worker 1 is not replaced, nor are those after it",
                f"{WARNING}worker 1 is started again at once",
                "fake 1 ready (pid)",
                READY.format(1),
            ]
        killed = f"{WARNING}worker 1 (pid) was killed by SIGKILL"
        assert rolled(crew) == [BEGIN, "fake 1 starts", killed, *ending]


def test_a_successor_that_cannot_be_started_leaves_the_old_worker(tmp_path: Path) -> None:
    """That the system starts no process is no reason to end one."""
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    with Crew(command=(str(link), *program(OBEDIENT)[1:]), workers=1) as crew:
        crew.ready(1)
        link.unlink()
        crew.signal(signal.SIGHUP)
        crew.expect(ERROR + "worker 1 is not replaced, nor are those after it")
        assert crew.stop() == 0
        assert rolled(crew) == [
            BEGIN,
            f"{ERROR}worker 1 cannot be started: [Errno 2] No such file or directory: '{link}'",
            f"{ERROR}worker 1 is not replaced, nor are those after it",
        ]


def test_a_signal_while_a_successor_fails_is_remembered_too(tmp_path: Path) -> None:
    """Whoever put the program right meanwhile need not ask again."""
    gate, broken = tmp_path / "gate", tmp_path / "broken"
    os.mkfifo(gate)
    broken.touch()
    body = f"""
if not told["first"]:
    tell("starts")
    open({str(gate)!r}).read()
    os.path.exists({str(broken)!r}) and sys.exit(4)
"""
    with Crew(body + OBEDIENT, workers=1) as crew:
        crew.ready(1)
        crew.signal(signal.SIGHUP)
        crew.expect("fake 1 starts")
        crew.signal(signal.SIGHUP)
        gate.write_text("")
        crew.expect("fake 1 starts")
        broken.unlink()
        gate.write_text("")
        crew.expect(re.escape(END))
        assert crew.stop() == 0
        failed = f"{ERROR}worker 1 (pid) ended with exit code 4 before it was ready"
        given_up = f"{ERROR}worker 1 is not replaced, nor are those after it"
        assert rolled(crew)[:5] == [BEGIN, "fake 1 starts", failed, given_up, BEGIN]


def test_a_worker_that_waits_for_its_restart_is_replaced_at_once(tmp_path: Path) -> None:
    """Its wait is over: the program may have been put right."""
    broken = tmp_path / "broken"
    body = (
        f"be_ready()\nos.path.exists({str(broken)!r}) and number == 2 and sys.exit(1)\ntell_all()"
    )
    with Crew(body) as crew:
        crew.ready(1)
        pid = crew.ready(2)
        broken.touch()
        os.kill(pid, signal.SIGKILL)
        crew.expect(WARNING + "worker 2 is started again in 1 s")
        broken.unlink()
        crew.signal(signal.SIGHUP)
        crew.expect(re.escape(END))
        assert crew.stop() == 0
        told = rolled(crew)
    assert [line for line in told if " 2 " in line] == ["fake 2 ready (pid)", READY.format(2)]


# ---- health


def test_what_a_worker_says_of_health_is_told_to_the_others() -> None:
    """Not to itself, who knows; and no longer once it has ended. A new worker hears it first."""
    body = """
first = next(heard)
tell("hears first", json.dumps(first))
if told["first"]:
    say("health", {"pkg.Shop": False, "": True})
tell("ready", os.getpid())
say("ready", told["listen"])
tell_all()
"""
    with Crew(body) as crew:
        speaker = crew.ready(1)
        listener = crew.ready(2)
        os.kill(listener, signal.SIGKILL)
        crew.ready(2)
        os.kill(speaker, signal.SIGKILL)
        crew.ready(1)
        assert crew.stop() == 0
        told = [line for line in crew.told() if "health" in line]
    said = '{"health": {"pkg.Shop": false, "": true}}'
    assert told == [
        'fake 1 hears first {"health": {}}',
        f"fake 2 hears first {said}",
        f"fake 2 hears first {said}",
        'fake 2 hears {"health": {}}',
        'fake 1 hears first {"health": {}}',
    ]


def test_a_worker_that_is_told_to_stop_says_nothing_of_health_any_more() -> None:
    """It serves no new calls; that its successor is well is what counts."""
    body = """
first = next(heard)
tell("ready", os.getpid())
say("ready", told["listen"])
if told["first"]:
    say("health", {"": False})
tell_all()
"""
    with Crew(body) as crew:
        crew.ready(1)
        crew.expect('fake 2 hears {"health": {"": false}}|fake 2 ready .*')
        crew.expect(rf"{INFO}worker 2 \(pid \d+\) is ready .*")
        crew.signal(signal.SIGHUP)
        crew.expect('fake 2 hears {"health": {}}')
        crew.expect(re.escape(END))
        assert crew.stop() == 0


def test_a_worker_that_does_not_read_hears_the_newest() -> None:
    """What waits for it is bounded: the state of health, not its history."""
    body = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
if number == 1:
    next(heard)
    tell("ready", os.getpid())
    say("ready", told["listen"])
    signal.sigwait({signal.SIGUSR1})  # and does not read before
    for message in heard:
        if message.get("health") == {"last": False}:
            tell("heard the last")
            break
    tell_all()
else:
    next(heard)
    tell("ready", os.getpid())
    say("ready", told["listen"])
    for count in range(3000):
        say("health", {f"pkg.Service{count}{'x' * 500}": False})
    say("health", {"last": False})
    tell("said it")
    tell_all()
"""
    with Crew(body) as crew:
        crew.ready(1)
        crew.ready(2)
        crew.expect("fake 2 said it")
        crew.signal(signal.SIGUSR1)
        crew.expect("fake 1 heard the last")
        assert crew.stop() == 0
