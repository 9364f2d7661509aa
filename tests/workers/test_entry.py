"""The supervisor as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from dynserve.workers.entry import become, become_command, this_command
from dynserve.workers.plan import Plan
from tests.workers.crew import OBEDIENT, ROOT, SECONDS, Crew, program


def test_a_port_that_is_taken_is_an_error_of_the_command() -> None:
    """One line, and the exit code of the error; no worker is started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with Crew("tell('started')", listen=(address,)) as crew:
            assert crew.code() == 1
    port = address.rpartition(":")[2]
    problem = f"port {port} is taken; port 0 lets the system choose"
    assert crew.lines == [f"Error: cannot listen on {address}: {problem}", "(end)"]


def test_a_unix_socket_is_a_wrong_word(tmp_path: Path) -> None:
    """Exit code 2."""
    with Crew("tell('started')", listen=(f"unix:{tmp_path}/socket",)) as crew:
        assert crew.code() == 2
        assert [line.partition(";")[0] for line in crew.lines] == [
            f"Error: cannot listen on unix:{tmp_path}/socket: workers cannot share a unix socket,"
            " of which there is one for each path",
            "(end)",
        ]


def test_a_process_becomes_the_supervisor() -> None:
    """Its pid stays, and so do its output and its environment."""
    plan = Plan(program("tell(os.environ['WORD'])\n" + OBEDIENT), 1, ("127.0.0.1:0",))
    become = f"""
import os
from dynserve.workers.entry import become
from dynserve.workers.plan import Plan
print(os.getpid())
become(Plan.of_json({plan.as_json()!r}), "warning")
"""
    with subprocess.Popen(
        [sys.executable, "-c", become],
        cwd=ROOT,
        env={**os.environ, "WORD": "hello"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines = iter(process.stdout or ())
        said = [next(lines).strip() for _ in range(3)]
        assert said[:2] == [str(process.pid), "fake 1 hello"]
        status = Path(f"/proc/{said[2].split()[-1]}/status").read_text()
        assert f"PPid:\t{process.pid}\n" in status
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        # Nothing of "info"; whether it was heard to be ready before it was told to stop is chance.
        last = [line.strip() for line in lines]
        assert last in (["fake 1 stops: stopping"], ["fake 1 SIGTERM"])


def test_what_was_printed_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output that waits in a buffer is written before the process is another program."""
    steps: list[object] = []

    def execv(path: str, words: list[str]) -> NoReturn:
        steps.append((path, words))
        raise SystemExit

    out = SimpleNamespace(flush=lambda: steps.append("flushed"))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(os, "execv", execv)
    plan = Plan(("program",), 1, ("127.0.0.1:0",))
    with pytest.raises(SystemExit):
        become(plan)
    assert steps == ["flushed", "flushed", (sys.executable, become_command(plan, "info"))]


def test_no_module_of_the_working_directory_is_taken_for_ours(tmp_path: Path) -> None:
    """A plugin's folder may have a json.py; an import path that was added still counts."""
    for name in ("json", "logging", "selectors", "dynserve"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken for ours')\n")
    command = become_command(Plan(("/no/such/program",), 1, ("127.0.0.1:0",)))
    path = json.loads(command[-1])["path"]
    assert str(ROOT) in path or any("site-packages" in folder for folder in path)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "cannot be started" in done.stderr) == (1, True)
    assert "taken for ours" not in done.stderr


def test_this_command_is_what_was_typed() -> None:
    """The interpreter's own options, which a worker needs too, are in it."""
    show = "from dynserve.workers.entry import this_command; print(*this_command(), sep='|')"
    command = [sys.executable, "-X", "dev", "-c", show, "run", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "|".join(command) + "\n"
    assert this_command()[0] == sys.executable


def test_a_supervisor_is_small() -> None:
    """It imports no grpc, no protobuf, no click and no asyncio."""
    show = (
        "import sys, dynserve.workers.entry;"
        " print(sorted({'grpc', 'google', 'click', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", show], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_is_a_fresh_process(workers: int) -> None:
    """Nothing is forked: each has the command's own arguments."""
    with Crew(workers=workers) as crew:
        for number in range(1, workers + 1):
            pid = crew.ready(number) if number == 1 else int(crew.expect(r"fake . ready (\d+)")[1])
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
            assert words == [*program(OBEDIENT)]
        assert crew.stop() == 0
