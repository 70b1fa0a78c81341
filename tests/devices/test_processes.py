"""How much memory a process holds."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

from pensieve.devices.processes import ProcessMemory, read_process

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
