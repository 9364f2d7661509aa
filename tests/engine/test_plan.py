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
    """A long run is forgiven, another soon after it is not; nor are many middling ones."""
    plan = Plan(unary(echo))
    assert learned(plan, False, (64, GOOD))
    assert learned(plan, True, (1, BAD), (32, GOOD), (1, BAD), (32, GOOD))
    assert learned(plan, True, (8, MIDDLING), (32, GOOD))
    assert not learned(plan, True, (9, MIDDLING))


def test_a_method_that_lost_its_name_has_to_show_more() -> None:
    """Twice as much each time, up to 4,096 good runs; late news from a worker changes nothing."""
    plan = Plan(unary(echo))
    wanted = []
    for _ in range(8):
        runs = 1
        while not learned(plan, False, (1, GOOD)):
            runs += 1
        wanted.append(runs)
        assert learned(plan, False, (100, BAD))
        assert not learned(plan, True, (2, BAD))
    assert wanted == [64, 128, 256, 512, 1024, 2048, 4096, 4096]
    plan.forget()
    assert not learned(plan, True, (1, BAD))
    assert not learned(plan, False, (4095, GOOD))
    assert learned(plan, False, (1, GOOD))
