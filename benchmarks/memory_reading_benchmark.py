"""How long one reading of memory takes: the kernel's files kept open, against opening them each time.

Run with `python benchmarks/memory_reading_benchmark.py`. Prints medians and 99th percentiles, in microseconds, and
beside them what this machine does to work that cannot be made cheaper: an empty loop that takes as long as a reading,
and the kernel's part alone. Where those have large percentiles, the machine is busy, and the reading's say nothing.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from pensieve.devices.cuda import read_devices
from pensieve.devices.levels import level_of
from pensieve.devices.memory import MemoryReader, read_memory
from pensieve.devices.processes import read_process

NUM_READINGS = 5000


def timed(read: Callable[[], object], num_readings: int = NUM_READINGS) -> list[float]:
    """Microseconds of each reading, after a few that are not counted."""
    for _ in range(50):
        read()
    microseconds = []
    for _ in range(num_readings):
        began = time.perf_counter_ns()
        read()
        microseconds.append((time.perf_counter_ns() - began) / 1000)
    return microseconds


def anew() -> None:
    """A reading by a reader of its own."""
    reader = MemoryReader()
    reader.read()
    reader.close()


def naive() -> dict[str, str]:
    """What one writes first: the machine's own numbers only, no cgroup, no stalls."""
    with Path("/proc/meminfo").open() as file:
        return dict(line.split(":", 1) for line in file)


def spinning(microseconds: float) -> Callable[[], object]:
    """Counts, in about as many microseconds as a reading takes, and asks nobody anything."""
    num_rounds = 10_000
    took = statistics.median(timed(lambda: sum(range(num_rounds)), 200))
    wanted = round(num_rounds * microseconds / took)
    return lambda: sum(range(wanted))


def main() -> None:
    """Print a row for each way to read."""
    reader = MemoryReader()
    kernel = os.open("/proc/meminfo", os.O_RDONLY)
    ways: dict[str, Callable[[], object]] = {
        "files kept open": reader.read,
        "noise: an empty loop as long": spinning(statistics.median(timed(reader.read))),
        "noise: pread of meminfo alone": lambda: os.pread(kernel, 8192, 0),
        "files opened each time": anew,
    }
    ways["one process"] = lambda: read_process(os.getpid())
    ways["meminfo split into a dictionary"] = naive
    if cards := read_devices():
        ways[f"{len(cards)} NVIDIA cards"] = read_devices
    print(f"load of the machine: {os.getloadavg()[0]:.1f}, on {os.cpu_count()} processors")
    print(f"{'reading':<32} {'median':>9} {'p99':>9}  microseconds, of {NUM_READINGS}")
    for name, read in ways.items():
        times = timed(read)
        print(f"{name:<32} {statistics.median(times):9.1f} {statistics.quantiles(times, n=100)[98]:9.1f}")
    os.close(kernel)
    reading = read_memory()
    print(f"it said: {reading.available_gb} GB, {level_of(reading)}")


if __name__ == "__main__":
    main()
