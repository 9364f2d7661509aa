"""What ends a worker that has lost its supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from dynserve.workers.lifeline import end_without, lifeline
from tests.workers.crew import ROOT, SECONDS, Crew, killed_at_end

WORKER = """
import asyncio, logging, os, signal, sys, time
from dynserve.workers.link import Link

logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
link = Link.of_environment()

def tell(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def hold():
    tell("held")
    while True:
        time.sleep(60)

signal.signal(signal.SIGTERM, lambda *_: tell("SIGTERM"))
tell("pid", os.getpid())
{first}

async def main():
    stopped = asyncio.Event()

    def stop(why):
        tell("stops:", why)
        stopped.set()

    await link.open(heed=lambda statuses: None, stop=stop, cancel=lambda: None)
    link.ready(link.listen)
    {serving}
    await stopped.wait()
    link.close()

asyncio.run(main())
{last}
tell("ended")
"""
SERVES = "tell('serves')"
GONE = "WARNING dynserve.workers: the supervisor is gone, this worker stops"
ENDS = (
    "ERROR dynserve.workers: the supervisor is gone, and this worker has not stopped in {} s:"
    " it ends"
)


def crew_of(stop_seconds: float, first: str = "", serving: str = SERVES, last: str = "") -> Crew:
    """A supervisor with one worker, which has a link on an event loop, and does this."""
    text = WORKER.format(first=first, serving=serving, last=last)
    command = (sys.executable, "-c", text)
    return Crew(workers=1, command=command, stop_seconds=stop_seconds)


@pytest.mark.parametrize(
    ("what", "until", "last"),
    [
        ({"serving": "hold()"}, "held", [ENDS]),
        ({"first": "hold()"}, "held", [ENDS]),
        ({"last": "hold()"}, "serves", [GONE, "stops: stopping", "held", ENDS]),
        # Where the log is held too, the process ends without a word.
        ({"serving": "logging.getLogger().handlers[0].acquire(); hold()"}, "held", []),
    ],
    ids=["serving", "starting", "ending", "logging"],
)
def test_a_worker_that_is_held_ends_after_its_supervisor(
    what: dict[str, str], until: str, last: list[str]
) -> None:
    """In the time of a stop, whatever keeps it; signals do not help it, nor does it need any."""
    with crew_of(0.3, **what) as crew, killed_at_end(int(crew.expect(r"pid (\d+)")[1])):
        crew.expect(until)
        crew.signal(signal.SIGKILL)
        assert crew.code() == -signal.SIGKILL  # all that had its output have ended
        at = len(crew.lines) - 1 - len(last)
        assert crew.lines[at:] == [*(line.format("0.3") for line in last), "(end)"]


def test_a_worker_that_stops_in_its_time_ends_as_always() -> None:
    """The end of the supervisor is a graceful stop."""
    with crew_of(60.0) as crew, killed_at_end(int(crew.expect(r"pid (\d+)")[1])):
        crew.expect("serves")
        crew.signal(signal.SIGKILL)
        assert crew.code() == -signal.SIGKILL
        assert crew.lines[-4:] == [GONE, "stops: stopping", "ended", "(end)"]


def test_a_worker_that_is_held_goes_on_while_its_supervisor_does() -> None:
    """Longer than a stop may take: it was not told to stop."""
    with crew_of(0.2, serving="time.sleep(1.0); tell('goes on')") as crew:
        crew.expect("goes on")
        assert crew.stop() == 0
        assert [line for line in crew.lines if "ERROR" in line] == []


def test_the_process_ends_with_a_failure() -> None:
    """Exit code 1, which is not that of a graceful stop."""
    program = """
import os, time
from dynserve.workers.lifeline import end_without
reader, writer = os.pipe()
end_without(reader, 0.1)
os.close(writer)
time.sleep(60)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=ROOT, timeout=SECONDS, capture_output=True, text=True, check=False
    )
    told = "the supervisor is gone, and this worker has not stopped in 0.1 s: it ends\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_it_waits_for_the_end_of_whoever_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for anything else; no other process may have the end to write to."""
    codes, ended = list[int](), threading.Event()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    monkeypatch.setattr("dynserve.workers.lifeline.os._exit", end)
    with lifeline() as file:
        assert [os.get_inheritable(one) for one in (file, file + 1)] == [False, False]
        kept = os.dup(file)
        end_without(kept, 0.0)
        threads = [one for one in threading.enumerate() if one.name == "dynserve-lifeline"]
        assert [(one.daemon, one.is_alive()) for one in threads] == [(True, True)]
        assert (codes, ended.wait(0.1)) == ([], False)
    assert (ended.wait(SECONDS), codes) == (True, [1])
    threads[0].join(SECONDS)
    os.close(kept)
