"""Cards as the driver's library tells of them, through a small library of our own that speaks the same calls."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pensieve.devices.cuda import DeviceMemory, Nvml, read_device, read_devices

HOPPER = DeviceMemory("Test Hopper", "GPU-00", 80_000_000_000, 79_000_000_000)
SOURCE = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
int nvmlInit_v2(void) { return STATUS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    if ((long)handle == 2) return 15;  /* the second card is lost */
    memory->total = 80000000000ULL; memory->free = 79000000000ULL; memory->used = 1; return 0;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) { strncpy(text, "Test Hopper", size); return 0; }
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    strncpy(text, "GPU-00", size); if ((long)handle == 3) text[5] = '2'; return 0;
}
"""


def build(folder: Path, status: int) -> str:
    """The path of a library whose `nvmlInit_v2` answers `status`."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (folder / "nvml.c").write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", f"-DSTATUS={status}", "-o", "nvml.so", "nvml.c"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return str(folder / "nvml.so")


def test_cards_that_answer_are_told_with_their_memory(tmp_path: Path) -> None:
    """A card that fell off the bus is left out, and the rest keep their names."""
    names = [(device.uuid, device.free_bytes) for device in Nvml(build(tmp_path, 0)).devices()]
    assert Nvml(build(tmp_path, 0)).devices()[0] == HOPPER
    assert names == [("GPU-00", 79_000_000_000), ("GPU-02", 79_000_000_000)]


def test_a_library_without_a_driver_is_as_none(tmp_path: Path) -> None:
    """It can be installed where no driver runs, as in a container."""
    with pytest.raises(OSError, match="status 9"):
        Nvml(build(tmp_path, 9))


def test_a_library_that_is_not_there_or_another_one_is_an_os_error() -> None:
    """The one error callers know."""
    with pytest.raises(OSError, match="no-such"):
        Nvml("libno-such-thing.so.1")
    with pytest.raises(OSError, match="is no NVML"):
        Nvml(None)  # type: ignore[arg-type]  # the process itself, as a library without these calls


def test_this_machine_is_asked_without_harm() -> None:
    """Where there is no driver there are no cards, and no card has a made-up name."""
    assert all(device.free_bytes <= device.total_bytes for device in read_devices())
    assert read_device("GPU-not-there") is None
