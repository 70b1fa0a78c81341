"""How much memory is left, read from the kernel's own words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pensieve.devices.memory import GIGABYTE, MemoryReading, read_memory


@pytest.mark.parametrize(
    ("available_gb", "level"),
    [
        (8.13, "Safe"),
        (2.0, "Safe"),
        (1.99, "Warning"),
        (1.0, "Warning"),
        (0.99, "Critical"),
        (0.5, "Critical"),
        (0.49, "Emergency"),
        (0.0, "Emergency"),
    ],
)
def test_levels_begin_at_their_floors(available_gb: float, level: str) -> None:
    """Safe from 2 GB, Warning below, Critical below 1, Emergency below 0.5."""
    assert MemoryReading(round(available_gb * GIGABYTE)).level == level


def test_meminfo_is_read_in_kibibytes(tmp_path: Path) -> None:
    """The kernel writes kB and means 1,024 bytes."""
    (tmp_path / "meminfo").write_text("MemTotal:       16384000 kB\nMemAvailable:    7939453 kB\n")
    reading = read_memory(tmp_path / "meminfo")
    assert reading == MemoryReading(7939453 * 1024)
    assert reading.available_gb == "8.13"


@pytest.mark.parametrize("content", ["", "MemTotal: 1 kB\n", "MemAvailable:\n", "MemAvailable: lots\n"])
def test_a_machine_that_cannot_be_read_is_unknown(tmp_path: Path, content: str) -> None:
    """Rather than safe or full."""
    (tmp_path / "meminfo").write_text(content)
    for path in (tmp_path / "meminfo", tmp_path / "none"):
        reading = read_memory(path)
        assert (reading.level, reading.available_gb) == ("Unknown", "unknown")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is read for now")
def test_this_machine_can_be_read() -> None:
    """With a plausible number."""
    available_bytes = read_memory().available_bytes
    assert available_bytes is not None
    assert available_bytes > 10**6
