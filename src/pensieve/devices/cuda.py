"""What NVIDIA's management library says of the graphics cards: memory, over all processes. Needs no CUDA itself.

The library comes with the driver and is loaded when it is there; where it is not, there are no cards.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import msgspec

LIBRARY = "libnvidia-ml.so.1"
_TEXT_BYTES = 96


class DeviceMemory(msgspec.Struct, frozen=True):
    """One card and its memory."""

    name: str
    uuid: str
    total_bytes: int
    free_bytes: int


class _MemoryInfo(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Nvml:
    """The opened library; raises `OSError` where it is missing, and where it finds no driver to speak to."""

    def __init__(self, library: str = LIBRARY) -> None:
        self._calls = ctypes.CDLL(library)
        try:
            status = self._calls.nvmlInit_v2()
        except AttributeError as error:
            raise OSError(f"{library} is no NVML: {error}") from error
        if status != 0:
            raise OSError(f"nvmlInit failed with status {status}")

    def devices(self) -> tuple[DeviceMemory, ...]:
        """Every card, in the order of the bus; one that does not answer is left out."""
        count = ctypes.c_uint()
        if not self._ask("nvmlDeviceGetCount_v2", ctypes.byref(count)):
            return ()
        found = (self._device(index) for index in range(min(count.value, 64)))
        return tuple(device for device in found if device is not None)

    def _device(self, index: int) -> DeviceMemory | None:
        handle = ctypes.c_void_p()
        info = _MemoryInfo()
        if not self._ask("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle)):
            return None
        if not self._ask("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(info)):
            return None
        return DeviceMemory(
            self._text("nvmlDeviceGetName", handle), self._text("nvmlDeviceGetUUID", handle), info.total, info.free
        )

    def _text(self, call: str, handle: ctypes.c_void_p) -> str:
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        is_known = self._ask(call, handle, buffer, ctypes.c_uint(_TEXT_BYTES))
        return buffer.value.decode("utf-8", "replace") if is_known else ""

    def _ask(self, call: str, *arguments: object) -> bool:
        function: Callable[..., int] | None = getattr(self._calls, call, None)
        return function is not None and function(*arguments) == 0


@functools.cache
def _own_library() -> Nvml | None:
    try:
        return Nvml()
    except OSError:
        return None


def read_devices() -> tuple[DeviceMemory, ...]:
    """The cards of this machine and their memory now; none where the driver is not there. Blocks for milliseconds."""
    library = _own_library()
    return () if library is None else library.devices()


def read_device(uuid: str) -> DeviceMemory | None:
    """The card of that UUID; without one, the only card there is."""
    devices = read_devices()
    if not uuid:
        return devices[0] if len(devices) == 1 else None
    return next((device for device in devices if device.uuid == uuid), None)
