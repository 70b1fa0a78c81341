"""How converted weights are to be stored: what was asked for, and what that means for each parameter. Reads nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import mlx.core as mx
import msgspec

GROUP_SIZES: Final = (32, 64, 128)
CODE_BITS: Final = 32
"""Codes are packed into words of this size."""


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
        """For a matrix of this shape; one whose rows are no whole groups gets smaller ones, or floats."""
        sizes = [size for size in GROUP_SIZES if size <= self.group_size and shape[-1] % size == 0]
        return Form(self.bits, max(sizes)) if len(shape) > 1 and self.bits and sizes else Form()


class Slot(msgspec.Struct, frozen=True):
    """An array that is to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def num_bytes(self) -> int:
        """Of its data."""
        return math.prod(self.shape) * int(self.dtype.size)


@dataclass(frozen=True)
class Converted:
    """A model as it is to be stored. `arrays` can be gone through once, and belongs to the thread that made it."""

    config: dict[str, Any]
    """config.json."""
    files: Mapping[str, bytes]
    """The other files beside the weights: tokenizer, template, settings of generation."""
    slots: tuple[Slot, ...]
    arrays: Iterator[mx.array]
    """What the slots are filled with, in their order, each computed when it is asked for."""

    @property
    def num_bytes(self) -> int:
        """Of all weights."""
        return sum(slot.num_bytes for slot in self.slots)


class Source(Protocol):
    """A model that can be converted."""

    @property
    def num_bytes(self) -> int:
        """Of its weights."""
        ...

    @property
    def parameters(self) -> int:
        """Numbers it was trained to."""
        ...

    @property
    def quantization(self) -> str:
        """How its weights are quantized, in words; empty if they are not."""
        ...

    def converted(self, wanted: Wanted) -> Converted:
        """The model in the form wanted; raises `LoadFailed`. May be called once."""
        ...


def slots_of(name: str, shape: tuple[int, ...], form: Form, dtype: mx.Dtype) -> list[Slot]:
    """What a parameter takes: the weight alone, or its codes with their scales and biases."""
    if form.bits == 0:
        return [Slot(name, shape, dtype)]
    module, rows = name.removesuffix(".weight"), shape[:-1]
    codes = (*rows, shape[-1] * form.bits // CODE_BITS)
    groups = (*rows, shape[-1] // form.group_size)
    beside = [Slot(f"{module}.{kind}", groups, dtype) for kind in ("scales", "biases")]
    return [Slot(name, codes, mx.uint32), *beside]


def quantization_config(forms: Mapping[str, Form]) -> dict[str, Any]:
    """What a config.json says of these forms, by module: the most frequent one, and those that differ; or nothing."""
    counted = Counter(form for form in forms.values() if form.bits)
    if not counted:
        return {}
    usual = counted.most_common(1)[0][0]
    differing = {name: msgspec.structs.asdict(form) for name, form in forms.items() if form.bits and form != usual}
    return {"quantization": msgspec.structs.asdict(usual) | {"mode": "affine"} | differing}
