"""The bar on what takes more than a second."""

from __future__ import annotations

import io
import threading

import pytest

from dynserve.cli import progress


class Terminal(io.StringIO):
    """Standard error that is a terminal, or is not; ``written`` is set when something is."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal
        self.written = threading.Event()

    def write(self, text: str) -> int:
        length = super().write(text)
        if "Working" in self.getvalue():
            self.written.set()
        return length

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test moves."""
    now = [100.0]
    monkeypatch.setattr("dynserve.cli.progress._now", lambda: now[0])
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return now


@pytest.mark.parametrize(
    ("is_terminal", "seconds", "is_shown"),
    [(True, 0.6, True), (True, 0.2, False), (False, 0.6, False), (False, 5.0, False)],
)
def test_a_bar_after_a_second(
    is_terminal: bool,
    seconds: float,
    is_shown: bool,
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a terminal only, and only then; the items are what they were."""
    stderr = Terminal(is_terminal)
    monkeypatch.setattr("sys.stderr", stderr)
    items = []
    for item in progress.with_progress(["a", "b", "c", "d"], "Working"):
        items.append(item)
        clock[0] += seconds
    assert items == ["a", "b", "c", "d"]
    shown = stderr.getvalue()
    assert ("Working" in shown) == is_shown
    assert ("4/4" in shown) == is_shown
    assert bool(shown) == is_shown


def test_no_bar_for_what_is_done(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last item may take as long as it likes: there is nothing left to show."""
    stderr = Terminal(True)
    monkeypatch.setattr("sys.stderr", stderr)
    for _ in progress.with_progress(["a"], "Working"):
        clock[0] += 10
    assert list(progress.with_progress([], "Working")) == []
    assert stderr.getvalue() == ""


def test_what_fails_under_the_bar(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception comes through, and the bar is taken away."""
    stderr = Terminal(True)
    monkeypatch.setattr("sys.stderr", stderr)
    items = progress.with_progress(["a", "b", "c"], "Working")
    assert next(items) == "a"
    clock[0] += 2
    assert next(items) == "b"
    with pytest.raises(KeyError):
        items.throw(KeyError("c"))  # type: ignore[attr-defined]
    assert "Working" in stderr.getvalue()
    assert "\x1b[?25h" in stderr.getvalue()  # the cursor is shown again


def test_a_wait_on_a_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be counted has a bar, too, and it is taken away in the end."""
    monkeypatch.setattr("dynserve.cli.progress._A_WHILE", 0.01)
    stderr = Terminal(True)
    monkeypatch.setattr("sys.stderr", stderr)
    with progress.waiting("Working"):
        assert stderr.written.wait(20)
    assert stderr.getvalue().endswith("\x1b[2K")  # the line is empty again


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_short_wait(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is shown of what is done at once, nor where no person looks on."""
    stderr = Terminal(is_terminal)
    monkeypatch.setattr("sys.stderr", stderr)
    with pytest.raises(KeyError), progress.waiting("Working"):
        raise KeyError("comes through")
    assert stderr.getvalue() == ""
