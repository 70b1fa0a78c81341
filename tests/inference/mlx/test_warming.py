"""Warming runs what requests will run, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from pensieve.inference.mlx.runner import Runner
from pensieve.inference.mlx.warming import ROWS, warm_up
from tiny_engines import Wrapped


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "mamba2"])
def test_warming_meets_every_kind_of_step_and_leaves_nothing(model_of: Callable[[str], Any], family: str) -> None:
    """Prompts of both sizes, one row and several, and an empty runner at the end."""
    model, shapes = model_of(family), set()

    class Noted(Wrapped):
        def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
            shapes.add(tuple(tokens.shape))
            logits: mx.array = super().__call__(tokens, cache)
            return logits

    runner = Runner(Noted(model), lambda: make_prompt_cache(model))
    warm_up(runner, lambda: make_prompt_cache(model), prompt_tokens=64, vocabulary_size=100)
    assert {(1, 64), (1, 9), (1, 2), *((rows, 1) for rows in range(1, ROWS + 1))} == shapes
    assert runner.row_ids == ()
