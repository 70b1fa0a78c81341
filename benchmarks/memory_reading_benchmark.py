"""How long one reading of memory takes: the kernel's files kept open, against opening them each time.

Run with `python benchmarks/memory_reading_benchmark.py`. Prints medians and 99th percentiles, in microseconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from pensieve.devices.cuda import read_devices
from pensieve.devices.memory import MemoryReader, read_memory

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


def main() -> None:
    """Print a row for each way to read."""
    ways: dict[str, Callable[[], object]] = {"files kept open": MemoryReader().read, "files opened each time": anew}
    if cards := read_devices():
        ways[f"{len(cards)} NVIDIA cards"] = read_devices
    print(f"{'reading':<24} {'median':>9} {'p99':>9}  microseconds, of {NUM_READINGS}")
    for name, read in ways.items():
        times = timed(read)
        print(f"{name:<24} {statistics.median(times):9.1f} {statistics.quantiles(times, n=100)[98]:9.1f}")
    reading = read_memory()
    print(f"it said: {reading.available_gb} GB, {reading.level}")


if __name__ == "__main__":
    main()
