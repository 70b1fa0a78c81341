"""Memory's guard in the front process: reads, says which level holds, counts, and lets requests in or not.

Acts on nothing itself: who owns a worker asks `look` now and then and does what `measures` says.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

from pensieve.config.settings import MemorySettings
from pensieve.devices.levels import (
    LEVELS,
    MEASURES,
    Level,
    Measures,
    Thresholds,
    Watch,
    reserve_bytes,
    scarcest,
    thresholds,
)
from pensieve.devices.memory import UNKNOWN, MemoryReading
from pensieve.devices.processes import read_spare_memory
from pensieve.errors import MemoryShort
from pensieve.inference.supervision import Event, MemoryStatus

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""When a client that was refused may come again: recovery takes two seconds once memory is there."""


class MemoryGuard:
    """One for all that this process lets in; `read` gives a reading in microseconds."""

    def __init__(
        self,
        settings: MemorySettings,
        read: Callable[[], MemoryReading] = read_spare_memory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reading = UNKNOWN
        self.last_event: Event | None = None
        self._settings = settings
        self._read = read
        self._clock = clock
        self._watch = Watch()
        self._lowest_bytes: int | None = None
        self._num_entered: Counter[str] = Counter()
        self._num_refused = 0

    @property
    def level(self) -> Level:
        """The level that holds, as of the last look."""
        return self._watch.level

    @property
    def measures(self) -> Measures:
        """What it asks for."""
        return MEASURES[self.level]

    @property
    def thresholds(self) -> Thresholds:
        """Where the levels begin on this machine."""
        return thresholds(self._settings, self.reading.total_bytes)

    @property
    def left(self) -> str:
        """What is left where it is scarcest, in words."""
        part = scarcest(self.reading, self._settings)
        return f"{part.available_gb} GB left" + (f" on {part.limited_by}" if part is self.reading.card else "")

    @property
    def status(self) -> MemoryStatus:
        """All of it, as of the last look."""
        return MemoryStatus(
            reading=self.reading,
            level=self.level,
            is_accepting=self.measures.is_accepting,
            lowest_available_bytes=self._lowest_bytes,
            num_entered={level: self._num_entered[level] for level in LEVELS},
            num_refused=self._num_refused,
        )

    def look(self) -> Level:
        """Read memory and say which level holds now; a change is logged once."""
        self.reading = self._read()
        available = self.reading.available_bytes
        if available is not None:
            self._lowest_bytes = available if self._lowest_bytes is None else min(available, self._lowest_bytes)
        before, self._watch = self.level, self._watch.after(self.reading, self._clock(), self._settings)
        if self.level != before:
            self._changed(before)
        return self.level

    def admit(self) -> None:
        """Let a new request in, or raise `MemoryShort`."""
        self.look()
        if not self.measures.is_accepting:
            self._num_refused += 1
            raise MemoryShort(
                f"memory is short on this machine ({self.left}), so no new request is taken: end other programs",
                RETRY_SECONDS,
            )

    def note(self, what: str) -> None:
        """Remember what happened last."""
        self.last_event = Event(what, self._clock())

    def spare_bytes(self, *, is_safe: bool) -> int | None:
        """What a model may take so that requests can still be taken, or, `is_safe`, so that Safe holds well."""
        available = self.reading.available_bytes
        if available is None:
            return None
        limits = self.thresholds
        reserve = reserve_bytes(self._settings, self.reading.total_bytes)
        kept = limits.warning_bytes * (1 + self._settings.recovery_percent / 100) if is_safe else reserve
        return available - round(kept)

    @property
    def most_bytes(self) -> int | None:
        """What a model could take if nothing else ran here."""
        total = self.reading.total_bytes
        return None if total is None else total - reserve_bytes(self._settings, total)

    def _changed(self, before: Level) -> None:
        self._num_entered[self.level] += 1
        what = f"memory: {before} -> {self.level}, {self.left}"
        if before == "Unknown" and self.level == "Safe":
            return
        self.note(what)
        is_worse = self.level in LEVELS[1:] and (before == "Unknown" or LEVELS.index(self.level) > LEVELS.index(before))
        log.log(logging.WARNING if is_worse else logging.INFO, "%s", what)
