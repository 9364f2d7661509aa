"""Worker threads: on demand, up to a limit, gone when idle."""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Callable

import pytest

from dynserve.engine import threads
from dynserve.engine.threads import NoThreadError, ThreadPool

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


def test_what_may_not_wait_is_refused_past_the_limit() -> None:
    """With ``wait=False`` nothing is queued."""
    pool = ThreadPool(1, "t")
    barrier, release = blocked(pool, 1)
    barrier.wait(WAIT)
    with pytest.raises(NoThreadError):
        pool.submit(lambda: None, wait=False)
    release.set()
    while not pool._idle:  # until the thread has noticed that it is free
        pass
    ran = threading.Event()
    pool.submit(ran.set, wait=False)
    assert ran.wait(WAIT)


def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past 10,000 waiting tasks, here 3, another is refused."""
    monkeypatch.setattr(threads, "_MAX_WAITING", 3)
    pool = ThreadPool(1, "t")
    barrier, release = blocked(pool, 1)
    barrier.wait(WAIT)
    ran = [threading.Event() for _ in range(3)]
    for event in ran:
        pool.submit(event.set)
    with pytest.raises(NoThreadError):
        pool.submit(lambda: None)
    release.set()
    assert all(event.wait(WAIT) for event in ran)


def test_a_task_can_be_taken_back() -> None:
    """What has not begun is dropped with all it holds; what has begun is left alone."""
    pool = ThreadPool(1, "t")
    barrier, release = blocked(pool, 1)
    barrier.wait(WAIT)
    ran: list[str] = []
    take_back = pool.submit(lambda: ran.append("taken back"))
    take_back()
    take_back()
    done = threading.Event()
    pool.submit(done.set)
    release.set()
    assert done.wait(WAIT)
    assert ran == []


def test_a_task_is_run_or_taken_back() -> None:
    """Never both, never neither, and no thread is lost over it."""
    pool, count = ThreadPool(4, "t"), 5000
    ran = threading.Semaphore(0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        taken = sum(pool.submit(ran.release)() is not None for _ in range(count))
    finally:
        sys.setswitchinterval(interval)
    for _ in range(count - taken):
        assert ran.acquire(timeout=WAIT)
    while len(pool._idle) != pool._threads:
        pass
    assert not ran.acquire(blocking=False)
    assert sum(thread.name.startswith("t-") for thread in threading.enumerate()) >= pool._threads


def test_a_closed_pool_counts_its_threads() -> None:
    """Those that were idle are counted out once."""
    pool = ThreadPool(2, "counted")
    found: list[threading.Thread] = []
    pool.submit(lambda: found.append(threading.current_thread()))
    while not pool._idle:
        pass
    pool.close()
    found[0].join(WAIT)
    assert pool._threads == 0


class Refused(threading.Thread):
    """A thread that the system has no room for."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def test_a_system_without_threads_is_a_passing_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    """While no thread can be started tasks are refused; afterwards the pool works."""
    pool = ThreadPool(2, "t")
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Refused)
        for wait in (True, False):
            with pytest.raises(NoThreadError):
                pool.submit(lambda: None, wait=wait)
    barrier, release = blocked(pool, 2)
    barrier.wait(WAIT)
    release.set()


def test_a_thread_that_is_there_takes_what_another_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one thread at work a task waits for it, if it may, when no second can be started."""
    pool = ThreadPool(2, "t")
    barrier, release = blocked(pool, 1)
    barrier.wait(WAIT)
    ran = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Refused)
        pool.submit(ran.set)
        with pytest.raises(NoThreadError):
            pool.submit(lambda: None, wait=False)
    release.set()
    assert ran.wait(WAIT)


def test_an_idle_thread_keeps_nothing_alive() -> None:
    """The last task, and the call that it holds, is let go."""

    class Call:
        pass

    pool = ThreadPool(1, "t")
    call = Call()
    gone = weakref.ref(call)
    done = threading.Event()
    pool.submit(functools.partial(lambda _, event: event.set(), call, done))
    del call
    assert done.wait(WAIT)
    while not pool._idle:
        pass
    assert gone() is None


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
