"""What each kind of layer costs in the cache."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.models.layers import CacheCost, Config, cache_cost

WIDTHS = {"num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
LAYER = 2 * (16 + 16) * 2
"""Bytes of one token in one layer of that shape."""
HALF_SLIDING = ["sliding_attention", "full_attention"] * 2


@pytest.mark.parametrize(
    ("config", "cost"),
    [
        ({"model_type": "llama", **WIDTHS}, CacheCost(4 * LAYER)),
        ({"model_type": "phi3", **WIDTHS, "sliding_window": 20}, CacheCost(4 * LAYER)),
        ({"model_type": "qwen3", **WIDTHS, "head_dim": 32}, CacheCost(8 * LAYER)),
        ({"model_type": "gptj", "n_layer": 2, "n_embd": 64, "n_head": 4}, CacheCost(2 * 2 * 64 * 2)),
        ({"model_type": "gpt_neox", **WIDTHS, "num_key_value_heads": None}, CacheCost(8 * LAYER)),
        ({"model_type": "gpt_oss", **WIDTHS, "layer_types": HALF_SLIDING}, CacheCost(2 * LAYER, 2 * LAYER * 128)),
        ({"model_type": "gpt_oss", **WIDTHS, "sliding_window": 10}, CacheCost(2 * LAYER, 2 * LAYER * 10)),
        ({"model_type": "qwen2", **WIDTHS, "layer_types": HALF_SLIDING, "sliding_window": 9}, CacheCost(4 * LAYER)),
        ({"model_type": "mistral", **WIDTHS, "sliding_window": 9}, CacheCost(4 * LAYER)),
        ({"model_type": "qwen3_next", **WIDTHS}, CacheCost(LAYER)),
        (
            {"model_type": "lfm2", **WIDTHS, "layer_types": ["conv", "conv", "full_attention", "new"]},
            CacheCost(2 * LAYER),
        ),
        ({"model_type": "mamba2", **WIDTHS}, CacheCost()),
        (
            {"model_type": "deepseek_v3", **WIDTHS, "kv_lora_rank": 32, "qk_rope_head_dim": 8},
            CacheCost(4 * (32 + 8) * 2),
        ),
        (
            {
                "model_type": "deepseek_v2",
                **WIDTHS,
                "kv_lora_rank": 32,
                "qk_rope_head_dim": 8,
                "qk_nope_head_dim": 16,
                "v_head_dim": 16,
            },
            CacheCost(4 * 2 * (24 + 16) * 2),
        ),
        (
            {"model_type": "gemma3n", **WIDTHS, "num_kv_shared_layers": 2, "layer_types": ["full_attention"] * 4},
            CacheCost(2 * LAYER),
        ),
        ({"model_type": "gemma3n", **WIDTHS, "num_kv_shared_layers": 9}, CacheCost()),
    ],
)
def test_each_family_is_priced_as_the_engine_runs_it(config: dict[str, Any], cost: CacheCost) -> None:
    """Windows count only where they are kept to, states nothing, compressed pairs once, shared layers nothing."""
    assert cache_cost(Config(config)) == cost


def test_a_text_model_inside_another_is_the_one_that_counts() -> None:
    """Gemma 3 with vision says little of its text model; the family's defaults stand in. One layer of six sees all."""
    text = {"num_hidden_layers": 12, "hidden_size": 2560, "sliding_window": 100}
    config = Config({"model_type": "gemma3", "text_config": text, "hidden_size": 1})
    layer = 4 * (256 + 256) * 2
    assert config.context_tokens == 131_072
    assert cache_cost(config) == CacheCost(2 * layer, 10 * layer * 100)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"max_position_embeddings": 131_072, "original_max_position_embeddings": 4096}, 131_072),
        ({"n_positions": 2048}, 2048),
        ({"model_type": "gptj"}, 2048),
        ({"text_config": {"max_position_embeddings": 32_768}}, 32_768),
        ({"max_position_embeddings": True}, 0),
        ({"max_position_embeddings": -1, "n_ctx": 10**30}, 0),
        ({"max_position_embeddings": "4096"}, 0),
    ],
)
def test_the_context_goes_by_many_names(config: dict[str, Any], tokens: int) -> None:
    """What is absurd counts as not said."""
    assert Config(config).context_tokens == tokens


def test_a_window_longer_than_the_context_is_never_full() -> None:
    """The context bounds it."""
    config = {"model_type": "gpt_oss", **WIDTHS, "sliding_window": 10**6, "max_position_embeddings": 50}
    assert cache_cost(Config(config)).window_bytes == 2 * LAYER * 50


def test_the_price_of_an_absurd_config_still_fits_into_a_frame() -> None:
    """Each number is within its bound; their product need not be."""
    widths = {"num_hidden_layers": 10_000, "num_attention_heads": 2**20, "head_dim": 2**20, "sliding_window": 2**31}
    cost = cache_cost(Config({"model_type": "gpt_oss", **widths}))
    assert 0 < max(cost.window_bytes, cost.bytes_per_token) < 2**63


@pytest.mark.parametrize("name", ["x" * 10**6, "\x1b[2J", "", 7])
def test_a_family_with_no_sensible_name_has_none(name: object) -> None:
    """It is printed, and stands in the manifest."""
    assert Config({"model_type": name}).family == ""


Scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "mamba", "gemma3n", "1"])
Jsons = Scalars | st.lists(Scalars, max_size=4) | st.dictionaries(st.sampled_from([*WIDTHS]), Scalars, max_size=3)


@given(
    st.dictionaries(
        st.sampled_from([*WIDTHS, "layer_types", "sliding_window", "model_type", "text_config"]), Jsons, max_size=6
    )
)
def test_no_config_breaks_the_price(config: dict[str, Any]) -> None:
    """Whatever is written there, the cost is a number that is not negative."""
    cost = cache_cost(Config(config))
    assert cost.bytes_per_token >= 0
    assert cost.window_bytes >= 0
