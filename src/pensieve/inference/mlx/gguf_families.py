"""What a GGUF header's keys and tensor names mean for each family that MLX runs: a config.json and a list of weights.

Plain Python. The header is hostile: every number is bounded, every tensor's shape is what the numbers say, and a file
with more, less or other than its family has is refused, because half a model answers nonsense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from pensieve.errors import LoadFailed
from pensieve.models.gguf import Container, StoredTensor

MAX_WIDTH: Final = 2**20
MAX_LAYERS: Final = 1_000
MAX_VOCABULARY: Final = 2**22
MAX_CONTEXT: Final = 2**31
_PHI: Final = frozenset({"phi2", "phi3"})
"""Families whose rotary embeddings may turn a part of each head, and whose heads are as wide as the model."""
_CURVE_TOLERANCE: Final = 1e-4
_ATTENTION_TOLERANCE: Final = 1e-2

Config = dict[str, Any]
Names = Mapping[str, tuple[str, tuple[str, ...]]]
"""A tensor's name in the file to its module here and its shape, in words of `Shape`."""


class Target(msgspec.Struct, frozen=True):
    """Some rows of a stored tensor, and the parameter they become."""

    name: str
    """With its ending: `model.norm.weight`."""
    tensor: StoredTensor
    first_row: int
    num_rows: int
    paired_heads: int = 0
    """Heads whose rows the file keeps in pairs for rotary embeddings, to be put back; 0: none."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As MLX has it: rows first."""
        return (self.num_rows, *reversed(self.tensor.dimensions[:-1]))


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a model, each within its bound."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    key_heads: int
    head: int
    feed: int
    vocabulary: int
    context: int
    rotated: int

    def size(self, word: str) -> int:
        """A size by the word that tables use; `2*feed` and `query+2*key` are the fused ones."""
        query, key = self.heads * self.head, self.key_heads * self.head
        fused = {"query": query, "key": key, "query+2*key": query + 2 * key, "2*feed": 2 * self.feed}
        return fused[word] if word in fused else int(getattr(self, word))


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """How a family's file is read."""

    model_type: str
    outer: Names
    """Tensors beside the layers."""
    layer: Names
    """Tensors of a layer, without `blk.N.`."""
    has_paired_rows: bool = False
    epsilon: str = "rms"
    """`rms`, or `layer` for the norm with a bias."""
    splits: tuple[str, ...] = ()
    """Modules of a fused query, key and value tensor, if it is to be taken apart."""


_OUTER: Final[Names] = {
    "token_embd.weight": ("model.embed_tokens", ("vocabulary", "hidden")),
    "output_norm.weight": ("model.norm", ("hidden",)),
    "output.weight": ("lm_head", ("vocabulary", "hidden")),
}
_NORMS: Final[Names] = {
    "attn_norm.weight": ("input_layernorm", ("hidden",)),
    "ffn_norm.weight": ("post_attention_layernorm", ("hidden",)),
}
_LLAMA: Final[Names] = {
    **_NORMS,
    "attn_q.weight": ("self_attn.q_proj", ("query", "hidden")),
    "attn_k.weight": ("self_attn.k_proj", ("key", "hidden")),
    "attn_v.weight": ("self_attn.v_proj", ("key", "hidden")),
    "attn_output.weight": ("self_attn.o_proj", ("hidden", "query")),
    "ffn_gate.weight": ("mlp.gate_proj", ("feed", "hidden")),
    "ffn_up.weight": ("mlp.up_proj", ("feed", "hidden")),
    "ffn_down.weight": ("mlp.down_proj", ("hidden", "feed")),
}
_QWEN2: Final[Names] = {
    **_LLAMA,
    "attn_q.bias": ("self_attn.q_proj", ("query",)),
    "attn_k.bias": ("self_attn.k_proj", ("key",)),
    "attn_v.bias": ("self_attn.v_proj", ("key",)),
}
_QWEN3: Final[Names] = {
    **_LLAMA,
    "attn_q_norm.weight": ("self_attn.q_norm", ("head",)),
    "attn_k_norm.weight": ("self_attn.k_norm", ("head",)),
}
_PHI3: Final[Names] = {
    **_NORMS,
    "attn_qkv.weight": ("self_attn.qkv_proj", ("query+2*key", "hidden")),
    "attn_output.weight": ("self_attn.o_proj", ("hidden", "query")),
    "ffn_up.weight": ("mlp.gate_up_proj", ("2*feed", "hidden")),
    "ffn_down.weight": ("mlp.down_proj", ("hidden", "feed")),
}
_PHI2_OUTER: Final[Names] = {
    "token_embd.weight": ("model.embed_tokens", ("vocabulary", "hidden")),
    "output_norm.weight": ("model.final_layernorm", ("hidden",)),
    "output_norm.bias": ("model.final_layernorm", ("hidden",)),
    "output.weight": ("lm_head", ("vocabulary", "hidden")),
    "output.bias": ("lm_head", ("vocabulary",)),
}
_PHI2: Final[Names] = {
    "attn_norm.weight": ("input_layernorm", ("hidden",)),
    "attn_norm.bias": ("input_layernorm", ("hidden",)),
    "attn_qkv.weight": ("self_attn", ("query+2*key", "hidden")),
    "attn_qkv.bias": ("self_attn", ("query+2*key",)),
    "attn_output.weight": ("self_attn.dense", ("hidden", "query")),
    "attn_output.bias": ("self_attn.dense", ("hidden",)),
    "ffn_up.weight": ("mlp.fc1", ("feed", "hidden")),
    "ffn_up.bias": ("mlp.fc1", ("feed",)),
    "ffn_down.weight": ("mlp.fc2", ("hidden", "feed")),
    "ffn_down.bias": ("mlp.fc2", ("hidden",)),
}

FAMILIES: Final = {
    "llama": Family(model_type="llama", outer=_OUTER, layer=_LLAMA, has_paired_rows=True),
    "qwen2": Family(model_type="qwen2", outer=_OUTER, layer=_QWEN2),
    "qwen3": Family(model_type="qwen3", outer=_OUTER, layer=_QWEN3),
    "phi3": Family(model_type="phi3", outer=_OUTER, layer=_PHI3),
    "phi2": Family(
        model_type="phi", outer=_PHI2_OUTER, layer=_PHI2, epsilon="layer", splits=("q_proj", "k_proj", "v_proj")
    ),
}
"""By `general.architecture`. SmolLM, SmolLM2 and Mistral files say `llama`."""

CURVES: Final = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
"""Tensors that stretch rotary embeddings: they go into the config."""


def family_of(container: Container, model: str) -> Family:
    """The file's family; raises `LoadFailed` for one that cannot be imported."""
    architecture = container.text("general.architecture")
    family = FAMILIES.get(architecture)
    if family is None:
        known = ", ".join(FAMILIES)
        raise refusal(
            f"GGUF files of the family {architecture or '(none named)'} cannot be imported, {known} can", model
        )
    if container.number(f"{architecture}.expert_count"):
        raise refusal("it is a mixture of experts, which cannot be imported from GGUF", model)
    return family


def refusal(problem: str, model: str) -> LoadFailed:
    """What a file that is in order but not for us ends with: it still runs as it is."""
    return LoadFailed(f"{problem}; the file itself runs with llama.cpp: name it as the model", model)


def shape_of(container: Container, stored: Mapping[str, StoredTensor], model: str) -> Shape:
    """The sizes that the header names; raises `LoadFailed` where one is missing or absurd."""
    architecture = container.text("general.architecture")

    def number(key: str, limit: int, usual: int = 0) -> int:
        values = set(container.numbers(f"{architecture}.{key}")) or {usual}
        value = values.pop()
        if values or not 0 < value <= limit:
            raise LoadFailed(f"its header gives no single {key} from 1 to {limit:,}: download it again", model)
        return value

    hidden, heads = number("embedding_length", MAX_WIDTH), number("attention.head_count", MAX_WIDTH)
    head = number("attention.key_length", MAX_WIDTH, usual=hidden // heads)
    if number("attention.value_length", MAX_WIDTH, usual=head) != head:
        raise refusal("its keys and values have heads of different sizes", model)
    embedding = stored.get("token_embd.weight")
    if embedding is None or not 0 < embedding.dimensions[-1] <= MAX_VOCABULARY:
        raise LoadFailed("it has no embedding of tokens: download it again", model)
    shape = Shape(
        architecture=architecture,
        layers=number("block_count", MAX_LAYERS),
        hidden=hidden,
        heads=heads,
        key_heads=number("attention.head_count_kv", MAX_WIDTH, usual=heads),
        head=head,
        feed=number("feed_forward_length", MAX_WIDTH),
        vocabulary=embedding.dimensions[-1],
        context=number("context_length", MAX_CONTEXT),
        rotated=number("rope.dimension_count", MAX_WIDTH, usual=head),
    )
    if shape.rotated % 2 or shape.rotated > head or heads % shape.key_heads:
        raise LoadFailed(f"its {heads} heads of {head} make no attention: download it again", model)
    if architecture in _PHI and heads * head != hidden:
        raise refusal("its heads together are not as wide as the model", model)
    return shape


def targets(family: Family, shape: Shape, stored: Mapping[str, StoredTensor], model: str) -> list[Target]:
    """Every weight of the model; raises `LoadFailed` unless the file holds exactly what the family has."""
    left = {name: tensor for name, tensor in stored.items() if name not in CURVES}
    found: list[Target] = []
    for name, (module, words) in family.outer.items():
        if name in left or name != "output.weight":  # without one, the embedding serves for it
            found += _targets(family, shape, _taken(left, name, shape, words, model), module)
    for layer in range(shape.layers):
        for name, (module, words) in family.layer.items():
            tensor = _taken(left, f"blk.{layer}.{name}", shape, words, model)
            found += _targets(family, shape, tensor, f"model.layers.{layer}.{module}")
    if left:
        raise refusal(f"its tensor {min(left)} is none that the family {shape.architecture} has here", model)
    return found


def _taken(left: dict[str, StoredTensor], name: str, shape: Shape, words: tuple[str, ...], model: str) -> StoredTensor:
    tensor = left.pop(name, None)
    if tensor is None:
        raise LoadFailed(f"its tensor {name} is missing: download it again", model)
    wanted = tuple(shape.size(word) for word in words)
    if tuple(reversed(tensor.dimensions)) != wanted:
        raise LoadFailed(f"its tensor {name} is {tensor.dimensions[::-1]}, its header says {wanted}", model)
    return tensor


def _targets(family: Family, shape: Shape, tensor: StoredTensor, module: str) -> list[Target]:
    ending = tensor.name.rpartition(".")[2]
    rows = tensor.dimensions[-1]
    if family.splits and ".attn_qkv." in tensor.name:
        query, key = shape.size("query"), shape.size("key")
        parts = zip(family.splits, (0, query, query + key), (query, key, key), strict=True)
        return [Target(f"{module}.{part}.{ending}", tensor, first, count) for part, first, count in parts]
    paired = {"q_proj": shape.heads, "k_proj": shape.key_heads} if family.has_paired_rows else {}
    return [Target(f"{module}.{ending}", tensor, 0, rows, paired.get(module.rpartition(".")[2], 0))]


def config_of(
    container: Container, family: Family, shape: Shape, curves: Mapping[str, list[float]], model: str, *, is_tied: bool
) -> Config:
    """The config.json that mlx-lm's model of this family reads; `curves` holds the tensors named in `CURVES`."""
    architecture = shape.architecture
    epsilon_key = f"{architecture}.attention.layer_norm_{'rms_' if family.epsilon == 'rms' else ''}epsilon"
    config: Config = {
        "model_type": family.model_type,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.feed,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "head_dim": shape.head,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "rope_theta": _base(container, shape),
        f"{family.epsilon}_norm_eps": container.decimal(epsilon_key) or 1e-5,
        "tie_word_embeddings": is_tied,
    }
    return config | _rotary(container, shape, curves, model)


def _base(container: Container, shape: Shape) -> float:
    return container.decimal(f"{shape.architecture}.rope.freq_base") or 10_000.0


def _rotary(container: Container, shape: Shape, curves: Mapping[str, list[float]], model: str) -> Config:
    if shape.architecture in _PHI:
        partial: Config = {"partial_rotary_factor": shape.rotated / shape.head}
    elif shape.rotated == shape.head:
        partial = {}
    else:
        raise refusal("its rotary embeddings turn a part of each head", model)
    scaling = _scaling(container, shape, curves, model)
    return partial | scaling


def _scaling(container: Container, shape: Shape, curves: Mapping[str, list[float]], model: str) -> Config:
    prefix = f"{shape.architecture}.rope.scaling."
    kind, factor = container.text(f"{prefix}type"), container.decimal(f"{prefix}factor") or 1.0
    original = container.number(f"{prefix}original_context_length") or shape.context
    if not _are_positive([factor, original, _base(container, shape)]):
        raise LoadFailed("its numbers of rotary embeddings are not positive: download it again", model)
    if any(len(curve) != shape.rotated // 2 or not _are_positive(curve) for curve in curves.values()):
        raise LoadFailed(
            "its factors of rotary embeddings are not one for each pair, above 0: download it again", model
        )
    if "rope_factors_long.weight" in curves:
        _check_attention_factor(container, shape, original, model)
        return _long(curves, original)
    if "rope_freqs.weight" in curves:
        return {"rope_scaling": _llama3(container, shape, curves["rope_freqs.weight"], model)}
    if kind in {"", "none"} or factor == 1.0:
        return {}
    known = {"phi2": set(), "phi3": {"linear"}}.get(shape.architecture, {"linear", "yarn"})
    if kind not in known:
        raise refusal(f"its rotary embeddings are stretched by {kind}", model)
    stretch: Config = {"type": kind, "rope_type": kind, "factor": factor}
    return {"rope_scaling": stretch | ({"original_max_position_embeddings": original} if kind == "yarn" else {})}


def _are_positive(numbers: Sequence[float]) -> bool:
    """Whether all are numbers above 0; NaN and infinity, which no config.json can hold, are not."""
    return all(0 < number < math.inf for number in numbers)


def _long(curves: Mapping[str, list[float]], original: int) -> Config:
    long = curves["rope_factors_long.weight"]
    short = curves.get("rope_factors_short.weight", long)
    scaling = {"type": "longrope", "rope_type": "longrope", "long_factor": long, "short_factor": short}
    return {"original_max_position_embeddings": original, "rope_scaling": scaling}


def _check_attention_factor(container: Container, shape: Shape, original: int, model: str) -> None:
    """mlx-lm's Phi-3 works the factor out from both contexts: sqrt(1 + ln(scale) / ln(original))."""
    found = container.decimal(f"{shape.architecture}.rope.scaling.attn_factor")
    scale = max(shape.context / original, 1.0)
    expected = math.sqrt(1.0 + math.log(scale) / math.log(max(original, 2)))
    if found is not None and not math.isclose(found, expected, rel_tol=_ATTENTION_TOLERANCE):
        raise refusal(f"it scales attention by {found:.3f}, {expected:.3f} is what Phi-3 takes for its context", model)


def _llama3(container: Container, shape: Shape, curve: list[float], model: str) -> Config:
    """The numbers of Llama 3.1's stretching that give this curve; every release so far has these three."""
    base = _base(container, shape)
    scaling: Config = {"factor": max(curve), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    original = container.number(f"{shape.architecture}.rope.scaling.original_context_length") or 8_192
    for pair, found in enumerate(curve):
        wavelength = 2 * math.pi * base ** (2 * pair / shape.rotated)
        smooth = min(max((original / wavelength - 1.0) / 3.0, 0.0), 1.0)
        expected = 1.0 / ((1.0 - smooth) / max(curve) + smooth)
        if not math.isclose(found, expected, rel_tol=_CURVE_TOLERANCE):
            raise refusal("its rotary embeddings are stretched by a curve that is not Llama 3's", model)
    return {"type": "llama3", "rope_type": "llama3", "original_max_position_embeddings": original, **scaling}
