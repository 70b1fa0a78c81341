"""How converted weights are to be stored: what was asked for, and what that means for each parameter. Reads nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import mlx.core as mx
import msgspec

GROUP_SIZES: Final = (32, 64, 128)
CODE_BYTES: Final = 4
"""Codes are packed into words of 32 bits."""


class Form(msgspec.Struct, frozen=True):
    """A parameter's storage: codes of `bits` bits that share a scale and a bias in groups, or floats if 0."""

    bits: int = 0
    group_size: int = 0


class Wanted(msgspec.Struct, frozen=True):
    """What was asked for."""

    bits: int | None = None
    """None keeps the source's own, 0 stores floats."""
    group_size: int = 64
    dtype: mx.Dtype | None = None
    """Of floats, scales and biases; None keeps the source's own."""

    def form(self, shape: tuple[int, ...]) -> Form:
        """For a parameter of this shape: a matrix whose rows are no whole groups gets smaller ones, or floats."""
        sizes = [size for size in (self.group_size, *GROUP_SIZES) if size <= self.group_size and shape[-1] % size == 0]
        if len(shape) < 2 or not self.bits or not sizes:
            return Form()
        return Form(self.bits, self.group_size if self.group_size in sizes else max(sizes))


def parameter_bytes(shape: tuple[int, ...], form: Form, dtype_bytes: int) -> int:
    """Bytes of a parameter of this shape, its scales and biases included."""
    elements = 1
    for size in shape:
        elements *= size
    if form.bits == 0:
        return elements * dtype_bytes
    return elements * form.bits // 8 + elements // form.group_size * 2 * dtype_bytes


def quantization_config(forms: Mapping[str, Form]) -> dict[str, Any]:
    """What a config.json says of these forms: the most frequent one, and modules that differ from it; or nothing."""
    counted = Counter(form for form in forms.values() if form.bits)
    if not counted:
        return {}
    usual = counted.most_common(1)[0][0]
    differing = {
        name.removesuffix(".weight"): msgspec.structs.asdict(form)
        for name, form in forms.items()
        if form.bits and form != usual
    }
    return msgspec.structs.asdict(usual) | {"mode": "affine"} | differing
