"""How long to wait until a worker that died is started again."""

from __future__ import annotations

from dynserve.workers.backoff import Backoff


def test_it_waits_longer_each_time() -> None:
    """Not at all at first, and never longer than 30 seconds."""
    backoff = Backoff()
    assert [backoff.delay(0.0) for _ in range(10)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_worker_that_served_for_a_while_begins_anew() -> None:
    """30 seconds are enough, less is not."""
    backoff = Backoff()
    ran = [0.0, 0.0, 29.9, 30.0, 1.0, 1.0, 3600.0]
    assert [backoff.delay(seconds) for seconds in ran] == [0, 0.5, 1, 0, 0.5, 1, 0]
