"""The supervisor: starting, restarting, stopping; with workers that are a few lines of Python."""

from __future__ import annotations

import os
import pty
import signal
import sys
from pathlib import Path
from typing import IO

import pytest

from dynserve.workers.entry import become_command
from dynserve.workers.plan import Plan
from tests.workers.crew import OBEDIENT, Crew, killed_at_end, program

INFO, WARNING, ERROR = (f"{level} dynserve.workers: " for level in ("INFO", "WARNING", "ERROR"))
READY = INFO + "worker {} (pid) is ready on PORT"
HEARD = ("hears", "alone")


def test_the_first_worker_is_started_alone_then_the_others() -> None:
    """So that a mistake is said once; and a stop ends all, with exit code 0."""
    with Crew("tell('first' if told['first'] else 'later')\n" + OBEDIENT, workers=3) as crew:
        crew.ready(1)
        for _ in range(2):
            crew.expect(INFO + "worker [23] .* is ready .*")
        told = crew.told()
        before, after = told[:3], sorted(told[3:])
        ports = {line.partition(" is ready on ")[2].partition(",")[0] for line in crew.lines} - {""}
        code = crew.stop()
        ended = sorted(crew.told(without=HEARD)[len(told) :])
    assert before == ["fake 1 first", "fake 1 ready (pid)", READY.format(1)]
    assert after == [
        READY.format(2),
        READY.format(3),
        "fake 2 later",
        "fake 2 ready (pid)",
        "fake 3 later",
        "fake 3 ready (pid)",
    ]
    assert (code, len(ports)) == (0, 1)
    assert ended == [
        "(end)",
        f"{INFO}SIGTERM: the workers stop",
        *(f"{INFO}worker {number} (pid) ended with exit code 0" for number in (1, 2, 3)),
        *(f"fake {number} stops: stopping" for number in (1, 2, 3)),
    ]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("os.kill(os.getpid(), 40)", "was killed by signal 40"),
        ("os._exit(3)", "ended with exit code 3"),
        ("os._exit(0)", "ended with exit code 0"),
    ],
)
def test_a_worker_that_ends_is_started_again(tmp_path: Path, end: str, told: str) -> None:
    """However it ended; at once; the log says how; the others go on."""
    once = tmp_path / "once"
    body = f"""
be_ready()
if number == 2 and not os.path.exists({str(once)!r}):
    open({str(once)!r}, "w").close()
    {end}
tell_all()
"""
    with Crew(body) as crew:
        crew.ready(1)
        first = crew.ready(2)
        crew.expect(rf"{WARNING}worker 2 \(pid {first}\) {told}")
        crew.expect(WARNING + "worker 2 is started again at once")
        assert crew.ready(2) != first
        assert crew.stop() == 0
        assert crew.told().count("fake 1 ready (pid)") == 1


def test_a_worker_that_keeps_ending_is_started_less_and_less_often(tmp_path: Path) -> None:
    """Also where it was not even ready, once its place has had one that was."""
    once = tmp_path / "once"
    body = f"""
if number == 2 and os.path.exists({str(once)!r}):
    sys.exit(1)
if number == 2:
    open({str(once)!r}, "w").close()
be_ready()
number == 2 and sys.exit(1)
tell_all()
"""
    with Crew(body) as crew:
        for when in ("at once", "in 0.5 s", "in 1 s"):
            crew.expect(WARNING + f"worker 2 is started again {when}")
        assert crew.stop() == 0


@pytest.mark.parametrize(
    ("end", "told", "code"),
    [
        ("sys.exit(3)", "ended with exit code 3", 3),
        ("sys.exit(0)", "ended with exit code 0", 0),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL", 137),
    ],
)
def test_a_worker_that_ends_before_any_was_ready_ends_it_all(
    end: str, told: str, code: int
) -> None:
    """With its exit code: a mistake in a plugin does not loop, and is said once."""
    with Crew(f"tell('started')\n{end}", workers=4) as crew:
        assert crew.code() == code
        assert crew.told() == [
            "fake 1 started",
            f"{ERROR}worker 1 (pid) {told} before it was ready; no other is started",
            "(end)",
        ]


def test_a_later_worker_that_is_never_ready_stops_the_others() -> None:
    """The same where the first worker does start."""
    with Crew("number == 2 and sys.exit(7)\n" + OBEDIENT) as crew:
        assert crew.code() == 7
        told = crew.told(without=HEARD)
    assert [line for line in told if "is ready on" not in line] == [
        "fake 1 ready (pid)",
        f"{ERROR}worker 2 (pid) ended with exit code 7 before it was ready; no other is started",
        "fake 1 stops: stopping",
        f"{INFO}worker 1 (pid) ended with exit code 0",
        "(end)",
    ]


def test_a_worker_that_hangs_at_its_start_is_killed() -> None:
    """After the time that it has to become ready; at the first start that ends it all, with 1."""
    with Crew("time.sleep(60)", start_seconds=0.3) as crew:
        assert crew.code() == 1
        assert crew.told() == [
            f"{ERROR}worker 1 (pid) was not ready within 0.3 s and is killed",
            f"{ERROR}worker 1 (pid) was killed by SIGKILL before it was ready; no other is started",
            "(end)",
        ]


def test_a_command_that_cannot_be_started_is_said() -> None:
    """In the system's words, with exit code 1."""
    with Crew(command=("/no/such/program",)) as crew:
        assert crew.code() == 1
        problem = "[Errno 2] No such file or directory: '/no/such/program'"
        assert crew.told() == [f"{ERROR}worker 1 cannot be started: {problem}", "(end)"]


def test_a_command_that_is_gone_later_is_tried_again(tmp_path: Path) -> None:
    """A worker that the system does not start is like one that ended."""
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    with Crew(command=(str(link), *program(OBEDIENT)[1:]), workers=1) as crew:
        pid = crew.ready(1)
        link.unlink()
        os.kill(pid, signal.SIGKILL)
        crew.expect(ERROR + r"worker 1 cannot be started: \[Errno 2\] .*")
        crew.expect(WARNING + "worker 1 is started again in 0.5 s")
        link.symlink_to(sys.executable)
        crew.ready(1)
        assert crew.stop() == 0


STUBBORN = """
def on_stop(why):
    tell("does not stop:", why)
be_ready()
tell_all()
while True:
    signal.pause()
"""


@pytest.mark.parametrize(
    ("number", "why"), [(signal.SIGTERM, "stopping"), (signal.SIGINT, "interrupted")]
)
def test_the_second_signal_cancels_and_the_third_kills(number: signal.Signals, why: str) -> None:
    """What the workers are told: to stop, to cancel; then they are killed. 128 + N, as shells."""
    with Crew(STUBBORN, workers=1) as crew:
        crew.ready(1)
        crew.signal(number)
        crew.expect(f"fake 1 does not stop: {why}")
        crew.signal(number)
        crew.expect('fake 1 hears {"cancel": true}')
        crew.signal(number)
        assert crew.code() == 128 + number
        assert crew.told()[2:] == [
            f"{INFO}{number.name}: the workers stop",
            f"fake 1 does not stop: {why}",
            f"{INFO}{number.name} again: the workers cancel their calls",
            'fake 1 hears {"cancel": true}',
            f"{WARNING}{number.name} once more: the workers are killed",
            f"{WARNING}worker 1 (pid) was killed by SIGKILL",
            "(end)",
        ]


def test_a_signal_to_the_whole_group_counts_once() -> None:
    """Ctrl-C in a terminal goes to all processes of a group; workers have a group of their own."""
    with Crew(workers=1) as crew:
        pid = crew.ready(1)
        assert os.getpgid(pid) == pid
        os.killpg(crew.process.pid, signal.SIGINT)
        assert crew.code() == 0
        assert crew.told(without=HEARD)[2:] == [
            f"{INFO}SIGINT: the workers stop",
            "fake 1 stops: interrupted",
            f"{INFO}worker 1 (pid) ended with exit code 0",
            "(end)",
        ]


def test_a_stop_before_the_first_worker_is_ready_is_no_failure() -> None:
    """It ends by SIGTERM, as it has no handler yet."""
    body = "signal.signal(signal.SIGTERM, signal.SIG_DFL)\ntell('started')\ntime.sleep(60)"
    with Crew(body) as crew:
        crew.expect("fake 1 started")
        assert crew.stop() == 0
        assert crew.told() == [
            "fake 1 started",
            f"{INFO}SIGTERM: the workers stop",
            f"{INFO}worker 1 (pid) was killed by SIGTERM",
            "(end)",
        ]


def test_a_worker_that_fails_to_stop_shows_in_the_exit_code() -> None:
    """1, and a warning in the log."""
    body = "on_stop = lambda why: os._exit(5)\n" + OBEDIENT
    with Crew(body, workers=1) as crew:
        crew.ready(1)
        assert crew.stop() == 1
        crew.expect(WARNING + r"worker 1 \(pid \d+\) ended with exit code 5")


def test_a_worker_that_does_not_stop_in_its_time_is_killed() -> None:
    """With a warning, and exit code 1."""
    with Crew(STUBBORN, workers=1, stop_seconds=0.3) as crew:
        crew.ready(1)
        assert crew.stop() == 1
        crew.expect(WARNING + r"worker 1 \(pid \d+\) has not ended within 0.3 s and is killed")
        crew.expect(WARNING + r"worker 1 \(pid \d+\) was killed by SIGKILL")


def test_a_worker_whose_restart_is_due_is_not_started_while_all_stop() -> None:
    """The stop takes back what was to come."""
    body = "be_ready()\nif number == 2: os._exit(1)\ntell_all()"
    with Crew(body) as crew:
        crew.expect(WARNING + "worker 2 is started again in 1 s")
        assert crew.stop() == 0
        assert crew.told().count("fake 2 ready (pid)") == 3


def test_workers_stop_when_their_supervisor_was_killed() -> None:
    """No orphans: the end of the channel is the end of the worker."""
    with Crew() as crew:
        with killed_at_end(crew.ready(1)), killed_at_end(crew.ready(2)):
            crew.signal(signal.SIGKILL)
            assert crew.code() == -signal.SIGKILL  # it reads on until the workers have ended, too
        assert sorted(crew.told()[-3:]) == ["(end)", "fake 1 alone", "fake 2 alone"]


def test_sigusr1_goes_to_workers_that_are_ready() -> None:
    """One that is not would be killed by it: it has no handler."""
    body = """
if number == 2:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tell("starts")
    time.sleep(60)
signal.signal(signal.SIGUSR1, lambda *_: tell("SIGUSR1"))
"""
    with Crew(body + OBEDIENT) as crew:
        crew.ready(1)
        crew.expect("fake 2 starts")
        crew.signal(signal.SIGUSR1)
        crew.expect("fake 1 SIGUSR1")
        assert crew.stop() == 0
        crew.expect(INFO + r"worker 2 \(pid \d+\) was killed by SIGTERM")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"nonsense\n", "no message: b'nonsense'"),
        (b'{"health": {"a": "b"}}\n', 'no message: b\'{"health": {"a": "b"}}\''),
    ],
)
def test_a_worker_that_talks_nonsense_is_replaced(
    tmp_path: Path, said: bytes, problem: str
) -> None:
    """The channel is closed, which the worker takes for the end of its supervisor."""
    once = tmp_path / "once"
    body = f"""
be_ready()
if not os.path.exists({str(once)!r}):
    open({str(once)!r}, "w").close()
    end.sendall({said!r})
tell_all()
"""
    with Crew(body, workers=1) as crew:
        pid = crew.ready(1)
        told = crew.expect(ERROR + r"(worker 1 \(pid \d+\) said .*)")[1]
        what = "said what nobody understands, and is to stop: "
        assert told == f"worker 1 (pid {pid}) {what}{problem}"
        crew.expect("fake 1 alone")
        crew.expect(WARNING + r"worker 1 \(pid \d+\) ended with exit code 0")
        assert (crew.ready(1) != pid, crew.stop()) == (True, 0)


@pytest.mark.parametrize("is_ignored", [False, True], ids=["default", "nohup"])
def test_a_terminal_that_is_closed_ends_the_program(is_ignored: bool) -> None:
    """Its SIGHUP is no request to replace workers; under nohup it is nothing at all."""
    command = become_command(Plan(program(OBEDIENT), 1, ("127.0.0.1:0",)))
    reader, writer = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        if is_ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execv(command[0], command)
    os.close(writer)
    with killed_at_end(pid), os.fdopen(reader) as log:
        said = until(log, "is ready")
        os.close(terminal)
        if is_ignored:
            said += until(log, "the terminal was closed")
            os.kill(pid, signal.SIGHUP)  # now it is a request
            said += until(log, "all workers were replaced")
            os.kill(pid, signal.SIGTERM)
        said += log.readlines()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    name = "SIGTERM" if is_ignored else "SIGHUP"
    stops = [line for line in said if line.endswith(f"{name}: the workers stop\n")]
    replaced = [line for line in said if line.endswith("all workers were replaced\n")]
    assert (len(stops), len(replaced)) == (1, int(is_ignored))


def until(log: IO[str], text: str) -> list[str]:
    """Read to the line that has this text."""
    lines: list[str] = []
    while text not in "".join(lines[-1:]):
        lines.append(log.readline())
        assert lines[-1], f"{text!r} was not said, but {lines}"
    return lines
