"""What macOS says of memory, asked through its C library. Written from the headers; not verified on a Mac yet.

So every answer is checked for sense, and one that makes none is None. Nothing here is called elsewhere.
"""

from __future__ import annotations

import ctypes
import struct

import msgspec

VM_STATISTICS = struct.Struct("=4I9Q2I4Q4IQ")
"""`struct vm_statistics64`: free, active, inactive, wired; 9 counters; purgeable, speculative; 4 counters;
compressor, throttled, external, internal; uncompressed pages in the compressor."""

RUSAGE = struct.Struct("=16s35Q")
"""`struct rusage_info_v4`: a UUID and 35 counters, of which the eighth is the physical footprint."""

SWAP_USAGE = struct.Struct("=3QIi")
"""`struct xsw_usage`: total, available, used; the size of a page, and whether it is encrypted."""

MIB = 2**20
_HOST_VM_INFO64 = 4
_RUSAGE_INFO_V4 = 4
_FOOTPRINT = 8
_WORD_BYTES = 4


class SwapUsage(msgspec.Struct, frozen=True):
    """Swap files, in bytes."""

    total_bytes: int
    used_bytes: int


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
    """Free pages, and the inactive or the purgeable ones, whichever are more, in bytes.

    Purgeable pages lie in the active and inactive queues, so that inactive and purgeable ones overlap by an unknown
    part: the larger of both is the least that can be had. Speculative pages are among the free ones. None unless the
    pages add up to about the machine's memory: the structure was read wrongly then.
    """
    fields = VM_STATISTICS.unpack(statistics)
    free, active, inactive, wired = fields[:4]
    purgeable, compressor = fields[13], fields[19]
    known_bytes = (free + active + inactive + wired + compressor) * page_bytes
    if not 0.5 * total_bytes <= known_bytes <= 1.1 * total_bytes or purgeable > active + inactive:
        return None
    return int((free + max(inactive, purgeable)) * page_bytes)


def swap_bytes() -> SwapUsage | None:
    """The swap files of this machine; None where nobody says."""
    return swap_of(_sysctl("vm.swapusage"))


def swap_of(raw: bytes) -> SwapUsage | None:
    """What the structure says; None where it has another size."""
    if len(raw) != SWAP_USAGE.size:
        return None
    total, _available, used, _page, _is_encrypted = SWAP_USAGE.unpack(raw)
    return SwapUsage(total, used) if used <= total else None


def pressure_level() -> int:
    """How the kernel feels: 1 normal, 2 warning, 4 critical; 0 where it does not say. Comes late."""
    level = sysctl_number("kern.memorystatus_vm_pressure_level")
    return level if level in {1, 2, 4} else 0


def wired_limit_bytes(total: int) -> int:
    """What the GPU may wire of that much memory: as set by the user, else about what macOS takes by itself."""
    return wired_limit_of(sysctl_number("iogpu.wired_limit_mb"), total)


def wired_limit_of(limit_mib: int | None, total: int) -> int:
    """The limit that was set, at most the memory; two thirds of it up to 36 GiB, three quarters above, if none was."""
    if limit_mib:
        return min(limit_mib * MIB, total)
    return total * 2 // 3 if total <= 36 * 2**30 else total * 3 // 4


def footprint_bytes(pid: int) -> int | None:
    """The physical footprint of a process: resident, compressed and GPU memory; None where nobody says."""
    library = _library()
    if library is None or not hasattr(library, "proc_pid_rusage"):
        return None
    buffer = ctypes.create_string_buffer(RUSAGE.size)
    if library.proc_pid_rusage(pid, _RUSAGE_INFO_V4, buffer) != 0:
        return None
    return footprint_of(buffer.raw)


def footprint_of(usage: bytes) -> int:
    """The physical footprint in the structure, in bytes."""
    return int(RUSAGE.unpack(usage)[_FOOTPRINT])


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
