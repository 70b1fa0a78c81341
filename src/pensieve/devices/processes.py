"""How much memory another process of ours holds. Knows no engine and decides nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from pensieve.devices import darwin
from pensieve.devices.memory import read_kernel_file

_PRIVATE = (b"\nRssAnon:", b"\nRssShmem:", b"\nVmSwap:")


class ProcessMemory(msgspec.Struct, frozen=True):
    """Bytes of one process: what is its own, swapped out or not, and pages of files that it maps."""

    private_bytes: int
    mapped_bytes: int = 0
    """Weights of a mapped model, for the most part; the kernel takes them back when memory is short."""

    @property
    def resident_bytes(self) -> int:
        """Both together."""
        return self.private_bytes + self.mapped_bytes


def read_process(pid: int, root: Path = Path("/proc")) -> ProcessMemory | None:
    """The memory of that process; None where it is gone or nobody says. Takes some tens of microseconds."""
    if sys.platform == "darwin":  # pragma: no cover - no such machine runs our tests
        footprint = darwin.footprint_bytes(pid)
        return None if footprint is None else ProcessMemory(footprint)
    status = read_kernel_file(root / str(pid) / "status")
    if b"\nRssAnon:" not in status:  # a zombie holds nothing and says nothing
        return None
    return ProcessMemory(sum(_kibibytes(status, name) for name in _PRIVATE), _kibibytes(status, b"\nRssFile:"))


def _kibibytes(status: bytes, name: bytes) -> int:
    """Bytes of that line; 0 without it. Splits only what is needed: this runs several times a second."""
    start = status.find(name)
    return int(status[start + len(name) : start + len(name) + 24].split(maxsplit=1)[0]) * 1024 if start >= 0 else 0
