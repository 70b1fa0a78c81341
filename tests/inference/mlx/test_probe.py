"""What is measured of a model is what its real caches take, for each family, prompt read and answer decoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import _get_classes

from pensieve.devices.profile import MlxDevice, ask_mlx
from pensieve.inference.admission import CacheShape, Transient
from pensieve.inference.mlx.probe import is_fused, measure_shape, measure_transient, read_device
from tiny_models import FAMILIES, _untagged, make_tiny_model

CHUNK_TOKENS = 96
CPU = MlxDevice(kind="cpu")
KINDS = {
    "gpt_oss": ["sliding", "full"],
    "gemma3": ["sliding", "full"],
    "mistral": ["sliding", "full"],
    "mamba2": ["recurrent", "recurrent"],
    "qwen3_next": ["recurrent", "full"],
    "deepseek_v3": ["latent", "latent"],
}


def build(folder: Path, family: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A tiny model with its random start, and its configuration."""
    written = make_tiny_model(folder, family, **options) / "config.json"
    config = json.loads(written.read_text(), object_hook=_untagged)
    model_class, arguments_class = _get_classes(config)
    return model_class(arguments_class.from_dict(config)), config


def run(model: Any, caches: list[Any], num_tokens: int) -> None:
    """Push some tokens through the model."""
    mx.eval(model(mx.zeros((1, num_tokens), dtype=mx.int32), cache=caches), [cache.state for cache in caches])


def held_bytes(caches: list[Any]) -> int:
    """What the caches hold now."""
    return sum(cache.nbytes for cache in caches)


def block_bytes(shape: CacheShape) -> int:
    """A step of every layer: as far as a price may lie from the truth."""
    return sum(layer.bytes_per_token for layer in shape.layers) * shape.step_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_a_price_is_what_the_caches_take(tmp_path: Path, family: str) -> None:
    """After each chunk of a prompt and while decoding after it, within a step; recurrent state to the byte."""
    model, _ = build(tmp_path, family)
    shape = measure_shape(model, lambda: make_prompt_cache(model))
    assert [layer.kind for layer in shape.layers] == KINDS.get(family, ["full", "full"])
    caches, num_tokens = make_prompt_cache(model), 0
    for _ in range(6):
        run(model, caches, CHUNK_TOKENS)
        num_tokens += CHUNK_TOKENS
        price = shape.prefill_cache_bytes(num_tokens, CHUNK_TOKENS)
        assert abs(price - held_bytes(caches)) <= block_bytes(shape)
    for _ in range(3):
        run(model, caches, 1)
        assert abs(shape.cache_bytes(num_tokens + 3) - held_bytes(caches)) <= block_bytes(shape)


def test_a_window_s_price_is_exact(tmp_path: Path) -> None:
    """Layers that look back 16 tokens hold 16 while decoding and a chunk more while reading."""
    model, _ = build(tmp_path, "gemma3")
    sliding = measure_shape(model, lambda: make_prompt_cache(model)).layers[0]
    cache = make_prompt_cache(model)
    run(model, cache, 300)
    run(model, cache, 64)
    assert cache[0].nbytes == sliding.bytes_at(364, chunk_tokens=64) == 79 * sliding.bytes_per_token
    run(model, cache, 1)
    assert cache[0].nbytes == sliding.bytes_at(365) == 16 * sliding.bytes_per_token


def test_layers_without_a_cache_of_their_own_cost_nothing() -> None:
    """A model may have more layers than caches, a cache made of several, and one that nobody writes to."""

    class Part:
        nbytes, keys, state = 0, None, ()

    class Pair:
        caches, nbytes, state = (Part(), Part()), 0, ()

    class Model:
        layers = (1, 2, 3)

        def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
            assert len(cache) == 2
            return tokens

    shape = measure_shape(Model(), lambda: [Pair(), Part()])
    assert [layer.kind for layer in shape.layers] == ["shared"] * 4
    assert shape.cache_bytes(1000) == 0


@pytest.mark.parametrize(
    ("family", "heads", "head_dim", "intermediate"),
    [
        ("llama", 4, 16, 96),
        ("gptj", 4, 16, 256),
        ("gpt_oss", 4, 16, 256),
        ("deepseek_v3", 4, 32, 96),
        ("qwen3_next", 4, 16, 320),
    ],
)
def test_scratch_is_priced_from_a_config_of_any_family(
    tmp_path: Path, family: str, heads: int, head_dim: int, intermediate: int
) -> None:
    """Other families have other names for the same widths; experts count as many times as they are active."""
    _, config = build(tmp_path, family)
    scratch = measure_transient(config, device=CPU, element_bytes=4)
    assert (scratch.query_heads, scratch.head_dim, scratch.intermediate) == (heads, head_dim, intermediate)
    assert (scratch.hidden, scratch.vocabulary, scratch.is_fused) == (64, config["vocab_size"], False)


@pytest.mark.parametrize("config", [{}, {"hidden_size": "64", "num_attention_heads": -4, "head_dim": True}])
def test_a_hostile_config_is_priced_without_breaking(config: dict[str, Any]) -> None:
    """Numbers that are missing, texts, negative or endless are taken for small or cut to a bound."""
    scratch = measure_transient(config | {"vocab_size": 10**30}, device=CPU, element_bytes=2)
    assert (scratch.hidden, scratch.query_heads, scratch.vocabulary) == (1, 1, 2**24)


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"gpt_oss"}))  # a processor copies experts' weights, too
def test_reading_a_real_chunk_peaks_near_its_price(tmp_path: Path, family: str) -> None:
    """Scratch and the copy of a growing cache, on a device that keeps its scores: a third above the price at most."""
    model, config = build(tmp_path, family)
    shape = measure_shape(model, lambda: make_prompt_cache(model))
    scratch = measure_transient(config, device=CPU, element_bytes=4)
    cache = make_prompt_cache(model)
    run(model, cache, 256)
    price = scratch.prefill_bytes(512, shape.span_tokens(768, 512)) + shape.growth_bytes(1, 768)
    assert peak_of_chunk(model, cache) <= price * 4 / 3


def peak_of_chunk(model: Any, cache: list[Any]) -> int:
    """Bytes that reading 512 more tokens took beyond what was held before and after."""
    mx.clear_cache()
    mx.reset_peak_memory()
    model(mx.zeros((1, 512), dtype=mx.int32), cache=cache)
    mx.eval([each.state for each in cache])
    return int(mx.get_peak_memory() - mx.get_active_memory())


def test_the_last_piece_of_a_prompt_is_priced_with_the_logits_of_all_its_tokens(tmp_path: Path) -> None:
    """A model makes them all, though the last alone is looked at: a large vocabulary takes more than all the rest."""
    model, config = build(tmp_path, "llama", vocab_size=20_000)
    mx.eval(model.parameters())
    mx.clear_cache()
    mx.reset_peak_memory()
    held = mx.get_active_memory()
    mx.eval(model(mx.zeros((1, 512), dtype=mx.int32), cache=make_prompt_cache(model))[:, -1])
    peak = mx.get_peak_memory() - held
    assert peak > 512 * 20_000 * 4
    assert peak <= measure_transient(config, device=CPU, element_bytes=4).prefill_bytes(512, 512) * 4 / 3


def test_fused_attention_depends_on_device_and_type() -> None:
    """Metal has a list of head sizes; CUDA wants half precision; a processor keeps the scores of all."""
    metal, cuda = MlxDevice(kind="metal"), MlxDevice(kind="cuda")
    assert [is_fused(size, device=metal, element_bytes=4) for size in (64, 80, 100, 256)] == [True, True, False, False]
    assert [is_fused(64, device=cuda, element_bytes=size) for size in (2, 4)] == [True, False]
    assert not is_fused(192, device=cuda, element_bytes=2)
    assert not is_fused(64, device=CPU, element_bytes=4)


def test_a_child_tells_the_same_device() -> None:
    """What the parent learns without importing MLX is what MLX says here."""
    assert ask_mlx() == read_device()


def test_a_transient_is_a_printable_value() -> None:
    """It stands in the log of a load."""
    scratch = measure_transient({"hidden_size": 64}, device=CPU, element_bytes=2)
    assert isinstance(scratch, Transient)
    assert "hidden=64" in repr(scratch)
