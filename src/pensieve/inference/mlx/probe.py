"""What MLX says when it is asked: of its device, and of a loaded model's caches and scratch. Decides nothing.

Run as a module it prints the device as JSON, for a parent that must not import MLX.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

import mlx.core as mx
import msgspec

from pensieve.devices.profile import MlxDevice
from pensieve.inference.admission import CacheShape, LayerCache, LayerKind, Transient
from pensieve.inference.mlx.reading import tail_tokens

PROBE_TOKENS = 8

FUSED_METAL_HEADS = frozenset({64, 72, 80, 96, 128})
"""Head sizes for which Metal reads a chunk without its scores in memory."""

FUSED_CUDA_HEAD = 128
"""cuDNN does for multiples of 8 up to this, in half precision only."""

_MAX_WIDTH = 2**24


def read_device() -> MlxDevice:
    """The default device, after a first computation on it. May crash the process where a driver is broken."""
    mx.eval(mx.sum(mx.ones((PROBE_TOKENS, PROBE_TOKENS))))
    info = _device_info()
    kind: Any = "cpu"
    if mx.default_device() != mx.Device(mx.cpu):
        kind = "cuda" if _is_available("cuda") else "metal"
    total = _size(info, "memory_size") or _size(info, "total_memory")
    working_set = _size(info, "max_recommended_working_set_size") or total
    return MlxDevice(
        kind=kind,
        name=str(info.get("device_name", "")),
        architecture=str(info.get("architecture", "")),
        uuid=str(info.get("uuid", "")),
        working_set_bytes=0 if kind == "cpu" else working_set,
        total_bytes=total,
        version=str(getattr(mx, "__version__", "")),
        lm_version=_version("mlx-lm"),
    )


def measure_shape(model: Any, make_cache: Callable[[], list[Any]]) -> CacheShape:
    """What a sequence keeps in each layer, from real caches after a few tokens. For the engine's thread."""
    caches = make_cache()
    logits = model(mx.zeros((1, PROBE_TOKENS), dtype=mx.int32), cache=caches)
    mx.eval(logits, [cache.state for cache in caches])
    is_latent = _number(_attributes(getattr(model, "args", None)), "kv_lora_rank") > 0
    layers = [layer for cache in caches for layer in _layers_of(cache, is_latent=is_latent)]
    num_without = max(0, len(getattr(model, "layers", ())) - len(caches))
    shape = CacheShape((*layers, *(LayerCache("shared") for _ in range(num_without))))
    del caches, logits
    mx.clear_cache()
    return shape


def measure_transient(config: Mapping[str, Any], *, device: MlxDevice, element_bytes: int) -> Transient:
    """The scratch of a step, from a model's config.json; what it does not say is taken to be ordinary."""
    facts = _text_facts(config)
    hidden = _number(facts, "hidden_size", "n_embd", "d_model") or 1
    heads = _number(facts, "num_attention_heads", "n_head", "num_heads") or 1
    latent_head = _number(facts, "qk_nope_head_dim") + _number(facts, "qk_rope_head_dim")
    head_dim = latent_head or _number(facts, "head_dim") or max(1, hidden // heads)
    vocabulary = _number(facts, "vocab_size") or 1
    return Transient(
        query_heads=heads,
        head_dim=head_dim,
        hidden=hidden,
        intermediate=_intermediate(facts, hidden),
        vocabulary=vocabulary,
        element_bytes=element_bytes,
        is_fused=latent_head == 0 and is_fused(head_dim, device=device, element_bytes=element_bytes),
        score_copies=2 if latent_head else 1,
        most_logit_rows=tail_tokens(vocabulary),
    )


def is_fused(head_dim: int, *, device: MlxDevice, element_bytes: int) -> bool:
    """Whether attention over a chunk of a prompt keeps no scores in memory on this device."""
    match device.kind:
        case "metal":
            return head_dim in FUSED_METAL_HEADS
        case "cuda":
            return element_bytes == 2 and head_dim % 8 == 0 and head_dim <= FUSED_CUDA_HEAD
        case _:
            return False


def _layers_of(cache: Any, *, is_latent: bool) -> Iterator[LayerCache]:
    """One cache object's layers, told by what it holds; a kind of cache that is new here is priced as full."""
    parts = getattr(cache, "caches", None)
    if isinstance(parts, list | tuple):
        for part in parts:
            yield from _layers_of(part, is_latent=is_latent)
        return
    num_bytes = int(cache.nbytes)
    window = getattr(cache, "max_size", None)
    full: LayerKind = "latent" if is_latent else "full"
    if num_bytes == 0:
        yield LayerCache("shared")
    elif getattr(cache, "keys", None) is None:
        kind: LayerKind = "recurrent"
        yield LayerCache(kind, state_bytes=num_bytes)
    elif isinstance(window, int):
        yield LayerCache("sliding", num_bytes // _slots(cache), window_tokens=window)
    else:
        yield LayerCache(full, num_bytes // _slots(cache))


def _slots(cache: Any) -> int:
    """Tokens the cache has room for now; quantized keys are a tuple of arrays over the same tokens."""
    keys = cache.keys[0] if isinstance(cache.keys, list | tuple) else cache.keys
    return max(1, int(keys.shape[-2]))


def _text_facts(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that tells of the language model: models that see keep it one level down."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def _intermediate(facts: Mapping[str, Any], hidden: int) -> int:
    dense = _number(facts, "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    active = _number(facts, "num_experts_per_tok", "num_experts_per_token")
    if active == 0:
        return dense
    expert = _number(facts, "moe_intermediate_size") or dense
    shared = _number(facts, "shared_expert_intermediate_size") or _number(facts, "n_shared_experts") * expert
    return max(dense, active * (expert + hidden) + shared)  # each active expert gets a copy of its tokens


def _number(facts: Mapping[str, Any], *names: str) -> int:
    """The first of these keys that holds a number, bounded; 0 where none does. Configs are other people's files."""
    for name in names:
        value = facts.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return min(value, _MAX_WIDTH)
    return 0


def _attributes(value: object) -> Mapping[str, Any]:
    return vars(value) if hasattr(value, "__dict__") else {}


def _device_info() -> Mapping[str, Any]:
    asked = getattr(mx, "device_info", None) or getattr(getattr(mx, "metal", None), "device_info", None)
    try:
        return dict(asked()) if asked is not None else {}
    except RuntimeError:
        return {}


def _is_available(backend: str) -> bool:
    part = getattr(mx, backend, None)
    return bool(part is not None and part.is_available())


def _size(info: Mapping[str, Any], name: str) -> int:
    value = info.get(name)
    return int(value) if isinstance(value, int) and value > 0 else 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(read_device()).decode() + "\n")
