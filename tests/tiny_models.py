"""Tiny model folders with random weights in the real shape of each family, written as Hugging Face has them.

Knows no part of Pensieve. The words of special tokens are the families' own; their texts and templates are ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.quantized import quantize
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import _get_classes
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tiny_families import SHAPES, Family

GROUP_SIZE = 32
"""Of quantized weights."""

QUIET_SCALE = 0.02
"""Special tokens are scored this low, so that a greedy answer runs to its length."""

FAMILIES: tuple[str, ...] = tuple(SHAPES)
"""Names `make_tiny_model` takes. mamba2 is recurrent, qwen3_next partly, deepseek_v3 has latent attention."""


def make_tiny_model(
    folder: Path,
    family: str,
    *,
    seed: int = 0,
    num_layers: int = 2,
    bits: int | None = None,
    mode: str = "affine",
    layer_bits: Mapping[str, int] | None = None,
    dtype: str = "float32",
    chat_template: str | None = None,
    **overrides: Any,
) -> Path:
    """Write the model into `folder` and return it.

    `bits` quantizes in mlx's `mode`, single layers (`lm_head`) as `layer_bits` says; `overrides` are config keys.
    Greedy answers vary with their prompt and meet no special token.
    """
    known = SHAPES[family]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(known)
    eos_ids = _ids(tokenizer, known.eos)
    config = known.config | {
        known.layers_key: num_layers,
        "vocab_size": -(-tokenizer.get_vocab_size() // 16) * 16,
        "torch_dtype": dtype,
        "eos_token_id": eos_ids[0],
    }
    if isinstance(types := config.get("layer_types"), list):
        config["layer_types"] = [types[index % len(types)] for index in range(num_layers)]
    config |= overrides
    model = _model(config, seed, _ids(tokenizer, known.specials))
    if config.get("tie_word_embeddings"):
        model.pop("lm_head", None)
    model.set_dtype(getattr(mx, dtype))
    if bits is not None:
        config["quantization"] = config["quantization_config"] = _quantized(model, bits, mode, layer_bits or {})
    _write_weights(folder, model)
    _write_json(folder / "config.json", config)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(known, chat_template))
    _write_json(folder / "generation_config.json", {"eos_token_id": eos_ids if len(eos_ids) > 1 else eos_ids[0]})
    return folder


def _ids(tokenizer: Tokenizer, tokens: Sequence[str]) -> list[int]:
    found = (tokenizer.token_to_id(token) for token in tokens)
    return [token for token in found if token is not None]


def _tokenizer_config(family: Family, chat_template: str | None) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": family.bos or None,
        "eos_token": family.eos[0],
        "add_bos_token": family.adds_bos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,
    }
    return config if chat_template is None else config | {"chat_template": chat_template}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def _model(config: dict[str, Any], seed: int, special_ids: list[int]) -> Any:
    plain = json.loads(json.dumps(config), object_hook=_untagged)
    model_class, arguments_class = _get_classes(plain)
    model = model_class(arguments_class.from_dict(plain))
    quiet = mx.ones((config["vocab_size"], 1))
    quiet[mx.array(special_ids)] = QUIET_SCALE
    parameters: list[tuple[str, mx.array]] = sorted(dict(tree_flatten(model.parameters())).items())
    keys = mx.random.split(mx.random.key(seed), len(parameters))
    drawn = [(name, _drawn(name, old, key, quiet)) for (name, old), key in zip(parameters, keys, strict=True)]
    model.update(tree_unflatten(drawn))
    return model


def _untagged(value: dict[str, Any]) -> Any:
    return float("inf") if value == {"__float__": "Infinity"} else value


def _drawn(name: str, old: mx.array, key: mx.array, quiet: mx.array) -> mx.array:
    """Random numbers that keep a residual stream alive: small embeddings, strong layers, norms near what they were."""
    noise = mx.random.normal(old.shape, key=key)
    width = float(old.shape[-1]) ** 0.5
    if name.endswith("A_log"):  # the layer's own start is random
        return mx.log(1.0 + mx.abs(4.0 * noise))
    if old.ndim < 2 or "conv1d" in name or name.endswith("bias"):
        return old + 0.1 * noise
    if name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight", "embeddings.weight")):
        return 0.1 * noise * quiet
    if name.endswith(("lm_head.weight", "embed_out.weight")) and len(old) == len(quiet):
        return mx.divide(noise * quiet, width)
    return mx.divide(2.0 * noise, width)


def _quantized(model: Any, bits: int, mode: str, layer_bits: Mapping[str, int]) -> dict[str, Any]:
    """Quantize every layer whose width allows it; the `quantization` key of config.json."""
    settings: dict[str, Any] = {"group_size": GROUP_SIZE, "bits": bits} | ({} if mode == "affine" else {"mode": mode})
    own = {layer: {"group_size": GROUP_SIZE, "bits": number} for layer, number in layer_bits.items()}

    def choose(path: str, module: Any) -> bool | dict[str, int]:
        is_fitting = hasattr(module, "to_quantized") and module.weight.shape[-1] % GROUP_SIZE == 0
        return own.get(path, True) if is_fitting else False

    quantize(model, group_size=GROUP_SIZE, bits=bits, mode=mode, class_predicate=choose)
    return settings | own


def _write_weights(folder: Path, model: Any) -> None:
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


def _tokenizer(family: Family) -> Tokenizer:
    build: Callable[[Family], Tokenizer] = _sentencepiece if family.is_sentencepiece else _byte_level
    tokenizer = build(family)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.specials])
    if family.adds_bos:
        bos = (family.bos, tokenizer.token_to_id(family.bos))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos[0]} $A", pair=f"{bos[0]} $A $B", special_tokens=[bos]
        )
    return tokenizer


def _byte_level(_: Family) -> Tokenizer:
    """One token for each byte, and a few merged ones, as GPT-2's family has them."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "n"), ("i", "n"), ("Ġ", "a")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(family: Family) -> Tokenizer:
    """Letters of ASCII with `▁` for a space, and byte tokens for the rest, as the Llama 2 family has them."""
    vocabulary = {token: index for index, token in enumerate(family.specials)}
    letters = [chr(code) for code in range(0x21, 0x7F)]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("a", "n"), ("▁", "a")]
    for token in (*(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters, *map("".join, merges)):
        vocabulary[token] = len(vocabulary)
    unknown = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, **unknown))
    spaces = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if family.prepends_space:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
        tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    else:
        tokenizer.normalizer = spaces
        tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer
