"""What macOS says of memory, asked through its C library. Written from the headers; not verified on a Mac yet.

So every answer is checked for sense, and one that makes none is None. Nothing here is called elsewhere.
"""

from __future__ import annotations

import ctypes
import struct

VM_STATISTICS = struct.Struct("=4I9Q2I4Q4IQ")
"""`struct vm_statistics64`: free, active, inactive, wired; 9 counters; purgeable, speculative; 4 counters;
compressor, throttled, external, internal; uncompressed pages in the compressor."""

_HOST_VM_INFO64 = 4
_WORD_BYTES = 4


def sysctl_text(name: str) -> str:
    """A text the kernel keeps (`machdep.cpu.brand_string`); empty where it has none."""
    value = _sysctl(name)
    return value.rstrip(b"\0").decode("utf-8", "replace")


def sysctl_number(name: str) -> int | None:
    """A number the kernel keeps (`hw.memsize`, `iogpu.wired_limit_mb`); None where it has none."""
    value = _sysctl(name)
    return int.from_bytes(value, "little") if len(value) in {4, 8} else None


def total_bytes() -> int | None:
    """The machine's memory."""
    return sysctl_number("hw.memsize")


def available_bytes() -> int | None:
    """Memory that is free or can be taken back without compressing or swapping."""
    total = total_bytes()
    library = _library()
    if total is None or library is None or not hasattr(library, "host_statistics64"):
        return None
    host = library.mach_host_self()
    page_bytes = ctypes.c_size_t()
    words = ctypes.c_uint32(VM_STATISTICS.size // _WORD_BYTES)
    buffer = ctypes.create_string_buffer(VM_STATISTICS.size)
    if library.host_page_size(host, ctypes.byref(page_bytes)) != 0:
        return None
    if library.host_statistics64(host, _HOST_VM_INFO64, buffer, ctypes.byref(words)) != 0:
        return None
    return available_of(buffer.raw, page_bytes=page_bytes.value, total_bytes=total)


def available_of(statistics: bytes, *, page_bytes: int, total_bytes: int) -> int | None:
    """Free and inactive pages, in bytes; None unless the pages add up to about the machine's memory.

    Speculative pages are part of the free ones, and purgeable ones of the rest: neither is added.
    """
    fields = VM_STATISTICS.unpack(statistics)
    free, active, inactive, wired = fields[:4]
    compressor = fields[19]
    known_bytes = (free + active + inactive + wired + compressor) * page_bytes
    if not 0.5 * total_bytes <= known_bytes <= 1.1 * total_bytes:
        return None
    return int((free + inactive) * page_bytes)


def _sysctl(name: str) -> bytes:
    library = _library()
    if library is None or not hasattr(library, "sysctlbyname"):
        return b""
    size = ctypes.c_size_t(256)
    buffer = ctypes.create_string_buffer(size.value)
    if library.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return b""
    return buffer.raw[: size.value]


def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except OSError:
        return None
