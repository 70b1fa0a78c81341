"""Byte counts in words, as people read them: always in powers of ten, as disks, downloads and memory are sold.

A MiB is a setting's (`_mib`) or a limit's, never a size that was found. Knows nothing else.
"""

from __future__ import annotations

KILOBYTE, MEGABYTE, GIGABYTE = 10**3, 10**6, 10**9


def in_words(num_bytes: int) -> str:
    """The size in the unit that fits: `98.4 MB`, `2.15 GB`."""
    # By what would be printed: 999,999,999 bytes are no 1000.0 MB.
    if abs(num_bytes) >= 999_950_000:
        return gigabytes(num_bytes)
    for unit, size in (("MB", MEGABYTE), ("kB", KILOBYTE)):
        if abs(num_bytes) >= size * 0.99995:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} bytes"


def gigabytes(num_bytes: int) -> str:
    """The same always in GB, for sizes that are compared with each other, as memory is: `0.02 GB`."""
    return f"{num_bytes / GIGABYTE:.2f} GB"
