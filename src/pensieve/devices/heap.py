"""The C library's heap: memory that a process has freed, and that the library still keeps for it.

Knows no engine and no policy of when to give it back. Both functions do nothing where the C library is not glibc.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

LARGE_BYTES = 128 * 1024
"""glibc's own first threshold: a block of this size gets pages of its own, which go back when it is freed."""

_M_MMAP_THRESHOLD = -3


def keep_large_blocks_apart() -> bool:
    """Fix the size from which blocks get pages of their own; True if that was done.

    glibc raises it, up to 32 MiB, whenever a larger block is freed (mallopt(3)). Blocks of all sizes then share the
    heap, and one small block that lives on keeps megabytes around it.
    """
    library = _glibc()
    return library is not None and library.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES) == 1


def trim() -> bool:
    """Give freed memory back to the system; True if some was. Takes milliseconds: for idle moments."""
    library = _glibc()
    return library is not None and library.malloc_trim(0) == 1


@functools.cache
def _glibc() -> Any:
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim") or not hasattr(library, "mallopt"):
        return None
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library
