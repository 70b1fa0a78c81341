"""How ggml packs numbers into blocks, read with numpy a few rows at a time. Knows no model and no file header.

Most types are `scale * code + bias` over groups of 32, which is what MLX calls affine: those are kept to the bit, only
packed anew. The rest is unpacked to floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from pensieve.models.gguf import TENSOR_TYPES

GROUP: Final = 32
"""Elements that share a scale in every type that is kept as it is."""

Bytes = npt.NDArray[Any]
"""Unsigned bytes; numpy's types lose the width over shifts."""
Floats = npt.NDArray[np.float32]


class Codes(msgspec.Struct, frozen=True):
    """Quantized blocks: element `i` of group `g` is `scales[g] * codes[g, i] + biases[g]`."""

    codes: Bytes
    """(groups, 32)."""
    scales: Floats
    biases: Floats


def _halves(blocks: Bytes, offset: int) -> Floats:
    """The 16-bit float at `offset` of each block, (blocks, 1)."""
    return blocks[:, offset : offset + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Low halves of all bytes, then high ones: (blocks, 16) to (blocks, 32)."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _fifth_bits(packed: Bytes) -> Bytes:
    """Bit `i` of four bytes as bit 4 of element `i`: (blocks, 4) to (blocks, 32)."""
    found: Bytes = np.unpackbits(packed, axis=-1, bitorder="little") << 4
    return found


def _q4_0(blocks: Bytes) -> Codes:
    scales = _halves(blocks, 0)
    return Codes(_nibbles(blocks[:, 2:]), scales, -8 * scales)


def _q4_1(blocks: Bytes) -> Codes:
    return Codes(_nibbles(blocks[:, 4:]), _halves(blocks, 0), _halves(blocks, 2))


def _q5_0(blocks: Bytes) -> Codes:
    scales = _halves(blocks, 0)
    return Codes(_nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6]), scales, -16 * scales)


def _q5_1(blocks: Bytes) -> Codes:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return Codes(codes, _halves(blocks, 0), _halves(blocks, 2))


def _q8_0(blocks: Bytes) -> Codes:
    scales = _halves(blocks, 0)
    return Codes(blocks[:, 2:] ^ 128, scales, -128 * scales)  # two's complement to offset by 128


def _q4_k(blocks: Bytes) -> Codes:
    return _with_k_scales(blocks, _k_nibbles(blocks[:, 16:144]))


def _q5_k(blocks: Bytes) -> Codes:
    places = np.arange(8, dtype=np.uint8)[:, None]
    fifth = (blocks[:, None, 16:48] >> places & 1) << 4  # bit j of byte i belongs to element i of group j
    return _with_k_scales(blocks, _k_nibbles(blocks[:, 48:176]) | fifth)


def _k_nibbles(packed: Bytes) -> Bytes:
    """128 bytes to 8 groups of 32: the low halves of 32 bytes, then their high ones, four times."""
    quarters = packed.reshape(-1, 4, 1, GROUP)
    return np.concatenate([quarters & 15, quarters >> 4], axis=2).reshape(-1, 8, GROUP)


def _with_k_scales(blocks: Bytes, codes: Bytes) -> Codes:
    """Scales and minima of 6 bits, eight each, packed into the 12 bytes after the two floats of a block."""
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    steps = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    scales, biases = _halves(blocks, 0) * steps, -_halves(blocks, 2) * minima
    return Codes(codes.reshape(-1, GROUP), scales.reshape(-1, 1), biases.reshape(-1, 1))


def _q2_k(blocks: Bytes) -> Floats:
    places = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    codes = (blocks[:, 16:80].reshape(-1, 2, 1, 32) >> places & 3).reshape(-1, 16, 16)
    steps, minima = _halves(blocks, 80) * (blocks[:, :16] & 15), _halves(blocks, 82) * (blocks[:, :16] >> 4)
    found: Floats = steps[:, :, None] * codes - minima[:, :, None]
    return found


def _q3_k(blocks: Bytes) -> Floats:
    places = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    low = (blocks[:, 32:96].reshape(-1, 2, 1, 32) >> places & 3).reshape(-1, 8, 32)
    high = blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    codes = (low | high << 2).astype(np.int8) - 4
    scales = (_q3_k_scales(blocks[:, 96:108]).astype(np.int8) - 32) * _halves(blocks, 108)
    found: Floats = scales[:, :, None] * codes.reshape(-1, 16, 16)
    return found


def _q3_k_scales(packed: Bytes) -> Bytes:
    """Sixteen scales of 6 bits from 12 bytes: four bits of each in the first eight, two in the last four."""
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    high = np.concatenate([packed[:, 8:] >> place & 3 for place in (0, 2, 4, 6)], axis=1)
    found: Bytes = low | high << 4
    return found


def _q6_k(blocks: Bytes) -> Floats:
    low, high = blocks[:, :128].reshape(-1, 2, 1, 64), blocks[:, 128:192].reshape(-1, 2, 1, 32)
    nibbles = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    places = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    codes = (nibbles | (high >> places & 3) << 4).astype(np.int8) - 32
    scales = blocks[:, 192:208].view(np.int8) * _halves(blocks, 208)
    found: Floats = scales[:, :, None] * codes.reshape(-1, 16, 16)
    return found


def _bf16(blocks: Bytes) -> Floats:
    return (blocks.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


KEPT: Final[dict[str, tuple[int, Callable[[Bytes], Codes]]]] = {
    "Q4_0": (4, _q4_0),
    "Q4_1": (4, _q4_1),
    "Q5_0": (5, _q5_0),
    "Q5_1": (5, _q5_1),
    "Q8_0": (8, _q8_0),
    "Q4_K": (4, _q4_k),
    "Q5_K": (5, _q5_k),
}
"""Types that MLX can hold as they are: bits of a code, and how blocks are read."""

UNPACKED: Final[dict[str, Callable[[Bytes], Floats]]] = {
    "F32": lambda blocks: blocks.view(np.float32),
    "F16": lambda blocks: blocks.view(np.float16).astype(np.float32),
    "BF16": _bf16,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q6_K": _q6_k,
}
"""Types that are read as floats."""

FLOATS: Final = frozenset({"F32", "F16", "BF16"})


def name_of(kind: int) -> str:
    """The name of ggml's type number; `type 77` for one that is not known."""
    return TENSOR_TYPES[kind].name if kind in TENSOR_TYPES else f"type {kind}"


def is_readable(kind: int) -> bool:
    """Whether tensors of ggml's type number can be read here."""
    return name_of(kind) in KEPT or name_of(kind) in UNPACKED


def codes_of(name: str, data: Bytes) -> Codes:
    """Blocks of a type in `KEPT` as codes; `data` holds whole blocks."""
    form = next(form for form in TENSOR_TYPES.values() if form.name == name)
    return KEPT[name][1](data.reshape(-1, form.block_bytes))


def floats_of(name: str, data: Bytes) -> Floats:
    """Blocks of any readable type as numbers, flat; `data` holds whole blocks."""
    if name in KEPT:
        found = codes_of(name, data)
        return (found.scales * found.codes + found.biases).reshape(-1)
    form = next(form for form in TENSOR_TYPES.values() if form.name == name)
    return UNPACKED[name](data.reshape(-1, form.block_bytes)).reshape(-1)


def packed(codes: Bytes, bits: int) -> npt.NDArray[np.uint32]:
    """Codes of `bits` bits, (rows, columns), as MLX stores them: one stream of bits a row, lowest first."""
    rows, columns = codes.shape
    if bits == 8:
        return np.ascontiguousarray(codes).view(np.uint32)
    if bits == 4:
        return np.ascontiguousarray(codes[:, ::2] | codes[:, 1::2] << 4).view(np.uint32)
    spread = np.unpackbits(codes.reshape(rows, columns, 1), axis=2, count=bits, bitorder="little")
    return np.packbits(spread.reshape(rows, columns * bits), axis=1, bitorder="little").view(np.uint32)
