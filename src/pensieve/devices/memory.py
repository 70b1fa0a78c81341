"""How much memory the machine has left, for this process: the machine's own, within the limits of its cgroups.

Knows no engine and decides nothing. A machine that cannot be read is `Unknown`, which says so rather than guesses.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from pensieve.devices import darwin

GIGABYTE = 10**9
ROOT = Path("/")
SLOW_SECONDS = 1.0
"""How long what changes slowly is believed: a limit that is set where there was none is felt that much later."""

_AVAILABLE = b"\nMemAvailable:"
_SLOW = (b"\nMemTotal:", b"\nSwapTotal:", b"\nSwapFree:")
_STAT_BYTES = 8_192
"""More than the longest file that is read here."""


class MemoryReading(msgspec.Struct, frozen=True):
    """Memory that can be had without swapping, and all there is; None where this machine cannot be read.

    Where a cgroup limits this process, both are what the limit leaves.
    """

    available_bytes: int | None
    total_bytes: int | None = None
    limited_by: str = ""
    """The cgroup folder whose limit leaves less than the machine has; empty where none does."""
    swap_used_bytes: int | None = None
    swap_total_bytes: int | None = None
    stalled_percent: float | None = None
    """Linux: part of the last ten seconds in which everything waited for memory (PSI, `full avg10`)."""
    pressure_level: int = 0
    """macOS: 1 normal, 2 warning, 4 critical; 0 where nobody says. It comes late."""
    card: MemoryReading | None = None
    """The graphics card that the model lies on, where its memory is its own; `limited_by` is its name."""

    @property
    def available_gb(self) -> str:
        """Gigabytes with two decimals, or `unknown`."""
        return "unknown" if self.available_bytes is None else f"{self.available_bytes / GIGABYTE:.2f}"


UNKNOWN = MemoryReading(None)


class MemoryReader:
    """Reads the same few files again and again; they stay open, so that a reading takes microseconds.

    What changes slowly, or does not limit anybody, is looked at once a second; the rest each time. May be read from any
    thread. A process that is moved to another cgroup needs a new reader.
    """

    def __init__(self, root: Path = ROOT, clock: Callable[[], float] = time.monotonic) -> None:
        """Open what there is under `root`: `proc/meminfo`, and the memory files of this process's cgroups."""
        self._clock = clock
        self._meminfo = _KeptFile.open(root / "proc/meminfo")
        self._cgroups = tuple(_open_cgroups(root))
        own = self._cgroups[0].folder if self._cgroups else ""
        stalls = _KeptFile.open(Path(own) / "memory.pressure") if own else None
        self._stalls = stalls or _KeptFile.open(root / "proc/pressure/memory")
        self._surroundings: _Surroundings | None = None

    def read(self) -> MemoryReading:
        """The memory now; takes a few tens of microseconds at most and waits for nothing."""
        now = self._clock()
        lines = b"" if self._meminfo is None else self._meminfo.read()
        around = self._surroundings
        if around is None or now >= around.until_seconds:
            around = self._surroundings = self._look_around(lines, now)
        available, total, limited_by = _kibibytes(_after(lines, _AVAILABLE)), around.total_bytes, ""
        for cgroup in around.cgroups:
            limit = cgroup.limit_bytes(around.total_bytes)
            left = None if limit is None else cgroup.left_bytes(limit, available)
            if left is None or limit is None:
                continue
            total = limit if total is None else min(limit, total)
            if available is None or left < available:
                available, limited_by = left, cgroup.folder
        swap = around.swap_used_bytes, around.swap_total_bytes
        return MemoryReading(available, total, limited_by, *swap, around.stalled_percent)

    def close(self) -> None:
        """Close the files; the reader cannot be used afterwards."""
        for kept in (self._meminfo, self._stalls, *(kept for cgroup in self._cgroups for kept in cgroup.files)):
            if kept is not None:
                os.close(kept.descriptor)

    def _look_around(self, lines: bytes, now_seconds: float) -> _Surroundings:
        total, swap, free_swap = (_kibibytes(_after(b"\n" + lines, name)) for name in _SLOW)
        return _Surroundings(
            now_seconds + SLOW_SECONDS,
            total,
            None if swap is None or free_swap is None else swap - free_swap,
            swap,
            self._stalled_percent(),
            tuple(cgroup for cgroup in self._cgroups if cgroup.limit_bytes(total) is not None),
        )

    def _stalled_percent(self) -> float | None:
        """None where the kernel counts no stalls, or writes them in another way."""
        full = b"" if self._stalls is None else _after(b"\n" + self._stalls.read(), b"\nfull avg10=")
        try:
            return float(full.partition(b" ")[0]) if full else None
        except ValueError:
            return None


class _Surroundings(msgspec.Struct, frozen=True):
    """What a reading needs and what changes slowly: the kernel averages stalls every two seconds."""

    until_seconds: float
    total_bytes: int | None
    swap_used_bytes: int | None
    swap_total_bytes: int | None
    stalled_percent: float | None
    cgroups: tuple[_Cgroup, ...]
    """Those whose limit is tighter than the machine."""


def read_memory() -> MemoryReading:
    """The memory now, of the machine and within this process's cgroups; takes some tens of microseconds."""
    if sys.platform == "darwin":  # pragma: no cover - no such machine runs our tests
        swap = darwin.swap_bytes()
        return MemoryReading(
            darwin.available_bytes(),
            darwin.total_bytes(),
            swap_used_bytes=None if swap is None else swap.used_bytes,
            swap_total_bytes=None if swap is None else swap.total_bytes,
            pressure_level=darwin.pressure_level(),
        )
    return _own_reader().read()


def narrowed(reading: MemoryReading, left_bytes: int, limit_bytes: int, by: str) -> MemoryReading:
    """The reading within one more limit, of which so much is left."""
    total = limit_bytes if reading.total_bytes is None else min(limit_bytes, reading.total_bytes)
    if reading.available_bytes is not None and reading.available_bytes <= left_bytes:
        return msgspec.structs.replace(reading, total_bytes=total)
    return msgspec.structs.replace(reading, available_bytes=left_bytes, total_bytes=total, limited_by=by)


def read_kernel_file(path: Path) -> bytes:
    """A small file of the kernel's, which is made when it is read, so that no disk is waited for; empty without it."""
    kept = _KeptFile.open(path)
    if kept is None:
        return b""
    try:
        return kept.read()
    finally:
        os.close(kept.descriptor)


@functools.cache
def _own_reader() -> MemoryReader:
    return MemoryReader()


class _KeptFile(msgspec.Struct, frozen=True):
    descriptor: int

    @classmethod
    def open(cls, path: Path) -> _KeptFile | None:
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None

    def read(self) -> bytes:
        """The content now; empty where it cannot be read any more."""
        try:
            return os.pread(self.descriptor, _STAT_BYTES, 0)
        except OSError:
            return b""


class _Cgroup(msgspec.Struct, frozen=True):
    """One cgroup with a memory controller: its limit, its use, and what of that use the kernel can take back."""

    folder: str
    limit: _KeptFile
    usage: _KeptFile
    stat: _KeptFile
    reclaimable: tuple[bytes, bytes]
    """How lines of file pages begin in `stat`: a mapped model counts as used, yet goes when memory is short."""
    high: _KeptFile | None = None
    """Version 2: above it the kernel takes memory back and slows the process down until it hardly runs."""

    @property
    def files(self) -> tuple[_KeptFile, ...]:
        return (self.limit, self.usage, self.stat, *([] if self.high is None else [self.high]))

    def limit_bytes(self, machine_bytes: int | None) -> int | None:
        """The limit; None where there is none tighter than the machine itself."""
        limit = _number(self.limit.read())
        high = None if self.high is None else _number(self.high.read())
        if high is not None and (limit is None or high < limit):
            limit = high
        return limit if limit is not None and limit < (machine_bytes or sys.maxsize) else None

    def left_bytes(self, limit: int, available_bytes: int | None) -> int | None:
        """What is left within the limit, or less where that is more than is available anyway; None if nobody says."""
        usage = _number(self.usage.read())
        if usage is None:
            return None
        if available_bytes is not None and limit - usage >= available_bytes:
            return limit - usage  # the file of counts is by far the longest: it is not asked for more of the same
        counts = b"\n" + self.stat.read()
        reclaimable = sum(_number(_after(counts, name)) or 0 for name in self.reclaimable)
        return max(0, limit - max(0, usage - reclaimable))


def _open_cgroups(root: Path) -> Iterator[_Cgroup]:
    """Every cgroup that this process is in and that counts memory, from its own up to the root's."""
    for line in read_kernel_file(root / "proc/self/cgroup").decode("utf-8", "replace").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            names = ("memory.max", "memory.current"), (b"\ninactive_file ", b"\nactive_file ")
            yield from _chain(root / "sys/fs/cgroup", path, *names)
        elif "memory" in controllers.split(","):
            names = (
                ("memory.limit_in_bytes", "memory.usage_in_bytes"),
                (b"\ntotal_inactive_file ", b"\ntotal_active_file "),
            )
            yield from _chain(root / "sys/fs/cgroup/memory", path, *names)


def _chain(mount: Path, path: str, names: tuple[str, str], reclaimable: tuple[bytes, bytes]) -> Iterator[_Cgroup]:
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for depth in range(len(parts), -1, -1):
        # In a container the mount can be this process's own cgroup: folders that are not there are passed over.
        folder = mount.joinpath(*parts[:depth])
        limit, usage, stat = (_KeptFile.open(folder / name) for name in (*names, "memory.stat"))
        if limit and usage and stat:
            yield _Cgroup(str(folder), limit, usage, stat, reclaimable, _KeptFile.open(folder / "memory.high"))
        else:
            for kept in (limit, usage, stat):
                if kept is not None:
                    os.close(kept.descriptor)


def _number(text: bytes) -> int | None:
    """The number of a cgroup file; None for `max` and for what is none."""
    text = text.strip()
    return int(text) if text.isdigit() else None


def _after(lines: bytes, name: bytes) -> bytes:
    """The rest of the line that begins with `name`; empty where there is none. Splits nothing: this runs often."""
    start = lines.find(name)
    if start < 0:
        return b""
    start += len(name)
    end = lines.find(b"\n", start)
    return lines[start:] if end < 0 else lines[start:end]


def _kibibytes(text: bytes) -> int | None:
    number = _number(text.strip().removesuffix(b"kB"))
    return None if number is None else number * 1024
