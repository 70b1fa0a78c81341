"""How much memory another process of ours holds, and may hold. Knows no engine and decides nothing."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import msgspec

from pensieve.devices import darwin
from pensieve.devices.memory import MemoryReading, narrowed, read_kernel_file, read_memory

_DATA = 5

if sys.platform == "linux":
    import resource

    _LIMITS = (("RLIMIT_AS", resource.RLIMIT_AS, 0), ("RLIMIT_DATA", resource.RLIMIT_DATA, _DATA))
    """Name, number, and the place in `statm` of what counts against it (proc(5)): all that is mapped, or private."""

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


def read_data_bytes(pid: int) -> int:
    """What that process holds against `ulimit -d`: memory that is its own, touched or not; 0 where it is gone."""
    return _counted(pid, _DATA)


def within_limits(reading: MemoryReading, pid: int = 0) -> MemoryReading:
    """The reading within what that process may take (`ulimit -v`, `ulimit -d`); 0: one that this process starts next.

    The hard limit is all there is, since the soft one can be raised to it.
    """
    if sys.platform != "linux":  # pragma: no cover - macOS enforces neither
        return reading
    for name, number, place in _LIMITS:
        try:
            soft, hard = resource.prlimit(pid, number)
        except OSError:
            continue
        if soft == resource.RLIM_INFINITY:
            continue
        total = soft if hard == resource.RLIM_INFINITY else hard
        reading = narrowed(reading, max(0, soft - (_counted(pid, place) if pid else 0)), total, name)
    return reading


def read_own_memory() -> MemoryReading:
    """The memory now, for this process, which itself may be limited."""
    return within_limits(read_memory(), os.getpid())


def read_spare_memory() -> MemoryReading:
    """The memory now, for a process that is started next."""
    return within_limits(read_memory())


def _counted(pid: int, place: int) -> int:
    pages = read_kernel_file(Path("/proc") / str(pid) / "statm").split()
    return int(pages[place]) * mmap.PAGESIZE if pages else 0


def _kibibytes(status: bytes, name: bytes) -> int:
    """Bytes of that line; 0 without it. Splits only what is needed: this runs several times a second."""
    start = status.find(name)
    return int(status[start + len(name) : start + len(name) + 24].split(maxsplit=1)[0]) * 1024 if start >= 0 else 0
