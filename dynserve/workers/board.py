"""What the workers say about health, put together."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HealthBoard", "merged"]


def merged(*said: Mapping[str, bool]) -> dict[str, bool]:
    """One health of several: a service is serving where all who speak of it say so."""
    together: dict[str, bool] = {}
    for statuses in said:
        for service, serving in statuses.items():
            together[service] = serving and together.get(service, True)
    return together


class HealthBoard:
    """Who says what; a worker is known by a number that no other ever has.

    A worker speaks of the services that its program has set, not of those that nobody touched.
    """

    def __init__(self) -> None:
        self._said: dict[int, dict[str, bool]] = {}

    def say(self, worker: int, statuses: Mapping[str, bool]) -> None:
        """This is all that the worker says from now on: True for SERVING, by service."""
        self._said[worker] = dict(statuses)

    def leave(self, worker: int) -> None:
        """What the worker said no longer counts."""
        self._said.pop(worker, None)

    def others(self, worker: int) -> dict[str, bool]:
        """What all but this one say. A worker adds what it says itself, which it knows best."""
        return merged(*(said for one, said in self._said.items() if one != worker))
