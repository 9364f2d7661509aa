"""A worker's end: what its supervisor tells it, and what it tells the supervisor."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dynserve.engines import new_event_loop
from dynserve.workers.channel import VARIABLE, Channel, Message, Received
from dynserve.workers.link import Link

pytestmark = pytest.mark.usefixtures("engine")

TOLD = {"number": 2, "of": 4, "file": -1, "listen": ["127.0.0.1:50051"], "first": False}
SECONDS = 20


class Heard:
    """What a link has called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.changed = asyncio.Event()

    def __call__(self, *what: Any) -> None:
        self.calls.append(what)
        self.changed.set()

    async def wait_for(self, *calls: Any) -> None:
        """Until it was called like this."""
        while self.calls != [*calls]:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), SECONDS)

    async def open(self, link: Link) -> None:
        """Open the link, to be called by it."""
        await link.open(
            heed=lambda statuses: self("heed", statuses),
            stop=lambda why: self("stop", why),
            cancel=lambda: self("cancel"),
        )


Test = Callable[[Link, Channel, Heard], Awaitable[None]]


def run(test: Test) -> None:
    """Run it on the loop that a server would run on, with a link and its other end."""

    async def main() -> None:
        ours, its = socket.socketpair()
        with ours, its:
            link = Link(Channel(its), TOLD)
            try:
                await test(link, Channel(ours), Heard())
            finally:
                link.close()

    loop = new_event_loop(os.environ["DYNSERVE_ENGINE"])
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_process_that_no_supervisor_started_has_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment tells."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Link.of_environment() is None


def test_a_worker_knows_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: what it starts itself is no worker, nor has it its channel; and it is watched."""
    watched: list[tuple[int, float]] = []
    monkeypatch.setattr("dynserve.workers.link.end_without", lambda *told: watched.append(told))
    ours, its = socket.socketpair()
    file, broken = its.detach(), os.dup(ours.fileno())
    told = {**TOLD, "file": file, "first": True, "lifeline": broken, "stop_seconds": 2.5}
    for one in (file, broken):
        os.set_inheritable(one, True)
    monkeypatch.setenv(VARIABLE, json.dumps(told))
    link = Link.of_environment()
    assert link is not None
    assert (link.number, link.workers, link.listen) == (2, 4, ("127.0.0.1:50051",))
    assert (link.is_first, watched) == (True, [(broken, 2.5)])
    assert (os.get_inheritable(file), os.get_inheritable(broken)) == (False, False)
    os.close(broken)
    assert Link.of_environment() is None
    link.ready(["127.0.0.1:50051"])
    link.close()
    with ours:
        assert Channel(ours).receive() == Received([Message("ready", ["127.0.0.1:50051"])], False)


def test_the_health_of_the_others_is_known_when_it_is_open() -> None:
    """And whatever comes later is told as it comes."""

    async def test(link: Link, supervisor: Channel, heard: Heard) -> None:
        opening = asyncio.ensure_future(heard.open(link))
        await asyncio.sleep(0)
        supervisor.send("health", {"pkg.Shop": False})
        await asyncio.wait_for(opening, SECONDS)
        first = "heed", {"pkg.Shop": False}
        assert heard.calls == [first]
        supervisor.send("health", {})
        await heard.wait_for(first, ("heed", {}))

    run(test)


def test_it_is_told_to_stop_and_to_cancel() -> None:
    """And why: load balancers need not be told where a successor serves, nor at Ctrl-C."""

    async def test(link: Link, supervisor: Channel, heard: Heard) -> None:
        supervisor.send("health", {})
        await heard.open(link)
        calls: list[Any] = [("heed", {})]
        for why in ("stopping", "replaced", "interrupted"):
            supervisor.send("stop", why)
            calls.append(("stop", why))
            await heard.wait_for(*calls)
        supervisor.send("cancel", True)
        await heard.wait_for(*calls, ("cancel",))

    run(test)


@pytest.mark.parametrize("is_open", [False, True])
def test_without_its_supervisor_it_stops(is_open: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Whenever that is gone; opening does not wait for it."""

    async def test(link: Link, supervisor: Channel, heard: Heard) -> None:
        before: list[Any] = [("heed", {})] if is_open else []
        if is_open:
            supervisor.send("health", {})
            await heard.open(link)
            supervisor.close()
        else:
            supervisor.close()
            await asyncio.wait_for(heard.open(link), SECONDS)
        await heard.wait_for(*before, ("stop", "stopping"))
        link.report("pkg.Shop", False)  # to nobody, which is no error

    run(test)
    warning = "the supervisor is gone, this worker stops"
    assert caplog.record_tuples == [("dynserve.workers", logging.WARNING, warning)]


def test_what_is_no_message_is_the_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what came in."""

    async def test(link: Link, supervisor: Channel, heard: Heard) -> None:
        supervisor.send("health", {})
        await heard.open(link)
        supervisor.send("nonsense", 1)
        await heard.wait_for(("heed", {}), ("stop", "stopping"))

    run(test)
    warning = "the supervisor is gone, this worker stops: no message: b'{\"nonsense\": 1}'"
    assert caplog.messages == [warning]


def test_a_worker_says_that_it_is_ready_and_how_its_services_are() -> None:
    """All that its program has set, every time; also what was set before it was open."""

    async def test(link: Link, supervisor: Channel, heard: Heard) -> None:
        link.report("pkg.Shop", False)
        supervisor.send("health", {})
        await heard.open(link)
        link.ready(["127.0.0.1:50051"])
        link.report("", True)
        link.report("pkg.Shop", True)
        assert supervisor.receive().messages == [
            Message("health", {"pkg.Shop": False}),
            Message("ready", ["127.0.0.1:50051"]),
            Message("health", {"pkg.Shop": False, "": True}),
            Message("health", {"pkg.Shop": True, "": True}),
        ]

    run(test)


def test_a_supervisor_that_does_not_read_holds_nothing_up() -> None:
    """What is newest is sent when it reads again."""

    async def test(link: Link, supervisor: Channel, heard: Heard) -> None:
        supervisor.send("health", {})
        await heard.open(link)
        for number in range(400):
            link.report(f"pkg.{'x' * 1000}{number % 3}", bool(number % 2))
            link.report("number", number == 399)
        read: list[Message] = []
        while not read or not read[-1].value.get("number"):
            read += supervisor.receive().messages
            await asyncio.sleep(0)
        assert len(read) < 800
        assert supervisor.receive() == Received([], True)

    run(test)
