"""ggml's blocks: every type against rules written element by element, MLX's own reader, and MLX's unpacking."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from gguf_files import _padded, _text
from pensieve.inference.mlx.gguf_blocks import KEPT, codes_of, floats_of, is_readable, name_of, packed
from pensieve.models.gguf import TENSOR_TYPES

NUMBERS = {form.name: number for number, form in TENSOR_TYPES.items()}
HALVES = {
    "F32": (2,),
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
}
"""Where a block has its half floats, if not at its start alone."""
COLUMNS = 512


def random_blocks(name: str, rows: int = 4) -> npt.NDArray[np.uint8]:
    """Rows of blocks of any codes, with half floats that are numbers; flat."""
    form = TENSOR_TYPES[NUMBERS[name]]
    random = np.random.default_rng(NUMBERS[name])
    blocks = random.integers(0, 256, (rows * COLUMNS // form.block_elements, form.block_bytes), dtype=np.uint8)
    for offset in HALVES.get(name, (0,)):
        halves = random.uniform(-1, 1, (len(blocks), 1)).astype(np.float16)
        blocks[:, offset : offset + 2] = halves.view(np.uint8)
    return blocks.reshape(-1)


def half(block: bytes, offset: int) -> float:
    """The half float there."""
    value: float = struct.unpack_from("<e", block, offset)[0]
    return value


def k_scale(block: bytes, group: int) -> tuple[float, float]:
    """Scale and minimum of a group of 32 in a Q4_K or Q5_K block."""
    packed_scales = block[4:16]
    if group < 4:
        step, minimum = packed_scales[group] & 63, packed_scales[group + 4] & 63
    else:
        step = (packed_scales[group + 4] & 15) + (packed_scales[group - 4] >> 6) * 16
        minimum = (packed_scales[group + 4] >> 4) + (packed_scales[group] >> 6) * 16
    return half(block, 0) * step, half(block, 2) * minimum


def q4_k(block: bytes, element: int) -> float:
    """Groups of 32 take turns in the halves of the same 32 bytes."""
    group, place = divmod(element, 32)
    scale, minimum = k_scale(block, group)
    return scale * (block[16 + group // 2 * 32 + place] >> group % 2 * 4 & 15) - minimum


def q5_k(block: bytes, element: int) -> float:
    """As Q4_K, with a fifth bit: bit `group` of byte `place`."""
    group, place = divmod(element, 32)
    scale, minimum = k_scale(block, group)
    low = block[48 + group // 2 * 32 + place] >> group % 2 * 4 & 15
    return scale * (low + (block[16 + place] >> group & 1) * 16) - minimum


def q3_k(block: bytes, element: int) -> float:
    """Two bits from 64 bytes, a third that takes 4 away where it is not set, and a 6-bit scale for 16."""
    part, place = divmod(element, 128)
    shift, column = divmod(place, 32)
    low = block[32 + part * 32 + column] >> shift * 2 & 3
    is_high = block[column] >> (part * 4 + shift) & 1
    group = element // 16
    scale = (block[96 + group % 8] >> group // 8 * 4 & 15) + (block[104 + group % 4] >> group // 4 * 2 & 3) * 16
    return half(block, 108) * (scale - 32) * (low - (0 if is_high else 4))


def q5_0(block: bytes, element: int) -> float:
    """A nibble and a bit, around 16."""
    low = block[6 + element % 16] >> element // 16 * 4 & 15
    high = int.from_bytes(block[2:6], "little") >> element & 1
    return half(block, 0) * (low + 16 * high - 16)


def q5_1(block: bytes, element: int) -> float:
    """A nibble and a bit, from a minimum."""
    low = block[8 + element % 16] >> element // 16 * 4 & 15
    high = int.from_bytes(block[4:8], "little") >> element & 1
    return half(block, 0) * (low + 16 * high) + half(block, 2)


@pytest.mark.parametrize("rule", [q4_k, q5_k, q3_k, q5_0, q5_1], ids=lambda rule: str(rule.__name__))
def test_blocks_follow_the_rule_of_each_element(rule: Callable[[bytes, int], float]) -> None:
    """Reading all at once gives what the format says of one element after the other."""
    name = rule.__name__.upper()
    form = TENSOR_TYPES[NUMBERS[name]]
    data = random_blocks(name)
    blocks = [bytes(block) for block in data.reshape(-1, form.block_bytes)]
    expected = [rule(block, element) for block in blocks for element in range(form.block_elements)]
    np.testing.assert_allclose(floats_of(name, data), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q2_K", "Q6_K"])
def test_blocks_read_as_mlx_reads_them(name: str, tmp_path: Path) -> None:
    """Where MLX has a reader of its own that is right (its Q4_K is not), both agree."""
    data = random_blocks(name)
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + _text("w.weight")
    header += struct.pack("<I2QIQ", 2, COLUMNS, 4, NUMBERS[name], 0)
    (tmp_path / "one.gguf").write_bytes(_padded(header) + data.tobytes())
    found: dict[str, mx.array] = mx.load(str(tmp_path / "one.gguf"))  # type: ignore[assignment]
    weight = found["w.weight"]
    if name in KEPT:
        weight = mx.dequantize(weight, found["w.scales"], found["w.biases"], 32, KEPT[name][0])
    theirs = np.array(weight.astype(mx.float32)).reshape(-1)
    np.testing.assert_allclose(floats_of(name, data), theirs, rtol=2e-3, atol=2e-3 * float(np.abs(theirs).max()))


@pytest.mark.parametrize("name", KEPT)
def test_codes_that_are_kept_unpack_to_the_same_numbers(name: str) -> None:
    """What MLX makes of the packed codes is what the blocks say, to the bit."""
    data = random_blocks(name)
    bits, found = KEPT[name][0], codes_of(name, data)
    weight = mx.array(packed(found.codes.reshape(-1, COLUMNS), bits))
    scales, biases = (mx.array(each.reshape(-1, COLUMNS // 32)) for each in (found.scales, found.biases))
    unpacked = np.array(mx.dequantize(weight, scales, biases, 32, bits))
    np.testing.assert_array_equal(unpacked.reshape(-1), floats_of(name, data))


def test_a_type_that_is_not_known_has_a_name_and_no_reader() -> None:
    """Newer files name types this table does not have."""
    assert (name_of(77), is_readable(77)) == ("type 77", False)
    assert (name_of(16), is_readable(16)) == ("IQ2_XXS", False)
