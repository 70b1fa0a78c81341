"""How much memory the machine has left. Knows no engine and decides nothing.

Only Linux is read for now; elsewhere the level is `Unknown`, which says so rather than guesses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Level = Literal["Safe", "Warning", "Critical", "Emergency", "Unknown"]

GIGABYTE = 10**9
MEMINFO = Path("/proc/meminfo")
_FLOORS: tuple[tuple[float, Level], ...] = ((2.0, "Safe"), (1.0, "Warning"), (0.5, "Critical"), (0.0, "Emergency"))


class MemoryReading(msgspec.Struct, frozen=True):
    """Memory that can be had without swapping; None where this machine cannot be read."""

    available_bytes: int | None

    @property
    def level(self) -> Level:
        """Safe from 2 GB, Warning below 2, Critical below 1, Emergency below 0.5."""
        if self.available_bytes is None:
            return "Unknown"
        available_gb = self.available_bytes / GIGABYTE
        return next(level for floor_gb, level in _FLOORS if available_gb >= floor_gb)

    @property
    def available_gb(self) -> str:
        """Gigabytes with two decimals, or `unknown`."""
        return "unknown" if self.available_bytes is None else f"{self.available_bytes / GIGABYTE:.2f}"


def read_memory(meminfo: Path = MEMINFO) -> MemoryReading:
    """The memory available now; blocks for some microseconds, so it is no call for an event loop."""
    try:
        lines = meminfo.read_text("ascii").splitlines()
    except OSError:
        return MemoryReading(None)
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    kibibytes = fields.get("MemAvailable", "").removesuffix("kB").strip()
    return MemoryReading(int(kibibytes) * 1024 if kibibytes.isdigit() else None)
