"""How short memory is, as one of five levels, and what each level asks for. Plain decisions: readings in, values out.

Worse levels are entered at once and left slowly, so that a reading that swings around a threshold changes nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pensieve.config.settings import MemorySettings
from pensieve.devices.memory import GIGABYTE, MemoryReading

Level = Literal["Safe", "Warning", "Critical", "Emergency", "Unknown"]

LEVELS: tuple[Level, ...] = ("Safe", "Warning", "Critical", "Emergency")
"""From best to worst; `Unknown` is none of them."""

SHARES = (1 / 8, 1 / 16, 1 / 32)
"""The thresholds are at most these parts of all the memory there is: 2, 1 and 0.5 GB hold from 16 GB on."""

STALLED_PERCENT = 25.0
"""With more of the last ten seconds lost to waiting for memory, the level is Warning at least."""

PRESSURE_WARNING = 2


class Thresholds(msgspec.Struct, frozen=True):
    """Bytes that must be available for a level not to be entered."""

    warning_bytes: int
    critical_bytes: int
    emergency_bytes: int


class Measures(msgspec.Struct, frozen=True, kw_only=True):
    """What a level asks for."""

    is_accepting: bool = True
    """Whether new requests are taken."""
    cache_share: float = 1.0
    """The part of its budget that a cache of prompts may fill."""
    is_frugal: bool = False
    """Whether prompts are read in the smallest pieces, and waiting requests go on waiting."""
    is_unloaded: bool = False
    """Whether the worker is ended."""


MEASURES: dict[Level, Measures] = {
    "Unknown": Measures(),
    "Safe": Measures(),
    "Warning": Measures(cache_share=0.5),
    "Critical": Measures(is_accepting=False, cache_share=0.0, is_frugal=True),
    "Emergency": Measures(is_accepting=False, cache_share=0.0, is_frugal=True, is_unloaded=True),
}


def thresholds(settings: MemorySettings, total_bytes: int | None) -> Thresholds:
    """The user's thresholds, lowered to `SHARES` of a small machine or container; none is above the one before it."""
    wanted = (settings.warning_gb, settings.critical_gb, settings.emergency_gb)
    most = [
        round(gigabytes * GIGABYTE)
        if total_bytes is None
        else min(round(gigabytes * GIGABYTE), int(total_bytes * share))
        for gigabytes, share in zip(wanted, SHARES, strict=True)
    ]
    warning, critical, emergency = most
    return Thresholds(warning, min(critical, warning), min(emergency, critical, warning))


def reserve_bytes(settings: MemorySettings, total_bytes: int | None) -> int:
    """What models leave of a memory: its threshold of Critical, below which no request would be taken."""
    return thresholds(settings, total_bytes).critical_bytes


def level_of(reading: MemoryReading, limits: Thresholds | None = None) -> Level:
    """The level of one reading, without memory of the ones before; by default under the default settings."""
    available = reading.available_bytes
    if available is None:
        return "Unknown"
    limits = limits or thresholds(MemorySettings(), reading.total_bytes)
    if available < limits.emergency_bytes:
        return "Emergency"
    if available < limits.critical_bytes:
        return "Critical"
    return "Warning" if available < limits.warning_bytes or _is_pressed(reading) else "Safe"


def scarcest(reading: MemoryReading, settings: MemorySettings) -> MemoryReading:
    """The memory that is worst off, of the host's and the card's, each by thresholds of its own size."""
    parts = [reading] if reading.card is None else [reading, reading.card]
    known = [part for part in parts if part.available_bytes is not None]
    return max(known, key=lambda part: LEVELS.index(_own_level(part, settings)), default=reading)


def _own_level(reading: MemoryReading, settings: MemorySettings) -> Level:
    return level_of(reading, thresholds(settings, reading.total_bytes))


class Watch(msgspec.Struct, frozen=True):
    """The level that holds now, after all readings so far."""

    level: Level = "Unknown"
    better_since_seconds: float | None = None
    """Since when readings have said that a better level could hold; None: the last one did not."""

    def after(self, reading: MemoryReading, now_seconds: float, settings: MemorySettings) -> Watch:
        """The watch with one more reading."""
        level = _own_level(scarcest(reading, settings), settings)
        if "Unknown" in (level, self.level) or _is_worse(level, self.level):
            return Watch(level)
        less = _less(reading, settings.recovery_percent)
        settled = _own_level(scarcest(less, settings), settings)
        if not _is_worse(self.level, settled):
            return Watch(self.level)
        since = now_seconds if self.better_since_seconds is None else self.better_since_seconds
        return Watch(settled) if now_seconds - since >= settings.recovery_seconds else Watch(self.level, since)


def _is_pressed(reading: MemoryReading) -> bool:
    """The kernel's own word: good for shrinking in time, too coarse to refuse anybody for."""
    return (reading.stalled_percent or 0.0) >= STALLED_PERCENT or reading.pressure_level >= PRESSURE_WARNING


def _is_worse(level: Level, other: Level) -> bool:
    return LEVELS.index(level) > LEVELS.index(other)


def _less(reading: MemoryReading, percent: float) -> MemoryReading:
    """The reading as if so many per cent of a threshold were missing."""
    available = reading.available_bytes
    card = None if reading.card is None else _less(reading.card, percent)
    left = None if available is None else int(available / (1 + percent / 100))
    return msgspec.structs.replace(reading, available_bytes=left, card=card)
