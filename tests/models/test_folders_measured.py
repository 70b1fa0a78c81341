"""What a folder says of itself, against what the engine's own code makes of it, for each family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from pensieve.models.folders import read_folder
from tiny_models import FAMILIES, make_tiny_model

SHORT_TOKENS, LONG_TOKENS, STEP_TOKENS = 512, 768, 128
"""Multiples of the step in which caches grow."""


def cache_bytes(model: Any, num_tokens: int) -> int:
    """Bytes of the cache after that many tokens, at 4 bytes an element."""
    cache = make_prompt_cache(model)
    for _ in range(0, num_tokens, STEP_TOKENS):
        mx.eval(model(mx.ones((1, STEP_TOKENS), mx.int32), cache=cache))
    states: list[tuple[str, Any]] = tree_flatten([layer.state for layer in cache])  # type: ignore[assignment]
    return sum(array.nbytes for _, array in states if isinstance(array, mx.array))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_costs_in_the_cache_what_its_config_says(tmp_path: Path, family: str) -> None:
    """Bytes that each further token adds, as measured on the engine's own caches."""
    folder = make_tiny_model(tmp_path / family, family, num_layers=4)
    model, _ = load_model(folder)
    grown_bytes = cache_bytes(model, LONG_TOKENS) - cache_bytes(model, SHORT_TOKENS)
    assert read_folder(folder).cache.bytes_per_token == grown_bytes / (LONG_TOKENS - SHORT_TOKENS)


@pytest.mark.parametrize(
    ("bits", "mode", "name"),
    [(None, "affine", "fp32"), (4, "affine", "int4 g32"), (8, "affine", "int8 g32"), (4, "mxfp4", "mxfp4")],
)
def test_parameters_are_counted_the_same_however_they_are_stored(
    tmp_path: Path, bits: int | None, mode: str, name: str
) -> None:
    """Quantized or not, a model has the parameters that it was trained with."""
    header = read_folder(make_tiny_model(tmp_path / "tiny", "llama", bits=bits, mode=mode))
    whole = read_folder(make_tiny_model(tmp_path / "whole", "llama"))
    assert (header.quantization, header.parameters) == (name, whole.parameters)
    assert whole.weight_bytes == whole.parameters * 4
