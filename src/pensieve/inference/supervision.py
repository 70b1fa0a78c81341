"""What is known of memory and of a worker that is looked after: values, and the protocol of a backend that has them."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import msgspec

from pensieve.devices.levels import Level
from pensieve.devices.memory import MemoryReading
from pensieve.devices.processes import ProcessMemory
from pensieve.inference.backend import CacheFigures

State = Literal["unloaded", "loading", "ready", "restarting", "failed", "out of memory", "closed"]


class Event(msgspec.Struct, frozen=True):
    """Something that happened to memory or to a worker, in words for people; no path and no prompt in it."""

    what: str
    at_seconds: float
    """On the monotonic clock."""


class MemoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the guard knows now, and what it has counted since it began."""

    reading: MemoryReading
    level: Level
    is_accepting: bool
    lowest_available_bytes: int | None
    num_entered: dict[str, int]
    """How often each level was entered."""
    num_refused: int
    """Requests that were not let in."""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the worker is; `pid` 0 while there is none. Counts are since the beginning."""

    state: State
    pid: int
    num_crashes: int
    num_hangs: int = 0
    num_unloads: int = 0
    """Because memory ran out."""
    num_loads: int = 0
    num_outgrown: int = 0
    """Restarts of a worker that held more than it should."""
    memory: ProcessMemory | None = None
    cached: CacheFigures = CacheFigures()
    """Of the worker that lives, a few seconds old."""
    last_event: Event | None = None


@runtime_checkable
class Supervised(Protocol):
    """A backend whose worker is looked after."""

    @property
    def status(self) -> WorkerStatus:
        """How the worker is now."""
        ...

    @property
    def memory(self) -> MemoryStatus:
        """How memory is now."""
        ...

    def reset(self) -> None:
        """Forget crashes and suspicions."""
        ...
