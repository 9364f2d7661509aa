"""What a supervisor is to keep running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["START_SECONDS", "STOP_MARGIN", "Plan"]

# More than the longest compilation of a schema may take: dynserve/schema/compiler.py
START_SECONDS = 180.0
# What a worker gets beyond its own grace: to cancel what is left, and for its own clean-up.
STOP_MARGIN = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How many workers run what, on which addresses.

    Args:
        command: what each worker is started with; the first is the program.
        workers: how many, at least 1.
        listen: the addresses that they share: ``HOST:PORT``; port 0 is chosen once, for all.
        stop_seconds: how long a worker that was told to stop may take; then it is killed. The grace
            time and the wait for load balancers are part of it.
        start_seconds: how long a worker may take until it is ready; then it is killed.
        metrics: ``HOST:PORT`` where the metrics of all workers are served, None where they are not.

    Raises:
        ValueError: there is no command, no address, no worker, or no time for one.
    """

    command: tuple[str, ...]
    workers: int
    listen: tuple[str, ...]
    stop_seconds: float = 10.0 + STOP_MARGIN
    start_seconds: float = START_SECONDS
    metrics: str | None = None

    def __post_init__(self) -> None:
        for name in ("command", "listen"):
            if not getattr(self, name):
                raise ValueError(f"got {name}=(), expected at least one")
        if self.workers < 1:
            raise ValueError(f"got workers={self.workers!r}, expected at least 1")
        for name in ("stop_seconds", "start_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"got {name}={getattr(self, name)!r}, expected more than 0")

    def as_json(self) -> dict[str, Any]:
        """What :meth:`of_json` makes the same plan of."""
        return asdict(self)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Plan:
        """The plan that :meth:`as_json` told of."""
        lists = {name: tuple(value[name]) for name in ("command", "listen")}
        return cls(**{**value, **lists})
