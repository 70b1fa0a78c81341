"""When a worker that ended may start again: at once after the first crash, later and later without an answer between.

Plain decisions: times come in, waiting times come out.
"""

from __future__ import annotations

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0


class Restarts:
    """Counts crashes; an answered request proves the worker sound and resets the count that matters."""

    def __init__(self) -> None:
        self.num_crashes = 0
        """Since the beginning, for people to see."""
        self._in_a_row = 0
        self._last_crash_at = 0.0

    def crashed(self, now_seconds: float) -> None:
        """A worker ended without being asked to."""
        self.num_crashes += 1
        self._in_a_row += 1
        self._last_crash_at = now_seconds

    def answered(self) -> None:
        """A request was answered to its end."""
        self._in_a_row = 0

    def delay_seconds(self, now_seconds: float) -> float:
        """How long to wait from now before the next start."""
        if self._in_a_row < 2:
            return 0.0
        delay = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** (self._in_a_row - 2))
        return max(0.0, self._last_crash_at + delay - now_seconds)
