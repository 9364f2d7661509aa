"""The servers that tests of the real world talk to: our own, and those that others wrote."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.real.callers import AsyncCaller, Caller, SyncCaller
from tests.running import SECONDS, running

Start: TypeAlias = Callable[..., str]
Connect: TypeAlias = Callable[..., Caller]

# As our own servers say it, grpc-go's, and etcd 3.4 to 3.6.
_LISTENS = re.compile(r"(?:listening on|serving .*client).*?(127\.0\.0\.1:\d+)", re.IGNORECASE)


@pytest.fixture(scope="module")
def address(engine: str) -> Iterator[str]:
    """The address of `dynserve run examples/route_guide`."""
    with running("examples/route_guide") as address:
        yield address


@pytest.fixture(params=[SyncCaller, AsyncCaller], ids=["sync", "aio"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """A test that asks for this runs with the sync and with the asyncio client."""
    caller: Connect = request.param
    return caller


@pytest.fixture
def folder() -> Callable[[str, str], Path]:
    """The folder that an environment variable names, if it has what is in it.

    Skips the test where it is missing, but fails it in CI.
    """

    def find(variable: str, content: str) -> Path:
        path = Path(os.environ.get(variable, ""), content)
        if variable not in os.environ or not path.exists():
            reason = f"${variable} names no folder with {content} (.ci/run makes one)"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        return Path(os.environ[variable])

    return find


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """``start(*command)``: the address of a server that says it; it runs until the module ends."""
    with contextlib.ExitStack() as servers:
        yield functools.cache(lambda *command: servers.enter_context(_serving(command)))


@contextlib.contextmanager
def _serving(command: tuple[str, ...]) -> Iterator[str]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        output = server.stdout or ()
        # What it says later nobody reads, but it would wait for who does once the pipe is full.
        rest = threading.Thread(target=deque, args=(output, 0))
        try:
            address = _address_in(output)
            rest.start()
            yield address
        finally:
            server.terminate()
            try:
                server.wait(SECONDS)
            finally:
                server.kill()
                if rest.ident is not None:
                    rest.join()


def _address_in(output: Iterable[str]) -> str:
    said = ""
    for line in output:
        said += line
        if found := _LISTENS.search(line):
            return found[1]
    raise AssertionError(f"the server ended before it listened:\n{said}")
