"""When a model that was unloaded because memory ran out may be loaded again: later each time, and not for ever.

Plain decisions: times come in. Whether there is room, others know.
"""

from __future__ import annotations

HOUR_SECONDS = 3600.0
FIRST_DELAY_SECONDS = 5.0
DELAY_FACTOR = 3.0
LONGEST_DELAY_SECONDS = 300.0
LONGEST_ASKED_DELAY_SECONDS = 30.0
"""Somebody who asks for the model waits no longer than this."""


class Reloads:
    """Remembers the last hour; `limit`: how often in that time the model comes back by itself."""

    def __init__(self, limit: int) -> None:
        self.num_unloads = 0
        """Since the beginning, for people to see."""
        self._limit = limit
        self._unloads: list[float] = []
        self._reloads: list[float] = []

    def unloaded(self, now_seconds: float) -> None:
        """The model was just unloaded."""
        self.num_unloads += 1
        self._unloads = [*_recent(self._unloads, now_seconds), now_seconds]

    def reloaded(self, now_seconds: float) -> None:
        """It comes back, and nobody asked for it."""
        self._reloads = [*_recent(self._reloads, now_seconds), now_seconds]

    def is_due(self, now_seconds: float) -> bool:
        """Whether it may come back without being asked for."""
        num_recent = len(_recent(self._reloads, now_seconds))
        return num_recent < self._limit and self._delay_seconds(now_seconds, LONGEST_DELAY_SECONDS) == 0.0

    def asked_delay_seconds(self, now_seconds: float) -> float:
        """How long somebody who asks for it has to wait yet."""
        return self._delay_seconds(now_seconds, LONGEST_ASKED_DELAY_SECONDS)

    def _delay_seconds(self, now_seconds: float, longest_seconds: float) -> float:
        recent = _recent(self._unloads, now_seconds)
        if not recent:
            return 0.0
        # The exponent is bounded: a float cannot hold what an hour of unloads would make of it.
        delay = FIRST_DELAY_SECONDS * DELAY_FACTOR ** min(len(recent) - 1, 10)
        return max(0.0, recent[-1] + min(delay, longest_seconds) - now_seconds)


def _recent(times: list[float], now_seconds: float) -> list[float]:
    return [time for time in times if now_seconds - time < HOUR_SECONDS]
