"""The C library's heap, in processes of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such calls")

FREE_A_LARGE_BLOCK = """
import ctypes
from pathlib import Path
from pensieve.devices import heap

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20

if {is_apart}:
    assert heap.keep_large_blocks_apart()
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def taken(num_bytes):
    block = library.malloc(num_bytes)
    ctypes.memset(block, 1, num_bytes)
    return block

library.free(taken(30 * 2**20))  # from here on glibc would put blocks of this size into the heap
before = resident_mib()
blocks = [taken(20 * 2**20) for _ in range(4)]
keeper = taken(100_000)  # lives on above them
for block in blocks:
    library.free(block)
print(resident_mib() - before)
{after}
print(resident_mib() - before)
"""


def left_mib(*, is_apart: bool, after: str = "") -> list[int]:
    """Of 80 MiB that were freed below a block that lives: what the process still holds, before and after `after`."""
    code = FREE_A_LARGE_BLOCK.format(is_apart=is_apart, after=after)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(line) for line in told.stdout.split()]


def test_large_blocks_go_back_when_they_are_freed() -> None:
    """Without the fixed threshold they would wait in the heap below the block that lives on."""
    assert left_mib(is_apart=True)[0] < 10
    assert left_mib(is_apart=False)[0] > 60


def test_what_the_heap_kept_is_given_back() -> None:
    """Trimming reaches holes below blocks that live."""
    before, after = left_mib(is_apart=False, after="assert heap.trim()")
    assert before > 60
    assert after < 10
