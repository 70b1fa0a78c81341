"""How much memory another process of ours holds. Knows no engine and decides nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from pensieve.devices import darwin
from pensieve.devices.memory import read_kernel_file

_PRIVATE = ("RssAnon", "RssShmem", "VmSwap")


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
    lines = read_kernel_file(root / str(pid) / "status").decode("ascii", "replace").splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    if "RssAnon" not in found:  # a zombie holds nothing and says nothing
        return None
    return ProcessMemory(sum(_kibibytes(found.get(name, "0 kB")) for name in _PRIVATE), _kibibytes(found["RssFile"]))


def _kibibytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) * 1024
