"""Perplexity: known values, windows, and what quantization does to it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from pensieve.config.settings import MlxSettings, Settings
from pensieve.inference.mlx.loader import load
from pensieve.inference.mlx.perplexity import CHUNK_TOKENS, WINDOW_TOKENS, evaluation_text, perplexity
from pensieve.models.spec import ModelSpec
from tiny_models import make_tiny_model

VOCABULARY = 50


class Flat:
    """A model whose every token is as likely as in `logits`, whatever came before."""

    def __init__(self, logits: mx.array) -> None:
        self.logits = logits
        self.seen: list[int] = []

    def make_cache(self) -> list[Any]:
        """It remembers nothing."""
        return []

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        """Logits [1, L, V]."""
        assert cache == []
        self.seen.append(tokens.shape[1])
        return mx.broadcast_to(self.logits, (*tokens.shape, self.logits.size))


def test_a_model_that_knows_nothing_has_the_size_of_its_vocabulary() -> None:
    """Every token has the same chance, over several windows and chunks."""
    tokens = [number % VOCABULARY for number in range(WINDOW_TOKENS + 100)]
    assert perplexity(Flat(mx.zeros(VOCABULARY)), tokens) == pytest.approx(VOCABULARY, rel=1e-4)


def test_each_window_is_read_in_chunks_without_its_last_token() -> None:
    """No token is scored twice, and none but a window's first goes without."""
    model = Flat(mx.zeros(VOCABULARY))
    told: list[int] = []
    perplexity(model, [1] * (WINDOW_TOKENS + CHUNK_TOKENS + 1), told.append)
    assert sum(model.seen) == WINDOW_TOKENS - 1 + CHUNK_TOKENS
    assert (min(model.seen), max(model.seen)) == (CHUNK_TOKENS - 1, CHUNK_TOKENS)
    assert told[-1] == WINDOW_TOKENS + CHUNK_TOKENS + 1


def test_certainty_is_one_and_a_broken_model_is_infinite() -> None:
    """Logits that are no numbers must not pass for a good model."""
    sure = mx.where(mx.arange(VOCABULARY) == 7, 100.0, 0.0)
    assert perplexity(Flat(sure), [7] * 20) == pytest.approx(1.0)
    assert perplexity(Flat(mx.full((VOCABULARY,), math.nan)), [7] * 20) == math.inf


def test_eight_bits_change_little_and_four_bits_more(tmp_path: Path) -> None:
    """Within five percent of the floats at 8 bits, on a random model."""
    make_tiny_model(tmp_path / "m", "llama")
    found: dict[str, float] = {}
    for quantization in ("none", "int8", "int4"):
        settings = Settings(mlx=MlxSettings(quantization=quantization))
        loaded = load(ModelSpec(name="m", location=str(tmp_path / "m"), format="mlx"), settings)
        found[quantization] = perplexity(loaded.model, loaded.tokenizer.encode(evaluation_text())[:600])
    assert found["int8"] == pytest.approx(found["none"], rel=0.05)
    assert abs(found["int8"] - found["none"]) < abs(found["int4"] - found["none"])


def test_the_text_is_long_enough_to_tell_models_apart() -> None:
    """Several subjects, some hundred words, plain letters."""
    text = evaluation_text()
    assert 600 < len(text.split()) < 1_000
    assert text.isascii()
    assert text.count("\n\n") >= 8
