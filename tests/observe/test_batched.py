"""BatchedHandler: who logs never waits for the stream."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
from typing import Any

import pytest

from dynserve.observe import BatchedHandler

WAIT = 20.0


class Stream(io.StringIO):
    """Tells what was written at once; each write waits until it is let."""

    def __init__(self, is_free: bool = True) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.wrote = threading.Semaphore(0)
        self.entered = threading.Event()
        self.let = threading.Event()
        if is_free:
            self.let.set()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.let.wait(WAIT)
        self.writes.append(text)
        self.wrote.release()
        return len(text)


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelname": "INFO"})


def test_lines_are_written_together_by_another_thread() -> None:
    """Lines of a moment are one write, some time after."""
    stream = Stream()
    handler = BatchedHandler(stream, interval=0.05)
    try:
        handler.handle(record("one"))
        handler.handle(record("two"))
        assert stream.wrote.acquire(timeout=WAIT)
        handler.handle(record("three"))
        assert stream.wrote.acquire(timeout=WAIT)
    finally:
        handler.close()
    assert "".join(stream.writes) == "one\ntwo\nthree\n"
    assert len(stream.writes) == 2


def test_a_stream_that_is_stuck_stops_nobody() -> None:
    """Lines wait up to the limit, more are dropped, and it is said how many."""
    stream = Stream(is_free=False)
    handler = BatchedHandler(stream, limit=3, interval=0.0)
    try:
        handler.handle(record("0"))
        assert stream.entered.wait(WAIT)
        for number in range(1, 10):
            handler.handle(record(str(number)))
        stream.let.set()
        assert stream.wrote.acquire(timeout=WAIT)
        handler.flush()
        told = "6 lines of the log dropped: they came faster than they can be written"
        assert "".join(stream.writes) == f"0\n1\n2\n3\n{told}\n"
        handler.handle(record("10"))
        handler.flush()
        assert "".join(stream.writes) == f"0\n1\n2\n3\n{told}\n10\n"
    finally:
        handler.close()


def test_one_line_dropped() -> None:
    """One line that is missing is a line, not lines."""
    stream = Stream()
    handler = BatchedHandler(stream, limit=0, interval=WAIT)
    handler.handle(record("0"))
    handler.close()
    assert stream.writes == [
        "1 line of the log dropped: they came faster than they can be written\n"
    ]


def test_close_writes_what_is_left() -> None:
    """What was logged before the end is written, and the thread is gone."""
    stream = Stream()
    before = threading.active_count()
    handler = BatchedHandler(stream, interval=WAIT)
    handler.handle(record("last"))
    assert threading.active_count() == before + 1
    handler.close()
    assert (stream.writes, threading.active_count()) == (["last\n"], before)


def test_after_close() -> None:
    """What is logged after the end starts no thread; flush, which logging calls, writes it."""
    stream = Stream()
    handler = BatchedHandler(stream)
    handler.close()
    before = threading.active_count()
    handler.handle(record("late"))
    assert threading.active_count() == before
    handler.flush()
    assert stream.writes == ["late\n"]


def test_close_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that takes nothing holds the end up for a bounded time."""
    monkeypatch.setattr("dynserve.observe.batched._PATIENCE", 0.05)
    stream = Stream(is_free=False)
    handler = BatchedHandler(stream, interval=0.0)
    handler.handle(record("stuck"))
    assert stream.entered.wait(WAIT)
    handler.flush()
    handler.close()
    assert stream.writes == []
    stream.let.set()
    assert stream.wrote.acquire(timeout=WAIT)


def test_lines_that_cannot_be_made_or_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told of on stderr, as by any handler of logging; the other lines are written."""

    class Broken(Stream):
        def write(self, text: str) -> int:
            raise OSError("no space left")

    handler = BatchedHandler(Broken(), interval=WAIT)
    handler.handle(record("lost"))
    handler.close()
    assert "OSError: no space left" in capsys.readouterr().err

    stream = Stream()
    handler = BatchedHandler(stream, interval=WAIT)
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("one",)}))
    handler.handle(record("two"))
    handler.close()
    assert "TypeError: %d format" in capsys.readouterr().err
    assert stream.writes == ["two\n"]


def test_without_a_stream_it_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """What sys.stderr is when a line is written, so that it can be replaced."""
    handler = BatchedHandler(interval=WAIT)
    handler.handle(record("hello"))
    handler.close()
    assert capsys.readouterr().err == "hello\n"


def test_at_the_end_of_python() -> None:
    """Lines of the last moment are written when the process ends by itself."""
    program = """
import logging
from dynserve.observe import BatchedHandler
logging.basicConfig(handlers=[BatchedHandler(interval=60.0)], level="INFO", format="%(message)s")
for number in range(3):
    logging.info("line %d", number)
"""
    done: Any = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("", "line 0\nline 1\nline 2\n")


def test_many_threads_lose_nothing() -> None:
    """Lines of several threads are all written, each whole, those of a thread in their order."""
    stream = Stream()
    handler = BatchedHandler(stream, limit=100_000, interval=0.001)

    def log(name: str) -> None:
        for number in range(500):
            handler.handle(record(f"{name} {number}"))

    threads = [threading.Thread(target=log, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.close()
    lines = "".join(stream.writes).splitlines()
    assert len(lines) == 2000
    for name in "abcd":
        own = [line for line in lines if line.startswith(name)]
        assert own == [f"{name} {number}" for number in range(500)]
