"""Memory as a test wants it: what a guard reads, to be changed at will."""

from __future__ import annotations

from pensieve.devices.memory import GIGABYTE, MemoryReading

TOTAL_BYTES = 64 * GIGABYTE


class Weather:
    """Called for a reading; `available_gb` is what it says."""

    def __init__(self, available_gb: float = 32.0) -> None:
        self.available_gb = available_gb

    def __call__(self) -> MemoryReading:
        """The memory now."""
        return MemoryReading(round(self.available_gb * GIGABYTE), TOTAL_BYTES)
