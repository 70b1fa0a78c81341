"""Everything the engine thread needs, made on that thread: the model in its form, its caches, and what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from pensieve.config.settings import Settings
from pensieve.devices.memory import read_memory
from pensieve.devices.profile import MlxDevice
from pensieve.inference.mlx import weights
from pensieve.inference.mlx.architectures import make_caches
from pensieve.inference.mlx.engine import Machine
from pensieve.inference.mlx.loader import LoadedModel, load
from pensieve.inference.mlx.prefix_store import PrefixStore
from pensieve.inference.mlx.probe import measure_shape, measure_transient, read_device
from pensieve.inference.mlx.runner import Runner
from pensieve.models.spec import ModelSpec


class Built(NamedTuple):
    """What other threads may know of the model: `loaded` is without its arrays here."""

    loaded: LoadedModel
    description: str


RESERVE_BYTES = 512 * 2**20
"""Never given to requests: what a model's first steps at a new size and the process itself take beside."""

CACHE_SHARE = 0.25
"""Of the memory free after the load, what cached prompts may take; they yield to every live request."""

CHUNK_TOKENS = {"cpu": 512, "cuda": 4096, "metal": 2048}
"""Tokens of a prompt read at once: from there on, more are not faster."""

WARM_ROWS = (1, 2, 4, 8, 16, 32)
"""Numbers of answers whose first step is taken at load: on a GPU it compiles kernels, for seconds."""


def build(spec: ModelSpec, settings: Settings, state_folder: Path | None) -> tuple[Machine, Built]:
    """Load the model and measure it. Runs on the engine thread, for seconds to minutes; raises `LoadFailed`."""
    wanted = settings.mlx
    if wanted.device == "cpu":
        mx.set_default_device(mx.Device(mx.cpu))
    device = read_device()
    if state_folder is not None and device.kind == "cuda":
        weights.keep_kernels(state_folder / "kernels")
    loaded = load(spec, settings)
    model, form = _formed(loaded, device, settings)
    loaded = dataclasses.replace(loaded, model=None)
    chunk_tokens = wanted.prefill_tokens or CHUNK_TOKENS[device.kind]
    if device.kind != "cpu":
        weights.warm_up(model, lambda: make_caches(model), prefill_tokens=chunk_tokens, num_rows=WARM_ROWS)
    available_bytes = _available_bytes(device)
    free_bytes = max(0, available_bytes())
    cache_bytes = int(free_bytes * CACHE_SHARE) if wanted.prefix_cache_mib is None else wanted.prefix_cache_mib * 2**20
    machine = Machine(
        runner=Runner(model, lambda: make_caches(model)),
        store=PrefixStore(lambda: make_caches(model), fingerprint=loaded.fingerprint, budget_bytes=cache_bytes),
        shape=measure_shape(model, lambda: make_caches(model)),
        transient=measure_transient(loaded.config, device=device, element_bytes=4 if device.kind == "cpu" else 2),
        vocabulary_size=loaded.vocabulary_size,
        chunk_tokens=chunk_tokens,
        available_bytes=available_bytes,
        reserve_bytes=min(RESERVE_BYTES, free_bytes // 8),
    )
    return machine, Built(loaded, f"MLX on {device.kind}, weights {form}")


def _formed(loaded: LoadedModel, device: MlxDevice, settings: Settings) -> tuple[weights.Model, str]:
    """The model in the form that is quickest here and fits, and that form in words."""
    quantized_bytes, dense_bytes = weights.weight_bytes(loaded.model)
    decision = weights.choose_policy(
        device=device.kind,
        quantized_bytes=quantized_bytes,
        dense_bytes=dense_bytes,
        available_bytes=_available_bytes(device)(),
        forced=settings.mlx.weights,
    )
    model = weights.with_policy(loaded.model, decision.policy)
    if isinstance(model, weights.DualModel) and device.kind == "cuda":
        model.dense_from_tokens = weights.dense_from(weights.measure_steps(model, lambda: make_caches(model)))
        return model, f"dual: {decision.reason}; dense from {model.dense_from_tokens} tokens a step"
    return model, f"{decision.policy}: {decision.reason}"


def _available_bytes(device: MlxDevice) -> Callable[[], int]:
    """Reads what may still be allocated: of the machine on a CPU, of the card or the working set on a GPU."""

    def of_host() -> int:
        return (read_memory().available_bytes or 0) + mx.get_cache_memory()

    def of_device() -> int:
        return max(0, device.working_set_bytes - mx.get_active_memory())

    return of_host if device.kind == "cpu" else of_device
