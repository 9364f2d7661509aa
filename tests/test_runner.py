"""Running a server as a program does: signals while it starts, and while it stops."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.echo import ECHO

pytestmark = pytest.mark.usefixtures("engine")

WAIT = 20.0
PROGRAM = f"""
import asyncio
from dynserve import App

app = App({ECHO!r})


@app.lifespan
async def lifespan():
    print("starting", flush=True)
    try:
        await asyncio.sleep(3600)
    finally:
        print("given up", flush=True)
    yield


app.run("127.0.0.1:0")
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start(number: int) -> None:
    """It does not have to be waited for; what had begun is cleaned up, and the exit code is 0."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "starting\n"
            process.send_signal(number)
            rest, _ = process.communicate(timeout=WAIT)
            assert (rest, process.returncode) == ("given up\nended\n", 0)
        finally:
            process.kill()
