"""Where a program becomes the supervisor of its own workers."""

from __future__ import annotations

from collections.abc import Sequence

from dynserve.settings import Settings

from .entry import become, this_command
from .link import Link
from .plan import STOP_MARGIN, Plan

__all__ = ["supervise"]


def supervise(
    settings: Settings, listen: Sequence[str], link: Link | None, log_level: str = "info"
) -> None:
    """Become the supervisor where settings ask for workers; else, and in a worker, do nothing.

    The process goes on as another program: nothing after this runs in it.
    """
    if link is not None or settings.workers is None:
        return
    seconds = settings.grace + settings.drain_wait + STOP_MARGIN
    plan = Plan(this_command(), settings.workers, tuple(listen), seconds, metrics=settings.metrics)
    become(plan, log_level)
