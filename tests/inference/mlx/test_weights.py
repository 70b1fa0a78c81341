"""Weight policy: which form is chosen, that both copies compute the same, and which copy takes a step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.nn.layers.quantized import quantize
from mlx_lm.models import gpt_oss, llama
from mlx_lm.models.cache import make_prompt_cache

from pensieve.inference.mlx.weights import (
    DENSE_FROM_TOKENS,
    TIMED_ROWS,
    DualModel,
    StepTime,
    choose_policy,
    dense_from,
    dequantized,
    keep_kernels,
    measure_steps,
    weight_bytes,
    with_policy,
)

GIB = 2**30


def ready(model: Any, **quantization: Any) -> Any:
    """The model quantized as told, its other weights in float32, and none of its biases zero."""
    model.apply(lambda array: array + 0.05 * mx.random.normal(array.shape))
    quantize(model, **quantization)
    model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    return model


def tied_llama() -> Any:
    """A llama whose output layer is its embedding, 4 bits."""
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=128,
        num_attention_heads=4,
        rms_norm_eps=1e-5,
        vocab_size=128,
        tie_word_embeddings=True,
    )
    mx.random.seed(3)
    return ready(llama.Model(arguments), group_size=32, bits=4)


def mixture() -> Any:
    """A gpt-oss with sliding and full layers, its experts in mxfp4."""
    arguments = gpt_oss.ModelArgs(
        num_hidden_layers=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        vocab_size=128,
        hidden_size=64,
        intermediate_size=64,
        head_dim=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
    )
    mx.random.seed(4)
    model = gpt_oss.Model(arguments)
    return ready(model, mode="mxfp4", class_predicate=lambda path, layer: "experts" in path and is_quantizable(layer))


def is_quantizable(layer: Any) -> bool:
    """Whether MLX knows how to quantize the layer."""
    return hasattr(layer, "to_quantized")


def logits(model: Any, num_rows: int = 2, num_tokens: int = 12) -> mx.array:
    """Logits of a prompt and of one step after it, behind each other."""
    cache = make_prompt_cache(model)
    tokens = mx.arange(num_rows * num_tokens).reshape(num_rows, num_tokens) % 128
    return mx.concatenate([model(tokens, cache=cache), model(tokens[:, :1], cache=cache)], axis=1)


@pytest.mark.parametrize(
    ("device", "available_gib", "policy"),
    [
        ("metal", 500, "quantized"),
        ("cuda", 80, "dual"),
        ("cuda", 14, "dual"),
        ("cuda", 13, "quantized"),
        ("cpu", 32, "dense"),
        ("cpu", 31, "quantized"),
    ],
)
def test_the_policy_follows_device_and_memory(device: Any, available_gib: int, policy: str) -> None:
    """A dense copy is made where it is faster and leaves room for caches."""
    decision = choose_policy(
        device=device, quantized_bytes=2 * GIB, dense_bytes=8 * GIB, available_bytes=available_gib * GIB
    )
    assert decision.policy == policy
    assert decision.reason


@pytest.mark.parametrize("forced", ["quantized", "dual", "dense"])
def test_a_forced_policy_is_taken_on_any_machine(forced: Any) -> None:
    """What the settings force goes before the rule, even without memory for it."""
    for device in ("metal", "cuda", "cpu"):
        decision = choose_policy(
            device=device, quantized_bytes=2 * GIB, dense_bytes=8 * GIB, available_bytes=0, forced=forced
        )
        assert decision.policy == forced


def test_weights_that_are_not_quantized_have_one_form() -> None:
    """Nothing is copied where there is nothing to dequantize, whatever is forced."""
    decision = choose_policy(
        device="cuda", quantized_bytes=GIB, dense_bytes=GIB, available_bytes=80 * GIB, forced="dual"
    )
    assert decision.policy == "quantized"


def has_scales(model: Any) -> bool:
    """Whether any layer still computes from quantized weights."""
    return any("scales" in module for _, module in model.named_modules())


@pytest.mark.parametrize("make_model", [tied_llama, mixture])
@pytest.mark.parametrize("dtype", [None, mx.float32])
def test_a_dense_copy_computes_the_same(make_model: Any, dtype: mx.Dtype | None) -> None:
    """Dequantizing changes no logit beyond rounding, experts and tied embeddings included."""
    model = make_model()
    dense = dequantized(model, dtype)
    assert not has_scales(dense)
    assert has_scales(model)
    assert mx.allclose(logits(model), logits(dense), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [mx.float16, mx.float32])
def test_a_dense_copy_hands_on_what_the_model_does(dtype: mx.Dtype) -> None:
    """Both copies fill one cache, so that their activations have one dtype, whatever mxfp4 dequantizes to."""
    model = mixture()
    model.set_dtype(dtype)
    assert logits(model).dtype == logits(dequantized(model)).dtype == dtype


@pytest.mark.parametrize("make_model", [tied_llama, mixture])
def test_the_size_of_a_dense_copy_is_foretold(make_model: Any) -> None:
    """What the policy is decided on is what the copy then takes."""
    model = make_model()
    for dtype in (None, mx.float32, mx.bfloat16):
        _, foretold_bytes = weight_bytes(model, dtype)
        actual_bytes, _ = weight_bytes(dequantized(model, dtype))
        if dtype is mx.bfloat16:  # the rest, float32 here, is cast too: the estimate stays on the safe side
            assert foretold_bytes / 2 <= actual_bytes <= foretold_bytes
        else:
            assert actual_bytes == foretold_bytes


def test_the_copies_share_what_is_not_quantized() -> None:
    """A dual model takes no second copy of norms and biases, and leaves the original as it was."""
    model = mixture()
    dual = with_policy(model, "dual")
    assert isinstance(dual, DualModel)
    assert dual.dense.model.norm.weight is model.model.norm.weight
    assert dual.dense.layers[0] is not model.layers[0]
    assert dual.quantized is model
    assert with_policy(model, "quantized") is model


def test_prompts_and_batches_go_to_the_dense_copy() -> None:
    """One stream decodes from the quantized copy; a step of more tokens takes the dense one."""
    dual = with_policy(tied_llama(), "dual")
    assert isinstance(dual, DualModel)
    assert dual.chosen((1, 1)) is dual.quantized
    assert dual.chosen((DENSE_FROM_TOKENS - 1, 1)) is dual.quantized
    assert dual.chosen((DENSE_FROM_TOKENS, 1)) is dual.dense
    assert dual.chosen((1, 512)) is dual.dense


@pytest.mark.parametrize("make_model", [tied_llama, mixture])
def test_a_dual_model_is_called_like_the_model(make_model: Any) -> None:
    """Layers and caches are the model's own, and one cache serves both copies in turn."""
    model = make_model()
    dual = with_policy(model, "dual")
    assert len(make_prompt_cache(dual)) == len(dual.layers) == 2
    assert mx.allclose(logits(dual, num_rows=1), logits(model, num_rows=1), atol=1e-4, rtol=0)


def test_the_threshold_is_where_the_dense_copy_begins_to_win() -> None:
    """The smallest measured size from which the dense copy is never slower, or past all that was measured."""
    slower, faster = (1.0, 2.0), (2.0, 1.0)
    cases = {(slower, slower, faster): 4, (faster, slower, faster): 4, (faster, faster, faster): 1}
    cases[faster, faster, slower] = 8
    for outcome, expected in cases.items():
        times = [StepTime(rows, *seconds) for rows, seconds in zip((1, 2, 4), outcome, strict=True)]
        assert dense_from(times) == expected


def test_both_copies_are_timed_within_the_budget() -> None:
    """Every size is timed when there is time, and one at least when there is none."""
    dual = with_policy(tied_llama(), "dual")
    assert isinstance(dual, DualModel)
    times = measure_steps(dual, lambda: make_prompt_cache(dual), budget_seconds=60)
    assert tuple(step.num_rows for step in times) == TIMED_ROWS
    assert all(step.quantized_seconds > 0 and step.dense_seconds > 0 for step in times)
    assert len(measure_steps(dual, lambda: make_prompt_cache(dual), budget_seconds=0)) == 1


def test_kernels_are_kept_apart_by_version_in_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is made for its owner only, and one that the user chose stays."""
    monkeypatch.setenv("MLX_PTX_CACHE_DIR", "chosen")
    keep_kernels(tmp_path / "kernels")
    assert not (tmp_path / "kernels").exists()
    monkeypatch.delenv("MLX_PTX_CACHE_DIR")
    keep_kernels(tmp_path / "kernels")
    folder = Path(os.environ["MLX_PTX_CACHE_DIR"])
    assert folder.parent == tmp_path / "kernels"
    assert folder.stat().st_mode & 0o077 == 0


def test_kernels_that_cannot_be_kept_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder to write to, MLX goes on with its own."""
    monkeypatch.delenv("MLX_PTX_CACHE_DIR", raising=False)
    (tmp_path / "file").touch()
    keep_kernels(tmp_path / "file" / "kernels")
    assert "MLX_PTX_CACHE_DIR" not in os.environ
