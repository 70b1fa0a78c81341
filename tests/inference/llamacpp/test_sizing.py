"""Sizes chosen from model and machine."""

from __future__ import annotations

from pensieve.config.settings import LlamaCppSettings, ModelSettings, Settings
from pensieve.inference.llamacpp.sizing import batch_tokens, choose, pool_tokens
from pensieve.models.spec import ModelSpec

SPEC = ModelSpec(name="m", location="m.gguf", context_tokens=8192, parameters=135_000_000, cache_bytes_per_token=1000)
GIGABYTE = 10**9


def test_a_larger_model_takes_smaller_steps() -> None:
    """So that a cancelled prefill lets go in time, within bounds."""
    steps = [batch_tokens(parameters, 2) for parameters in (10**6, 135_000_000, 7_000_000_000)]
    assert steps == [512, 64, 32]


def test_the_pool_holds_two_contexts_where_memory_allows() -> None:
    """And never less than one: a request may always use the whole context."""
    assert pool_tokens(8192, cache_bytes_per_token=1000, available_bytes=GIGABYTE, num_slots=4) == 16384
    assert pool_tokens(8192, cache_bytes_per_token=1000, available_bytes=40_000_000, num_slots=4) == 10_000
    assert pool_tokens(8192, cache_bytes_per_token=1000, available_bytes=0, num_slots=4) == 8192
    assert pool_tokens(8192, cache_bytes_per_token=1000, available_bytes=GIGABYTE, num_slots=1) == 8192


def test_what_the_user_set_wins() -> None:
    """Except where the model cannot: its context is not stretched."""
    engine = LlamaCppSettings(threads=3, batch_tokens=48, pool_tokens=5000)
    settings = Settings(llamacpp=engine, model=ModelSettings(context_tokens=4096))
    sizes = choose(SPEC, settings, available_bytes=GIGABYTE)
    assert (sizes.context_tokens, sizes.pool_tokens, sizes.batch_tokens, sizes.num_threads) == (4096, 5000, 48, 3)
    huge = Settings(model=ModelSettings(context_tokens=100_000))
    assert choose(SPEC, huge, available_bytes=GIGABYTE).context_tokens == 8192
