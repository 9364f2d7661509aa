"""The metrics of all workers, at one address."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the extra 'prometheus'")

from dynserve.observe.metrics_server import MetricsServer
from dynserve.workers.metrics import metrics_served
from tests.workers.crew import Crew

FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@pytest.mark.parametrize("before", [None, "/elsewhere"])
def test_workers_write_into_a_folder_of_their_own(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone in the end, also where one still writes, and the environment is as it was."""
    if before is None:
        monkeypatch.delenv(FOLDER, raising=False)
    else:
        monkeypatch.setenv(FOLDER, before)
    with metrics_served("127.0.0.1:0") as process_ended:
        folder = Path(os.environ[FOLDER])
        assert folder.is_dir()
        process_ended(1)
    assert (os.environ.get(FOLDER), folder.exists()) == (before, False)


def test_without_an_address_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, and nothing to do when a process ends."""
    monkeypatch.delenv(FOLDER, raising=False)
    with metrics_served(None) as process_ended:
        process_ended(1)
        assert FOLDER not in os.environ


def test_metrics_end_no_supervisor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong with what a process has left is only logged."""

    def fail(_server: MetricsServer, _pid: int) -> None:
        raise RuntimeError("torn")

    monkeypatch.setattr(MetricsServer, "process_ended", fail)
    with metrics_served("127.0.0.1:0") as process_ended:
        process_ended(77)
    (record,) = (one for one in caplog.records if one.name == "dynserve.workers")
    assert record.getMessage() == "the metrics of process 77 cannot be kept"
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "torn"


def test_a_worker_that_leaves_a_torn_file_is_started_again(tmp_path: Path) -> None:
    """One killed while it made a file, say: the supervisor goes on, and so do the others."""
    once = tmp_path / "once"
    body = f"""
be_ready()
if number == 2 and not os.path.exists({str(once)!r}):
    open({str(once)!r}, "w").close()
    open(os.environ["{FOLDER}"] + f"/counter_{{os.getpid()}}.db", "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
tell_all()
"""
    with Crew(body, metrics="127.0.0.1:0") as crew:
        crew.ready(1)
        pid = crew.ready(2)
        file = rf".*/dynserve-metrics-\w+/counter_{pid}\.db"
        crew.expect(
            rf"WARNING dynserve\.metrics: {file} cannot be read, what it counts is lost: .*"
        )
        crew.expect(r"WARNING dynserve\.workers: worker 2 \(pid \d+\) was killed by SIGKILL")
        crew.ready(2)
        assert (crew.stop(), crew.told().count("fake 1 ready (pid)")) == (0, 1)
