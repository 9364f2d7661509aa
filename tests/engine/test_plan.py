"""Which sync handlers run on the leader."""

from __future__ import annotations

import grpc

from dynserve.engine.queue.plan import Plan

unary = grpc.unary_unary_rpc_method_handler


def echo(request: bytes, _context: object) -> bytes:
    return request


GOOD, MIDDLING, BAD = 0.0001, 0.0005, 0.1  # seconds


def learned(plan: Plan, on_leader: bool, *runs: tuple[int, float]) -> bool:
    """Whether the method is quick after so many runs of so many seconds each."""
    for count, seconds in runs:
        for _ in range(count):
            plan.learn(seconds, on_leader)
    return plan.is_quick


def test_a_method_is_tried_on_the_leader_after_good_runs() -> None:
    """64 good runs on a worker make the name; others take from it, for on a worker they may have
    been good ones that had to wait for the interpreter."""
    assert not learned(Plan(unary(echo)), False, (63, GOOD))
    assert learned(Plan(unary(echo)), False, (64, GOOD))
    middling, bad = Plan(unary(echo)), Plan(unary(echo))
    assert not learned(middling, False, (30, GOOD), (10, MIDDLING), (43, GOOD))
    assert learned(middling, False, (1, GOOD))
    assert not learned(bad, False, (30, GOOD), (2, BAD), (49, GOOD))
    assert learned(bad, False, (1, GOOD))
    assert not learned(Plan(unary(echo)), False, (1000, MIDDLING), (1000, BAD), (63, GOOD))


def test_a_method_stays_on_the_leader_while_it_is_quick() -> None:
    """A long run now and then is the system's doing; where the mean is long, it is the method's."""
    plan = Plan(unary(echo))
    assert learned(plan, False, (64, GOOD))
    for _ in range(100):
        assert learned(plan, True, (2, BAD), (62, GOOD / 10))
    assert not learned(plan, True, (10, BAD))
    middling = Plan(unary(echo))
    assert learned(middling, False, (64, GOOD))
    assert not learned(middling, True, (64, MIDDLING))
    assert learned(middling, False, (128, GOOD))
    assert learned(middling, True, (10_000, GOOD))


def test_a_method_that_lost_its_name_has_to_show_more() -> None:
    """Twice as much each time, up to 512 good runs; late news from elsewhere changes nothing."""
    plan = Plan(unary(echo))
    wanted = []
    for _ in range(5):
        runs = 1
        while not learned(plan, False, (1, GOOD)):
            runs += 1
        wanted.append(runs)
        assert learned(plan, False, (100, BAD))
        assert not learned(plan, True, (20, BAD))
    assert wanted == [64, 128, 256, 512, 512]
    plan.forget()
    assert not learned(plan, True, (1, BAD))
    assert not learned(plan, False, (511, GOOD))
    assert learned(plan, False, (1, GOOD))
