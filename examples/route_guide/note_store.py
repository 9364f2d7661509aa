"""The notes that travellers leave for one another, shared by all calls."""

from collections import defaultdict, deque
from threading import Lock
from typing import Any

from .geo import Position


class NoteStore:
    """The latest notes by location: a server that runs for years keeps no more than its limits.

    When there are more than `max_notes`, or they take more than `max_bytes` as messages, the
    oldest are forgotten first. Any number of threads and asyncio tasks may add notes at once.
    """

    def __init__(self, max_notes: int = 10_000, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_notes = max_notes
        self._max_bytes = max_bytes
        self._bytes = 0
        self._places: deque[Position] = deque()  # of every note, in order of arrival
        self._notes: defaultdict[Position, deque[Any]] = defaultdict(deque)
        self._lock = Lock()

    def add(self, place: Position, note: Any) -> list[Any]:
        """Keep a note, and return the earlier ones at its place, in order of arrival.

        Both are one step: of two calls that add at the same moment, one sees the other's note.
        """
        with self._lock:
            earlier = list(self._notes[place])
            self._notes[place].append(note)
            self._places.append(place)
            self._bytes += note.ByteSize()
            while len(self._places) > self._max_notes or self._bytes > self._max_bytes:
                self._forget_oldest()
            return earlier

    def _forget_oldest(self) -> None:
        place = self._places.popleft()
        self._bytes -= self._notes[place].popleft().ByteSize()
        if not self._notes[place]:
            del self._notes[place]
