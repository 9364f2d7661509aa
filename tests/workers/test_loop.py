"""What the supervisor waits in."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dynserve.workers.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop of the test's own."""
    with contextlib.closing(Loop()) as made:
        yield made


def test_what_is_due_is_called_in_the_order_of_its_time(loop: Loop) -> None:
    """What was cancelled is not."""
    called: list[str] = []
    loop.after(0.03, lambda: called.append("last"))
    loop.after(0.0, lambda: called.append("first"))
    loop.after(0.01, lambda: called.append("cancelled")).cancel()
    loop.after(0.02, lambda: called.append("second"))
    loop.run(lambda: "last" in called)
    assert called == ["first", "second", "last"]


def test_files_are_watched_until_they_are_forgotten(loop: Loop) -> None:
    """By one that is called in the same round, too."""
    reader, writer = os.pipe()
    other, other_writer = os.pipe()
    called: list[str] = []

    def forget(name: str) -> None:
        called.append(name)
        loop.forget(reader)
        loop.forget(other)

    loop.watch(reader, lambda: forget("one"))
    loop.watch(other, lambda: forget("the other"))
    os.write(writer, b"x")
    os.write(other_writer, b"x")
    loop.after(0.05, lambda: called.append("end"))
    loop.run(lambda: "end" in called)
    assert called in (["one", "end"], ["the other", "end"])
    for file in (reader, writer, other, other_writer):
        os.close(file)


def test_a_signal_that_comes_while_handlers_are_set_counts(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first moment at which it does not do what it did before."""
    install, called = signal.signal, list[int]()

    def install_and_come(number: int, handler: Any) -> Any:
        before = install(number, handler)
        signal.raise_signal(number)
        return before

    numbers = [signal.SIGUSR1, signal.SIGUSR2]
    monkeypatch.setattr("dynserve.workers.loop.signal.signal", install_and_come)
    with loop.signals(numbers, called.append):
        monkeypatch.undo()
        loop.after(5.0, lambda: called.append(-1))
        loop.run(lambda: len(called) >= len(numbers))
    assert called == numbers


def test_a_signal_wakes_the_loop_and_all_is_as_before_after_it(loop: Loop) -> None:
    """However deep it sleeps; in the order in which signals came."""
    handler = signal.getsignal(signal.SIGUSR1)
    called: list[int] = []
    with loop.signals([signal.SIGUSR1, signal.SIGUSR2], called.append):
        sender = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])
        sender.start()
        loop.run(lambda: bool(called))
        sender.join()
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR1)
        loop.run(lambda: len(called) == 3)
    assert called == [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == handler
    assert signal.set_wakeup_fd(-1) == -1
