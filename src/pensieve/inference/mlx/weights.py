"""In which form the weights are held: quantized as stored, dequantized, or both, and which copy takes a step.

`choose_policy` decides from sizes alone; the rest acts on it. Knows no request and no cache policy.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import msgspec
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from pensieve.models.sizes import gigabytes

WeightPolicy = Literal["quantized", "dual", "dense"]
Device = Literal["metal", "cuda", "cpu"]
Model = Any
"""A module of MLX, which are untyped."""
MakeCache = Callable[[], list[Any]]
"""Empty caches of one layer each, for a model call."""

RESERVE_BYTES = 4 * 2**30
RESERVE_SHARE = 0.25
"""Of a GPU's free memory, what weights leave at least to key-value caches and scratch: the larger of the two."""
CPU_SHARE = 0.25
"""Of the free memory, what dequantized weights may take on a CPU: they are a few percent faster, not more."""
DENSE_FROM_TOKENS = 3
"""Tokens in one step from which the dense copy is faster on an H100 (4 bits beside bfloat16, Phi-3-mini's shape)."""
TIMED_ROWS = (1, 2, 4, 8, 16, 32, 64)
"""A mixture of experts reads more of them with each row, so that its copies meet late."""
TIMED_TOKENS = 256
"""Rows say different things, as real ones do: the same token in all of them would ask the same few experts."""


class WeightDecision(msgspec.Struct, frozen=True):
    """How the weights are held, and why, in words for the log."""

    policy: WeightPolicy
    reason: str


class StepTime(msgspec.Struct, frozen=True):
    """Seconds of one decode step of `num_rows` sequences, from each copy."""

    num_rows: int
    quantized_seconds: float
    dense_seconds: float


def choose_policy(
    *,
    device: Device,
    quantized_bytes: int,
    dense_bytes: int,
    available_bytes: int,
    forced: Literal["auto", "quantized", "dual", "dense"] = "auto",
) -> WeightDecision:
    """The form for this machine; `available_bytes` is the device's free memory before the weights are loaded.

    Measured on an H100: quantized prefill runs 2.6 times and a batch of 16 three times slower than from bfloat16,
    while one stream decodes 1.4 times faster. On Metal the quantized kernels are good; on a CPU both are slow.
    """
    if dense_bytes <= quantized_bytes:
        return WeightDecision("quantized", "the weights are not quantized: there is one form only")
    if forced != "auto":
        return WeightDecision(forced, "as the settings say")
    if device == "metal":
        return WeightDecision("quantized", "Metal computes from quantized weights without loss")
    if device == "cuda":
        return _choose_on_cuda(quantized_bytes, dense_bytes, available_bytes)
    return _choose_on_cpu(dense_bytes, available_bytes)


def _choose_on_cuda(quantized_bytes: int, dense_bytes: int, available_bytes: int) -> WeightDecision:
    reserve_bytes = max(RESERVE_BYTES, int(available_bytes * RESERVE_SHARE))
    both_bytes = quantized_bytes + dense_bytes
    free, kept = gigabytes(available_bytes), gigabytes(reserve_bytes)
    sizes = f"{gigabytes(both_bytes)} for both copies, {free} free, {kept} kept for caches"
    if both_bytes + reserve_bytes <= available_bytes:
        return WeightDecision("dual", f"prompts and batches are faster from a dense copy, and it fits: {sizes}")
    return WeightDecision("quantized", f"a dense copy does not fit: {sizes}")


def _choose_on_cpu(dense_bytes: int, available_bytes: int) -> WeightDecision:
    sizes = f"{gigabytes(dense_bytes)} dense, {gigabytes(available_bytes)} free"
    if dense_bytes <= available_bytes * CPU_SHARE:
        return WeightDecision("dense", f"a CPU is a little faster from dense weights, and they are small: {sizes}")
    return WeightDecision("quantized", f"dense weights would take too much memory: {sizes}")


def weight_bytes(model: Model, dtype: mx.Dtype | None = None) -> tuple[int, int]:
    """Bytes of the weights as they are, and of the same dequantized to `dtype` (None: the dtype each computes in)."""
    as_they_are = dense_bytes = sum(array.nbytes for array in _arrays(model))
    fallback = dtype or _activation_dtype(model)
    for module in filter(_is_replaceable, model.modules()):
        packed = (module.weight, module.scales, module.get("biases"))
        # Nothing is computed here: MLX knows the size of an array before it is.
        dense_bytes += _dense_weight(module, dtype, fallback).nbytes
        dense_bytes -= sum(array.nbytes for array in packed if array is not None)
    return as_they_are, dense_bytes


def dequantized(model: Model, dtype: mx.Dtype | None = None) -> Model:
    """A copy with dense layers in place of quantized ones; everything else is shared with `model`.

    `dtype` None keeps the one each layer computes in, so that both copies can use one key-value cache; another one
    is given to all weights, and nothing is shared then. A kind of layer that is unknown here stays as it is.
    """
    dense: Model = _Copying(dtype, _activation_dtype(model)).copied(model)
    if dtype is not None:
        dense.set_dtype(dtype)
        mx.eval(dense.parameters())
    return dense


def with_policy(model: Model, policy: WeightPolicy, dtype: mx.Dtype | None = None) -> Model | DualModel:
    """The model in the decided form; with `dense`, drop `model` afterwards to get its memory back."""
    match policy:
        case "quantized":
            return model
        case "dense":
            return dequantized(model, dtype)
        case "dual":
            return DualModel(model, dequantized(model))


class DualModel:
    """Two copies of one model, called like one: each step is taken by the copy that is faster at its size."""

    def __init__(self, quantized: Model, dense: Model, *, dense_from_tokens: int = DENSE_FROM_TOKENS) -> None:
        self.quantized = quantized
        self.dense = dense
        self.dense_from_tokens = dense_from_tokens

    def __call__(self, tokens: mx.array, *arguments: Any, **named: Any) -> mx.array:
        """Logits[B, L, V] of tokens[B, L]; the rest goes to the copy as it came."""
        logits: mx.array = self.chosen(tokens.shape)(tokens, *arguments, **named)
        return logits

    def __getattr__(self, name: str) -> Any:
        """All else (layers, make_cache) is the quantized copy's: both have the same."""
        return getattr(self.quantized, name)

    def chosen(self, shape: Sequence[int]) -> Model:
        """The copy that takes a step of tokens of that shape."""
        num_rows, num_tokens = shape[:2]
        return self.dense if num_rows * num_tokens >= self.dense_from_tokens else self.quantized


def measure_steps(dual: DualModel, make_cache: MakeCache, *, budget_seconds: float = 2.0) -> tuple[StepTime, ...]:
    """Time a decode step at growing numbers of rows from both copies; stops early when the budget is spent.

    The first step at each size, which may compile kernels, is not counted: serving would pay for it otherwise.
    """
    times = []
    spent_seconds = 0.0
    for num_rows in TIMED_ROWS:
        quantized, dense = (_step_seconds(model, make_cache(), num_rows) for model in (dual.quantized, dual.dense))
        times.append(StepTime(num_rows, quantized, dense))
        spent_seconds += (quantized + dense) * _TIMED_STEPS
        if spent_seconds > budget_seconds:
            break
    return tuple(times)


def dense_from(times: Sequence[StepTime]) -> int:
    """Tokens in one step from which the dense copy is no slower, at that size and all larger ones measured.

    When it is slower even at the largest size measured, prompts still go to it, from twice that size.
    """
    is_faster = takewhile(lambda step: step.dense_seconds <= step.quantized_seconds, reversed(times))
    sizes = [step.num_rows for step in is_faster]
    return sizes[-1] if sizes else 2 * times[-1].num_rows


def keep_kernels(folder: Path) -> None:
    """Let MLX keep the kernels that it compiles for a GPU in `folder`; call it before the first array is computed.

    One folder for each version of MLX and kind of device: a kernel of another one must not be taken. A folder that
    the user set in the environment stays.
    """
    if "MLX_PTX_CACHE_DIR" in os.environ:
        return
    device = mx.device_info()
    kind = "".join(letter if letter.isalnum() else "-" for letter in str(device.get("architecture", "unknown")))
    kept = folder / f"{version('mlx')}-{kind}"
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return  # MLX then keeps them in the temporary folder
    os.environ["MLX_PTX_CACHE_DIR"] = str(kept)


_TIMED_STEPS = 6


def _step_seconds(model: Model, cache: list[Any], num_rows: int) -> float:
    """Seconds a step takes in a chain of steps, as decoding runs them, with a short cache behind."""
    tokens = mx.arange(num_rows)[:, None] % TIMED_TOKENS
    mx.eval(model(mx.arange(num_rows * 16).reshape(num_rows, 16) % TIMED_TOKENS, cache=cache))
    mx.eval(model(tokens, cache=cache))
    began = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        mx.async_eval(model(tokens, cache=cache))  # type: ignore[no-untyped-call]
    mx.synchronize()
    return (time.perf_counter() - began) / _TIMED_STEPS


class _Copying:
    """Copies modules with dense layers in them; what two places share, their copies share too."""

    def __init__(self, dtype: mx.Dtype | None, fallback: mx.Dtype) -> None:
        self._dtype = dtype
        self._fallback = fallback
        self._copies: dict[int, Model] = {}

    def copied(self, value: Any) -> Any:
        """The value itself, or its copy if modules are in it."""
        if isinstance(value, Module):
            if id(value) not in self._copies:
                self._copies[id(value)] = self._copied_module(value)
            return self._copies[id(value)]
        if isinstance(value, dict):
            return {name: self.copied(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.copied(item) for item in value)
        return value

    def _copied_module(self, module: Model) -> Model:
        if _is_replaceable(module):
            return _dense_layer(module, _dense_weight(module, self._dtype, self._fallback))
        twin = copy.copy(module)
        for name, item in module.items():
            twin[name] = self.copied(item)
        return twin


def _is_replaceable(module: Model) -> bool:
    # Exact types: a subclass may compute something else from the same weights.
    known = type(module) in (QuantizedLinear, QuantizedEmbedding, QuantizedSwitchLinear)
    return known and getattr(module, "global_scale", None) is None


def _arrays(model: Model) -> list[mx.array]:
    return list(dict(tree_flatten(model.parameters())).values())


def _activation_dtype(model: Model) -> mx.Dtype:
    """What the layers hand on: the dtype of the norms, which are never quantized."""
    vectors = (array for array in _arrays(model) if array.ndim == 1)
    return next((array.dtype for array in vectors if mx.issubdtype(array.dtype, mx.floating)), mx.bfloat16)


def _dense_weight(module: Model, dtype: mx.Dtype | None, fallback: mx.Dtype) -> mx.array:
    """The weight, not computed yet, in `dtype` or what the layer computes in.

    That is the affine scales' dtype; the other modes have integer scales, and the layers around them decide.
    """
    return mx.dequantize(
        module.weight,
        module.scales,
        module.get("biases"),
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
        dtype=dtype or (module.scales.dtype if module.mode == "affine" else fallback),
    )


def _dense_layer(module: Model, weight: mx.array) -> Model:
    mx.eval(weight)  # one layer after the other, so that no second copy of all of them is ever pending
    kinds: dict[type, Callable[..., Model]] = {
        QuantizedLinear: Linear,
        QuantizedEmbedding: Embedding,
        QuantizedSwitchLinear: SwitchLinear,
    }
    dense = kinds[type(module)](*[1] * (3 if weight.ndim == 3 else 2))
    for name in ("bias", "weight"):
        dense.pop(name, None)
    dense.weight = weight
    if "bias" in module:
        dense.bias = module.bias
    dense.freeze()
    return dense
