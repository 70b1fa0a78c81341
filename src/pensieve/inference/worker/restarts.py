"""When a worker that ended may start again, and when it is left alone: plain decisions, times in, waiting times out."""

from __future__ import annotations

FIRST_DELAY_SECONDS = 0.5
MOST_CRASHES = 3
"""So many in a row without an answer between, and the worker has failed."""

PAUSE_SECONDS = 60.0
"""A worker that has failed is tried once more so long after its last crash, when somebody asks."""


class Restarts:
    """Counts crashes; an answered request proves the worker sound and resets the count that matters."""

    def __init__(self) -> None:
        self.num_crashes = 0
        """Since the beginning, for people to see."""
        self._in_a_row = 0
        self._last_crash_at = 0.0

    @property
    def num_in_a_row(self) -> int:
        """Crashes since the last answer."""
        return self._in_a_row

    def crashed(self, now_seconds: float) -> None:
        """A worker ended without being asked to."""
        self.num_crashes += 1
        self._in_a_row += 1
        self._last_crash_at = now_seconds

    def answered(self) -> None:
        """A request was answered to its end, or somebody says that the cause is gone."""
        self._in_a_row = 0

    def delay_seconds(self, now_seconds: float) -> float:
        """How long to wait from now before the next start: not at all after one crash, shortly after two."""
        if self._in_a_row < 2:
            return 0.0
        delay = FIRST_DELAY_SECONDS if self._in_a_row < MOST_CRASHES else PAUSE_SECONDS
        return max(0.0, self._last_crash_at + delay - now_seconds)

    def has_failed(self, now_seconds: float) -> bool:
        """Whether it is left alone for now."""
        return self._in_a_row >= MOST_CRASHES and self.delay_seconds(now_seconds) > 0.0
