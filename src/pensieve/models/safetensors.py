"""The safetensors container: an index of its tensors, read without touching their data.

The file is hostile: the header's length, every count, shape and offset is bounded by the file or by fixed limits.
Knows the container only; imports no engine. Layout: length of the header (8 bytes), header (JSON), tensor data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from pensieve.errors import LoadFailed

MAX_HEADER_BYTES: Final = 100_000_000
"""What the format itself allows."""
MAX_TENSORS: Final = 200_000
MAX_ELEMENTS: Final = 2**48
ELEMENT_BITS: Final = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
    "F4": 4,
}
"""Types of the format; a type that is newer than this table is judged by its offsets alone."""
_LENGTH: Final = struct.Struct("<Q")
_Size = Annotated[int, Meta(ge=0, le=MAX_ELEMENTS)]


class Tensor(msgspec.Struct, frozen=True):
    """One tensor's description; the offsets count from the end of the header."""

    dtype: Annotated[str, Meta(max_length=32)]
    shape: Annotated[tuple[_Size, ...], Meta(max_length=16)]
    data_offsets: tuple[_Size, _Size]

    @property
    def num_bytes(self) -> int:
        """Of its data."""
        return self.data_offsets[1] - self.data_offsets[0]

    @property
    def num_elements(self) -> int:
        """Of its shape."""
        return math.prod(self.shape)


def read_safetensors(path: Path) -> Mapping[str, Tensor]:
    """Every tensor of the file, by name; raises `LoadFailed` if it is broken or cut short."""
    try:
        with path.open("rb") as file:
            size_bytes = path.stat().st_size
            start = file.read(_LENGTH.size)
            header_bytes = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
            if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, size_bytes - _LENGTH.size):
                raise _broken(path, "it is no safetensors file, or was cut short")
            header = file.read(header_bytes)
    except OSError as error:
        raise _broken(path, f"it cannot be read: {error.strerror or error}") from error
    tensors = _decoded(path, header)
    _check(path, tensors, size_bytes - _LENGTH.size - header_bytes)
    return tensors


def _decoded(path: Path, header: bytes) -> dict[str, Tensor]:
    try:
        entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        if len(entries) > MAX_TENSORS:
            raise _broken(path, f"it claims {len(entries):,} tensors; {MAX_TENSORS:,} is the limit")
        return {name: msgspec.json.decode(raw, type=Tensor) for name, raw in entries.items() if name != "__metadata__"}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(path, f"its header is no list of tensors: {error}") from error


def _check(path: Path, tensors: Mapping[str, Tensor], data_bytes: int) -> None:
    """Every tensor lies in the data and is as long as its shape says, and together they are all of it."""
    end = max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    if end > data_bytes:
        raise _broken(path, f"the file ends {end - data_bytes:,} bytes too early: fetch it again")
    if sum(tensor.num_bytes for tensor in tensors.values()) > data_bytes:
        raise _broken(path, "its tensors overlap: convert the model again with a current tool")
    for name, tensor in tensors.items():
        bits = ELEMENT_BITS.get(tensor.dtype)
        if tensor.num_elements > MAX_ELEMENTS:
            raise _broken(path, f"tensor {name[:80]!r} claims {tensor.num_elements:.0e} numbers: this is no model")
        if tensor.num_bytes < 0 or (bits is not None and tensor.num_elements * bits != tensor.num_bytes * 8):
            raise _broken(path, f"tensor {name[:80]!r} has another size than its shape says")


def _broken(path: Path, problem: str) -> LoadFailed:
    return LoadFailed(f"{path.name}: {problem}", model=path.parent.name)
