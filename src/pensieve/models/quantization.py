"""How a model's tensors are stored, in a few letters, and how many numbers they stand for. Pure; reads no file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from pensieve.messages import Json
from pensieve.models.safetensors import Tensor

_PLAIN: Final = {"BF16": "bf16", "F16": "fp16", "F32": "fp32", "F64": "fp64", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}
_GROUP_SIZES: Final = {"mxfp4": 32, "mxfp8": 32, "nvfp4": 16}
"""Elements that share a scale, in the modes where that is fixed."""
_BESIDE: Final = (".scales", ".biases", "_scales", ".weight_scale_inv")
"""Endings of tensors that belong to another's quantization and stand for no numbers of the model."""


def name_of(config: Mapping[str, Json], tensors: Mapping[str, Tensor]) -> str:
    """`int4 g64`, `mxfp4`, `bf16`, ...; several ways in one model are joined, the usual one first."""
    quantization = config.get("quantization")
    if isinstance(quantization, dict):
        return _mlx_name(quantization)
    foreign = config.get("quantization_config")
    method = foreign.get("quant_method") if isinstance(foreign, dict) else None
    if isinstance(method, str) and method:
        return _word(method)
    num_bytes: Counter[str] = Counter()
    for tensor in tensors.values():
        num_bytes[tensor.dtype] += tensor.num_bytes
    most = next(iter(num_bytes.most_common(1)), ("", 0))[0]
    return _PLAIN.get(most) or _word(most)


def num_parameters(config: Mapping[str, Json], tensors: Mapping[str, Tensor]) -> int:
    """Numbers the model was trained to: packed tensors count what they unpack to, scales and masks count nothing."""
    quantization = config.get("quantization")
    settings = quantization if isinstance(quantization, dict) else {}
    return sum(_unpacked(name, tensor, settings, tensors) for name, tensor in tensors.items())


def _unpacked(name: str, tensor: Tensor, settings: Mapping[str, Json], tensors: Mapping[str, Tensor]) -> int:
    if name.endswith(_BESIDE) or tensor.dtype == "BOOL":
        return 0
    if name.endswith("_blocks") and tensor.dtype == "U8":
        return tensor.num_elements * 2  # two 4-bit numbers in a byte
    layer = name.removesuffix(".weight")
    scales = tensors.get(f"{layer}.scales")
    if scales is None or tensor.dtype != "U32":
        return tensor.num_elements
    own = settings.get(layer)
    return scales.num_elements * _group_size(own if isinstance(own, dict) else settings)


def _mlx_name(quantization: Mapping[str, Json]) -> str:
    kinds = [_one_name(quantization)]
    for own in quantization.values():
        if isinstance(own, dict) and "bits" in own and (kind := _one_name(own)) not in kinds:
            kinds.append(kind)
    if len(kinds) == 1:
        return kinds[0]
    words = dict.fromkeys(kind.split()[0] for kind in kinds if kind)  # those that differ in their groups are one
    return "+".join(list(words)[:3])


def _word(text: str) -> str:
    """Foreign text as a short word: it ends up in terminals and tables."""
    return re.sub(r"[^a-z0-9_.-]+", "", text.lower())[:32]


def _one_name(settings: Mapping[str, Json]) -> str:
    mode, bits = settings.get("mode", "affine"), settings.get("bits")
    if isinstance(mode, str) and mode in _GROUP_SIZES:
        return mode
    return f"int{bits} g{_group_size(settings)}" if isinstance(bits, int) and 0 < bits <= 16 else ""


def _group_size(settings: Mapping[str, Json]) -> int:
    mode, size = settings.get("mode"), settings.get("group_size")
    if isinstance(size, int) and 0 < size <= 1024:
        return size
    return _GROUP_SIZES.get(mode, 64) if isinstance(mode, str) else 64
