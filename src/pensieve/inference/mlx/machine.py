"""Everything the engine thread needs, made on that thread: the model in its form, its caches, and what they cost."""

from __future__ import annotations

import bisect
import dataclasses
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from pensieve.config.settings import MlxSettings, Settings
from pensieve.devices.profile import MlxDevice
from pensieve.errors import LoadFailed
from pensieve.inference import admission
from pensieve.inference.mlx import limits, weights
from pensieve.inference.mlx.architectures import make_caches
from pensieve.inference.mlx.disk_tier import DiskTier
from pensieve.inference.mlx.loader import LoadedModel, load
from pensieve.inference.mlx.prefix_store import PrefixStore
from pensieve.inference.mlx.probe import measure_shape, measure_transient, read_device
from pensieve.inference.mlx.reading import tail_tokens
from pensieve.inference.mlx.room import Machine
from pensieve.inference.mlx.runner import Runner
from pensieve.inference.mlx.warming import warm_up
from pensieve.models.spec import ModelSpec


class Built(NamedTuple):
    """What other threads may know of the model: `loaded` is without its arrays here."""

    loaded: LoadedModel
    fitting_tokens: int
    """The longest context that memory holds when nothing else runs."""
    description: str


MIB = 2**20

CACHE_SHARE = 0.25
"""Of the memory free after the load, what cached prompts may take; they yield to every live request."""

CHUNK_TOKENS = {"cpu": 512, "cuda": 4096, "metal": 2048}
"""Tokens of a prompt read at once: from there on, more are not faster."""


def build(spec: ModelSpec, settings: Settings, state_folder: Path | None) -> tuple[Machine, Built]:
    """Load the model and measure it. Runs on the engine thread, for seconds to minutes; raises `LoadFailed`."""
    wanted = settings.mlx
    limits.prepare_environment()
    if wanted.device == "cpu":
        mx.set_default_device(mx.Device(mx.cpu))
    device = read_device()
    if wanted.device == "gpu" and device.kind == "cpu":
        raise LoadFailed("mlx.device asks for a GPU, and MLX finds none here: leave it at auto", spec.name)
    if state_folder is not None and device.kind == "cuda":
        weights.keep_kernels(state_folder / "kernels")
    loaded = load(spec, settings)
    model, form = _formed(loaded, device, settings)
    loaded = dataclasses.replace(loaded, model=None)
    chunk_tokens = wanted.prefill_tokens or CHUNK_TOKENS[device.kind]
    limits.apply_limits(device, weight_bytes=mx.get_active_memory())
    free_bytes = limits.available_bytes(limits.read_live(device))
    machine = Machine(
        runner=Runner(model, lambda: make_caches(model), tail_tokens=tail_tokens(loaded.vocabulary_size)),
        store=_store(model, loaded.fingerprint, settings.mlx, free_bytes, state_folder),
        shape=measure_shape(model, lambda: make_caches(model)),
        transient=measure_transient(loaded.config, device=device, element_bytes=4 if device.kind == "cpu" else 2),
        vocabulary_size=loaded.vocabulary_size,
        chunk_tokens=chunk_tokens,
        available_bytes=lambda: limits.available_bytes(limits.read_live(device)),
        reserve_bytes=limits.reserve_bytes(free_bytes),
    )
    if device.kind != "cpu":
        warm_up(
            machine.runner,
            lambda: make_caches(model),
            prompt_tokens=chunk_tokens,
            vocabulary_size=loaded.vocabulary_size,
        )
    fitting_tokens = _fitting_tokens(machine, loaded.context_tokens)
    description = f"MLX on {device.kind}, weights {form}"
    if fitting_tokens < loaded.context_tokens:
        description += f", context {fitting_tokens} of {loaded.context_tokens} tokens: more does not fit in memory"
    return machine, Built(loaded, fitting_tokens, description)


def _formed(loaded: LoadedModel, device: MlxDevice, settings: Settings) -> tuple[weights.Model, str]:
    """The model in the form that is quickest here and fits, and that form in words."""
    dense_dtype = mx.float32 if device.kind == "cpu" else None
    quantized_bytes, dense_bytes = weights.weight_bytes(loaded.model, dense_dtype)
    decision = weights.choose_policy(
        device=device.kind,
        quantized_bytes=quantized_bytes,
        dense_bytes=dense_bytes,
        available_bytes=limits.available_bytes(limits.read_live(device)) + mx.get_active_memory(),
        forced=settings.mlx.weights,
    )
    model = weights.with_policy(loaded.model, decision.policy, dense_dtype)
    if isinstance(model, weights.DualModel) and device.kind == "cuda":
        model.dense_from_tokens = weights.dense_from(weights.measure_steps(model, lambda: make_caches(model)))
        return model, f"dual: {decision.reason}; dense from {model.dense_from_tokens} tokens a step"
    return model, f"{decision.policy}: {decision.reason}"


def _fitting_tokens(machine: Machine, most_tokens: int) -> int:
    """The longest prompt that would be admitted with nothing running and nothing cached, at most `most_tokens`."""
    budget = admission.Budget(available_bytes=machine.available_bytes(), reserve_bytes=machine.reserve_bytes)

    def is_too_long(num_tokens: int) -> bool:
        decision = admission.decide(
            admission.Need(prompt_tokens=num_tokens),
            budget,
            shape=machine.shape,
            transient=machine.transient,
            chunk_tokens=machine.chunk_tokens,
        )
        return not isinstance(decision, admission.Admit)

    return max(1, bisect.bisect_left(range(1, most_tokens + 1), True, key=is_too_long))


def _store(
    model: weights.Model, fingerprint: str, wanted: MlxSettings, free_bytes: int, state_folder: Path | None
) -> PrefixStore:
    """The prefix cache, with its files where there is a place for them and room for a prefix at all."""
    budget_bytes = int(free_bytes * CACHE_SHARE) if wanted.prefix_cache_mib is None else wanted.prefix_cache_mib * MIB
    disk = None
    if state_folder is not None and wanted.disk_cache_mib and budget_bytes:
        root = state_folder / "prefix-cache"
        disk = DiskTier(root, fingerprint=fingerprint, budget_bytes=wanted.disk_cache_mib * MIB)
    return PrefixStore(lambda: make_caches(model), fingerprint=fingerprint, budget_bytes=budget_bytes, disk=disk)
