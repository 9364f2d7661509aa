"""Which engine serves, and what happens where the fast one does not work."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from dynserve import EngineError, Kind, engines
from dynserve.engine.queue import probe
from dynserve.engine.queue.loop import QueueLoop
from dynserve.engines import engine_maker, new_event_loop
from dynserve.settings import Settings
from tests.echo import PATHS, Item, app_with, schema

PROBLEM = f"it failed with grpcio {grpc.__version__}: ImportError: no such name"
WARNING = f"the queue engine is not used: {PROBLEM}; grpc.aio serves, several times slower"


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was proved yet, on disk or in this process."""
    monkeypatch.setenv("DYNSERVE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("DYNSERVE_ENGINE", raising=False)
    engines._problem.cache_clear()
    engines._warn.cache_clear()
    yield
    engines._problem.cache_clear()
    engines._warn.cache_clear()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grpcio whose private layer has changed."""

    def fail() -> None:
        raise ImportError("no such name")

    monkeypatch.setattr(probe, "probe", fail)


@pytest.mark.parametrize(
    ("name", "made"), [("auto", "QueueEngine"), ("queue", "QueueEngine"), ("aio", "AioEngine")]
)
def test_the_engine_of_a_name(name: str, made: str) -> None:
    """Where it works, auto is the queue engine."""
    assert engine_maker(name).__name__ == made


def made_loop(name: str) -> str:
    """The class of the loop that is made for an engine, with its module."""
    loop = new_event_loop(name)
    loop.close()
    return f"{type(loop).__module__}.{type(loop).__name__}"


def test_the_loop_of_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue engine has its own; without it, and for the other, uvloop's where installed."""
    own = "dynserve.engine.queue.loop.QueueLoop"
    usual = asyncio.new_event_loop()
    usual.close()
    plain = f"{type(usual).__module__}.{type(usual).__name__}"
    uvloop = plain if sys.platform == "win32" else "uvloop.Loop"
    assert [made_loop(name) for name in ("auto", "queue", "aio")] == [own, own, uvloop]
    monkeypatch.setattr(QueueLoop, "is_possible", lambda: False)
    assert [made_loop(name) for name in ("auto", "queue", "aio")] == [uvloop] * 3
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert [made_loop(name) for name in ("auto", "queue", "aio")] == [plain] * 3


@pytest.mark.usefixtures("broken")
def test_auto_falls_back_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the reason, once a process."""
    with caplog.at_level(logging.WARNING):
        assert [engine_maker("auto").__name__ for _ in range(3)] == ["AioEngine"] * 3
    assert [record.getMessage() for record in caplog.records] == [WARNING]


@pytest.mark.usefixtures("broken")
def test_queue_insists() -> None:
    """Who asks for the engine gets it, or an error with the way out."""
    with pytest.raises(EngineError) as caught:
        engine_maker("queue")
    assert str(caught.value) == (f"engine 'queue': {PROBLEM}; engine='aio' needs public parts only")
    server = app_with(lambda request: request, Kind.UNARY_UNARY).server(
        "127.0.0.1:0", engine="queue"
    )
    with pytest.raises(EngineError):
        asyncio.run(server.start())


@pytest.mark.usefixtures("broken")
def test_aio_asks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is tried, and nothing said."""
    assert engine_maker("aio").__name__ == "AioEngine"
    assert caplog.records == []


@pytest.mark.usefixtures("broken")
def test_what_was_served_is_served_all_the_same() -> None:
    """An app does not notice which engine it got."""
    app = app_with(lambda request: Item(number=request.number + 1), Kind.UNARY_UNARY)
    with (
        app.server("127.0.0.1:0").in_thread() as server,
        grpc.insecure_channel(server.addresses[0]) as channel,
    ):
        path = schema.method(PATHS[Kind.UNARY_UNARY]).path
        method = channel.unary_unary(path, Item.SerializeToString, Item.FromString)
        assert method(Item(number=1), timeout=20).number == 2


def test_a_proof_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What passed is not tried at the next start, nor twice in a process."""
    tried = []
    monkeypatch.setattr(probe, "probe", lambda: tried.append(1))
    for _ in range(2):
        engine_maker("auto")
    engines._problem.cache_clear()  # as in another process
    engine_maker("auto")
    assert tried == [1]


def test_a_failure_is_not_kept(monkeypatch: pytest.MonkeyPatch, broken: None) -> None:
    """The next process tries again."""
    assert engine_maker("auto").__name__ == "AioEngine"
    monkeypatch.setattr(probe, "probe", lambda: None)
    assert engine_maker("auto").__name__ == "AioEngine"
    engines._problem.cache_clear()
    assert engine_maker("auto").__name__ == "QueueEngine"


@pytest.mark.parametrize(
    ("argument", "variable", "where"),
    [("fast", "", "engine"), ("fast", "quick", "engine"), ("", "fast", "DYNSERVE_ENGINE")],
)
def test_a_name_that_is_none(
    argument: str, variable: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says where it came from, and lists the names there are."""
    monkeypatch.setenv("DYNSERVE_ENGINE", variable)
    with pytest.raises(ValueError, match=r"^got ") as caught:
        Settings({"engine": argument} if argument else {})
    assert str(caught.value) == f"got {where}='fast', expected one of 'auto', 'queue', 'aio'"


@pytest.mark.parametrize(("name", "made"), [("queue", "QueueEngine"), ("aio", "AioEngine")])
def test_the_log_tells_which_engine_serves(
    name: str, made: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At the level DEBUG, with the event loop."""
    caplog.set_level(logging.DEBUG, "dynserve.server")
    loop = made_loop(name)
    app = app_with(lambda request: request, Kind.UNARY_UNARY)
    with app.server("127.0.0.1:0", engine=name).in_thread():
        pass
    said = [record.getMessage() for record in caplog.records if record.name == "dynserve.server"]
    assert said == [f"{made} serves, on {loop}"]
