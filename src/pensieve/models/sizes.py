"""Byte counts in words. Knows nothing else."""

from __future__ import annotations


def in_words(num_bytes: int) -> str:
    """The size in the unit that fits, with binary prefixes: `93.8 MiB`."""
    size = float(num_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
