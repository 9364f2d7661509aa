"""Worker threads: on demand, up to a limit, gone when idle."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dynserve.engine import threads
from dynserve.engine.threads import ThreadPool

WAIT = 20.0


def blocked(pool: ThreadPool, count: int) -> tuple[threading.Barrier, threading.Event]:
    """Occupy ``count`` threads until the event is set; the barrier is for them and the test."""
    barrier, release = threading.Barrier(count + 1), threading.Event()

    def task() -> None:
        barrier.wait(WAIT)
        release.wait(WAIT)

    for _ in range(count):
        pool.submit(task)
    return barrier, release


def test_runs_as_many_at_once_as_the_limit() -> None:
    """All threads of the limit run at the same time."""
    barrier, release = blocked(ThreadPool(3, "t"), 3)
    barrier.wait(WAIT)
    release.set()


def test_a_task_past_the_limit_waits_and_then_runs() -> None:
    """What finds no thread is kept and run by the first that is free."""
    pool = ThreadPool(2, "t")
    barrier, release = blocked(pool, 2)
    barrier.wait(WAIT)
    ran = threading.Event()
    pool.submit(ran.set)
    assert not ran.is_set()
    release.set()
    assert ran.wait(WAIT)


def test_try_submit_refuses_past_the_limit() -> None:
    """try_submit() never queues."""
    pool = ThreadPool(1, "t")
    barrier, release = blocked(pool, 1)
    barrier.wait(WAIT)
    assert not pool.try_submit(lambda: None)
    release.set()
    ran = threading.Event()
    while not pool.try_submit(ran.set):  # until the thread has noticed that it is free
        pass
    assert ran.wait(WAIT)


def test_a_thread_is_used_again() -> None:
    """Tasks one after the other need one thread."""
    pool = ThreadPool(10, "t")
    seen: set[str] = set()
    for _ in range(20):
        done = threading.Event()
        pool.submit(_noting(seen, done))
        assert done.wait(WAIT)
        while not pool._idle:  # the thread sets the event before it is idle again
            pass
    assert seen == {"t-1"}


def _noting(seen: set[str], done: threading.Event) -> Callable[[], None]:
    def task() -> None:
        seen.add(threading.current_thread().name)
        done.set()

    return task


def test_threads_are_daemons_and_end_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle pool keeps no thread, and no pool keeps the process."""
    monkeypatch.setattr(threads, "_IDLE_SECONDS", 0.01)
    pool = ThreadPool(4, "t")
    found: list[threading.Thread] = []
    done = threading.Event()

    def task() -> None:
        found.append(threading.current_thread())
        done.set()

    pool.submit(task)
    assert done.wait(WAIT)
    assert found[0].daemon
    found[0].join(WAIT)
    assert not found[0].is_alive()
    assert pool._threads == 0


def test_many_tasks_all_run() -> None:
    """None of thousands of tasks from several threads is lost."""
    pool, count = ThreadPool(8, "t"), 4000
    ran = threading.Semaphore(0)

    def submit() -> None:
        for _ in range(count // 4):
            pool.submit(ran.release)

    submitters = [threading.Thread(target=submit) for _ in range(4)]
    for thread in submitters:
        thread.start()
    for _ in range(count):
        assert ran.acquire(timeout=WAIT)
    for thread in submitters:
        thread.join()
