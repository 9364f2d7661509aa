"""Where the access log goes: to standard error, unless somebody has said where."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dynserve.equipment import access_log_shown
from dynserve.settings import Settings
from tests.echo import ECHO, Item
from tests.running import ROOT

WAIT = 20

PROGRAM = f"""
import logging, sys
from dynserve import App
app = App({ECHO!r})

@app.rpc("echo.Echo/Unary")
def unary(request):
    if request.number == 2:
        raise ValueError("secret")
    return request
SETUP
if __name__ == "__main__":
    app.run("127.0.0.1:0", access_log="FORMAT", grace=1)
"""
CONFIGURED = """
logging.basicConfig(stream=sys.stdout, format="root %(message)s")
logger = logging.getLogger("LOGGER")
logger.setLevel(logging.INFO)
handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(logging.Formatter("own %(method)s %(code)s"))
handler.addFilter(logging.Filter("dynserve.access"))
logger.addHandler(handler)
logger.propagate = False
"""


@contextlib.contextmanager
def process(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server that is ended, whatever happens."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def outputs_of(command: list[str], folder: Path, *numbers: int) -> tuple[list[str], list[str]]:
    """What a server prints to its two outputs after it listens, when it is called with these."""
    told = "stderr" if command[1] != "-m" else "stdout"
    with process(command, folder) as server:
        stream = getattr(server, told)
        while not (line := stream.readline()).startswith("Listening on "):
            assert line, server.communicate()
        address = line.split()[-1]
        with grpc.insecure_channel(address) as channel:
            call: Any = channel.unary_unary("/echo.Echo/Unary")
            for number in numbers:
                with contextlib.suppress(grpc.RpcError):
                    call(
                        Item(number=number).SerializeToString(),
                        timeout=WAIT,
                        metadata=[("x-request-id", f"r-{number}")],
                    )
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=WAIT)
        assert server.returncode == 0
    return out.splitlines(), err.splitlines()


def test_text_goes_to_standard_error(tmp_path: Path, engine: str) -> None:
    """Where nobody has said where: one line a call, with the time and the level."""
    (tmp_path / "program.py").write_text(PROGRAM.replace("FORMAT", "text").replace("SETUP", ""))
    out, err = outputs_of([sys.executable, "program.py"], tmp_path, 1, 2)
    lines = [line for line in err if "dynserve.access" in line]
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert len(lines) == 2
    assert re.fullmatch(
        rf"{time} INFO dynserve\.access: method=echo\.Echo/Unary code=OK .* request_id=r-1 .*",
        lines[0],
    )
    assert re.fullmatch(
        rf"{time} WARNING dynserve\.access: method=echo\.Echo/Unary code=INTERNAL .*"
        r" request_id=r-2 error_id=[0-9a-f]{16} .*",
        lines[1],
    )
    assert not any("dynserve.access" in line for line in out)


@pytest.mark.parametrize("how", ["program", "plugin"])
def test_json_is_an_object_a_line(tmp_path: Path, how: str) -> None:
    """By ``app.run`` and by ``dynserve run``: each line of a call is one, for whatever reads it."""
    (tmp_path / "program.py").write_text(PROGRAM.replace("FORMAT", "json").replace("SETUP", ""))
    command = [sys.executable, "program.py"]
    if how == "plugin":
        command = [sys.executable, "-m", "dynserve", "run", "program.py", "--access-log", "json"]
        command += ["--listen", "127.0.0.1:0"]
    _, err = outputs_of(command, tmp_path, 1, 3)
    lines = [json.loads(line) for line in err if line.startswith("{")]
    assert [(line["method"], line["code"], line["request_id"]) for line in lines] == [
        ("echo.Echo/Unary", "OK", "r-1"),
        ("echo.Echo/Unary", "OK", "r-3"),
    ]
    assert sum("echo.Echo/Unary" in line for line in err) == 2  # not once more by the root logger


@pytest.mark.parametrize("name", ["dynserve.access", "dynserve"])
def test_a_configured_logger_has_the_lines(tmp_path: Path, name: str) -> None:
    """That of the access log, or of the package: then nothing of them goes to standard error."""
    configured = CONFIGURED.replace("LOGGER", name)
    text = PROGRAM.replace("FORMAT", "json").replace("SETUP", configured)
    (tmp_path / "program.py").write_text(text)
    out, err = outputs_of([sys.executable, "program.py"], tmp_path, 1, 3)
    assert out == ["own echo.Echo/Unary OK"] * 2
    assert [line for line in err if "echo.Echo" in line] == []


@pytest.mark.parametrize("format", ["text", "json"])
def test_the_logger_is_left_as_it_was(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A server in somebody's program changes its logging only as long as it runs."""
    logger = logging.getLogger("dynserve.access")
    before = logger.level, logger.propagate, list(logger.handlers)
    with access_log_shown(Settings({"access_log": format}, environ={})):
        assert (logger.isEnabledFor(logging.INFO), logger.propagate) == (True, False)
        logger.info("seen")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
    assert "seen" in capsys.readouterr().err
    with access_log_shown(Settings({}, environ={})):
        assert (logger.level, logger.propagate, list(logger.handlers)) == before
