"""How soon a place frees up: measured from the answers that ended, and told to clients that found none.

Plain decisions over times that the caller gives. Knows no request and no clock.
"""

from __future__ import annotations

from collections import deque

REMEMBERED_GAPS = 16
LEAST_SECONDS, MOST_SECONDS = 1.0, 60.0


class DrainRate:
    """The time between two ends of answers while there is always work; times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._gaps: deque[float] = deque(maxlen=REMEMBERED_GAPS)
        self._num_running = 0
        self._gap_began = 0.0
        self._num_turned_away = 0

    def begin(self, now_seconds: float) -> None:
        """An answer got its place."""
        if self._num_running == 0:
            self._gap_began = now_seconds  # what was idle before says nothing about how long answers take
        self._num_running += 1

    def end(self, now_seconds: float) -> None:
        """An answer gave its place back, whole or not."""
        assert self._num_running > 0, "an answer ended that never began"
        self._num_running -= 1
        self._gaps.append(now_seconds - self._gap_began)
        self._gap_began = now_seconds
        self._num_turned_away = 0

    def turn_away(self, otherwise_seconds: float) -> float:
        """When a request that found no place should ask again; `otherwise_seconds` stands while nothing is measured.

        Places free up one by one, and those turned away since the last one get different times, so that they do not
        all come back for the same place.
        """
        self._num_turned_away += 1
        measured = sum(self._gaps) / len(self._gaps) * self._num_turned_away if self._gaps else otherwise_seconds
        return min(max(measured, LEAST_SECONDS), MOST_SECONDS)
