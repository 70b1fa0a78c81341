"""How much memory a process holds."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pensieve.devices.memory import MemoryReading
from pensieve.devices.processes import ProcessMemory, read_data_bytes, read_process, within_limits

STATUS = "Name: x\nVmRSS:  900 kB\nRssAnon:  500 kB\nRssFile:  300 kB\nRssShmem:  100 kB\nVmSwap:  50 kB\n"


def test_own_pages_and_mapped_files_are_told_apart(tmp_path: Path) -> None:
    """What was swapped out is still the process's own."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(STATUS)
    assert read_process(7, tmp_path) == ProcessMemory(650 * 1024, 300 * 1024)


@pytest.mark.parametrize("status", [None, "Name: x\nState: Z (zombie)\n"])
def test_a_process_that_is_gone_holds_nothing(tmp_path: Path, status: str | None) -> None:
    """Dead, or dead and not yet collected."""
    (tmp_path / "7").mkdir()
    if status is not None:
        (tmp_path / "7" / "status").write_text(status)
    assert read_process(7, tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux was tried")
def test_memory_that_is_taken_is_seen() -> None:
    """Sixty-four megabytes, written to."""
    before = read_process(os.getpid())
    with mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        taken.write(b"x" * len(taken))
        after = read_process(os.getpid())
    assert before is not None
    assert after is not None
    assert 60 * 2**20 < after.private_bytes - before.private_bytes < 80 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces these limits")
@pytest.mark.parametrize("name", ["RLIMIT_DATA", "RLIMIT_AS"])
def test_the_limits_of_a_process_narrow_what_is_left(name: str) -> None:
    """To what it has not taken yet of them; the hard limit is all there is. Without limits nothing changes."""
    roomy, number = MemoryReading(10**12, 2 * 10**12), getattr(resource, name)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert within_limits(roomy, child.pid) == roomy
        resource.prlimit(child.pid, number, (3 * 10**9, 4 * 10**9))
        reading = within_limits(roomy, child.pid)
        child.communicate()
    assert reading.available_bytes is not None
    assert 2 * 10**9 < reading.available_bytes < 3 * 10**9
    assert (reading.total_bytes, reading.limited_by) == (4 * 10**9, name)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces these limits")
def test_data_that_a_process_holds_counts_before_it_is_touched() -> None:
    """As the kernel counts it; a process that is gone holds none."""
    before = read_data_bytes(os.getpid())
    with mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        assert read_data_bytes(os.getpid()) - before >= 64 * 2**20
    assert read_data_bytes(2**30) == 0
