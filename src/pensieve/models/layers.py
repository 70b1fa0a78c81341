"""What a token costs in the cache of each kind of layer, told from config.json alone. Pure; reads no file.

Where a config says more than the engine uses (windows that its family's code ignores), the engine's way is priced;
a kind of layer that is not known is priced as one of full attention, which is never too little.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from pensieve.messages import Json

Kind = Literal["full", "sliding", "fixed", "shared"]
ELEMENT_BYTES: Final = 2
STATE_BYTES: Final = 4
"""Of an element of a recurrent state, which the engine keeps in float32 whatever the weights are."""
MAX_LAYERS: Final = 10_000
MAX_WIDTH: Final = 2**20
MAX_CONTEXT_TOKENS: Final = 2**31
_FAMILY_NAME: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)
MAX_CACHE_BYTES: Final = 2**60
"""More than any machine has; a hostile config's product stays a number that frames can carry."""
_CONTEXT_KEYS: Final = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
)
_KINDS: Final[Mapping[str, Kind]] = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "linear_attention": "fixed",
    "mamba": "fixed",
    "conv": "fixed",
}
_WINDOWED: Final = frozenset(
    [
        "afmoe",
        "cohere2",
        "exaone4",
        "gemma3",
        "gemma3_text",
        "gemma3n",
        "gemma3n_text",
        "gemma4",
        "gemma4_text",
        "gpt_oss",
        "llama",
        "mistral",
        "ministral3",
        "olmo3",
    ]
)
"""Families whose engine code keeps only the window; others keep every token, whatever their config says."""
_LATENT: Final = frozenset(
    ["deepseek_v3", "deepseek_v32", "glm4_moe_lite", "kimi_k2", "kimi_linear", "longcat_flash", "mistral4"]
)
"""Families whose engine code caches the compressed key-value (multi-head latent attention)."""
_SHARING: Final = frozenset(["gemma3n", "gemma3n_text", "gemma4", "gemma4_text"])
_RECURRENT: Final = frozenset(["mamba", "mamba2", "falcon_mamba", "rwkv7"])
_GATED_DELTA: Final = frozenset(["qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"])
_FAMILY_DEFAULTS: Final[Mapping[str, Mapping[str, Json]]] = {
    "gemma3": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 1024,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131_072,
    },
    "gemma3_text": {"head_dim": 256, "sliding_window": 512, "sliding_window_pattern": 6},
    "cohere2": {"sliding_window_pattern": 4},
    "gpt_oss": {"sliding_window": 128, "sliding_window_pattern": 2},
    "gptj": {"n_positions": 2048},
    "qwen3_next": {"full_attention_interval": 4},
    "qwen3_5": {"full_attention_interval": 4},
}
"""What these families mean where their config is silent."""


class CacheCost(msgspec.Struct, frozen=True):
    """Bytes: what every token adds, and what does not grow with them."""

    bytes_per_token: int = 0
    window_bytes: int = 0
    """The most that all windows together hold, and recurrent states."""


class Config:
    """A config.json: the text model's own section first, then the whole, then the family's defaults."""

    def __init__(self, document: Mapping[str, Json]) -> None:
        named = document.get("model_type")
        section = document.get("text_config")
        inner: Mapping[str, Json] = section if isinstance(section, dict) else {}
        self.family = named if isinstance(named, str) and _FAMILY_NAME.fullmatch(named) else ""
        self._sources = (inner, document, _FAMILY_DEFAULTS.get(self.family, {}))

    def number(self, *keys: str, limit: int = MAX_WIDTH) -> int:
        """The first positive integer under one of the keys; 0 if there is none, or it is absurd."""
        for source in self._sources:
            for key in keys:
                value = source.get(key)
                if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= limit:
                    return value
        return 0

    def words(self, key: str) -> tuple[str, ...]:
        """The list of texts under the key; empty if there is none."""
        for source in self._sources:
            value = source.get(key)
            if isinstance(value, list) and all(isinstance(word, str) for word in value):
                return tuple(value[:MAX_LAYERS])
        return ()

    @property
    def element_bytes(self) -> int:
        """Of the cache, which has the type of what the model computes with."""
        named = next((named for key in ("dtype", "torch_dtype") if isinstance(named := self._first(key), str)), "")
        return 4 if named == "float32" else ELEMENT_BYTES

    def _first(self, key: str) -> Json:
        return next((source[key] for source in self._sources if key in source), None)

    @property
    def context_tokens(self) -> int:
        """The context the model was trained for; 0 if it is not said."""
        return self.number(*_CONTEXT_KEYS, limit=MAX_CONTEXT_TOKENS)


def cache_cost(config: Config) -> CacheCost:
    """Keys and values of one sequence, summed over the layers by kind."""
    kinds = layer_kinds(config)
    layer_bytes = _layer_bytes(config)
    window_tokens = config.number("sliding_window", limit=MAX_CONTEXT_TOKENS)
    if config.context_tokens:
        window_tokens = min(window_tokens, config.context_tokens)
    fixed_bytes = layer_bytes * kinds.count("sliding") * window_tokens + _state_bytes(config) * kinds.count("fixed")
    return CacheCost(bytes_per_token=layer_bytes * kinds.count("full"), window_bytes=min(fixed_bytes, MAX_CACHE_BYTES))


def layer_kinds(config: Config) -> tuple[Kind, ...]:
    """The kind of each layer, as the engine runs it."""
    num_layers = config.number("num_hidden_layers", "n_layer", "num_layers", limit=MAX_LAYERS)
    named = config.words("layer_types")
    if len(named) == num_layers:
        kinds = [_KINDS.get(name, "full") for name in named]
    else:
        kinds = [_by_pattern(config, layer) for layer in range(num_layers)]
    if config.family not in _WINDOWED or not config.number("sliding_window", limit=MAX_CONTEXT_TOKENS):
        kinds = ["full" if kind == "sliding" else kind for kind in kinds]
    num_shared = config.number("num_kv_shared_layers") if config.family in _SHARING else 0
    shared: Kind = "shared"
    return (*kinds[: max(0, num_layers - num_shared)], *(shared for _ in range(min(num_shared, num_layers))))


def _by_pattern(config: Config, layer: int) -> Kind:
    """Every n-th layer sees everything; those between are of the family's other kind."""
    if config.family in _RECURRENT:
        return "fixed"
    if interval := config.number("full_attention_interval"):
        return "full" if (layer + 1) % interval == 0 else "fixed"
    if pattern := config.number("sliding_window_pattern", "_sliding_window_pattern"):
        return "full" if (layer + 1) % pattern == 0 else "sliding"
    return "full"


def _state_bytes(config: Config) -> int:
    """Of one recurrent layer: its last inputs, as many as its convolution looks back, and its state.

    As in the engine's code for Mamba 2 and for gated delta rules; 0 for families whose code was not read.
    """
    if config.family == "mamba2":
        heads, width, states = config.number("num_heads"), config.number("head_dim"), config.number("state_size")
        channels, kernel = heads * width + 2 * config.number("n_groups") * states, config.number("conv_kernel")
        num_states = heads * width * states
    elif config.family in _GATED_DELTA:
        key, value = config.number("linear_key_head_dim"), config.number("linear_value_head_dim")
        key_heads, value_heads = config.number("linear_num_key_heads"), config.number("linear_num_value_heads")
        channels, kernel = 2 * key_heads * key + value_heads * value, config.number("linear_conv_kernel_dim")
        num_states = value_heads * key * value
    else:
        return 0
    return max(0, kernel - 1) * channels * config.element_bytes + num_states * STATE_BYTES


def _layer_bytes(config: Config) -> int:
    """Of one token in one layer: key-value heads * (key + value width), or the compressed pair of both."""
    latent = config.number("kv_lora_rank")
    if latent and config.family in _LATENT:
        return (latent + config.number("qk_rope_head_dim")) * config.element_bytes
    heads = config.number("num_attention_heads", "n_head", "num_heads")
    cache_heads = config.number("num_key_value_heads", "num_kv_heads") or heads
    usual_width = config.number("hidden_size", "n_embd") // heads if heads else 0
    value_width = config.number("v_head_dim", "head_dim") or usual_width
    rope_and_plain = config.number("qk_rope_head_dim") + config.number("qk_nope_head_dim")
    key_width = rope_and_plain or config.number("head_dim") or usual_width
    return cache_heads * (key_width + value_width) * config.element_bytes
