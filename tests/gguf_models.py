"""Whole tiny GGUF models, made from the folders of `tiny_models`: real names, real order of rows, real data.

Written from the format's rules, apart from what reads it, so that a mistake of the reader is no mistake here.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from gguf_files import Value, _padded, _text, _value

Floats = npt.NDArray[np.float32]

OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def f32(data: Floats) -> bytes:
    """As it is."""
    return data.astype("<f4").tobytes()


def f16(data: Floats) -> bytes:
    """Half the bits."""
    return data.astype("<f2").tobytes()


def q8_0(data: Floats) -> bytes:
    """Groups of 32: a half float, then signed bytes."""
    groups = data.reshape(-1, 32)
    scales = (np.abs(groups).max(axis=1, keepdims=True) / 127).astype("<f2")
    codes = np.rint(groups / np.maximum(scales.astype("f4"), 1e-9)).clip(-127, 127).astype("i1")
    return np.concatenate([scales.view("u1"), codes.view("u1")], axis=1).tobytes()


def q4_0(data: Floats) -> bytes:
    """Groups of 32: a half float, then nibbles around 8, the second half of the group in the high ones."""
    groups = data.reshape(-1, 32)
    scales = (np.abs(groups).max(axis=1, keepdims=True) / 7).astype("<f2")
    codes = (np.rint(groups / np.maximum(scales.astype("f4"), 1e-9)) + 8).clip(0, 15).astype("u1")
    return np.concatenate([scales.view("u1"), codes[:, :16] | codes[:, 16:] << 4], axis=1).tobytes()


KINDS: dict[str, tuple[int, Callable[[Floats], bytes]]] = {
    "F32": (0, f32),
    "F16": (1, f16),
    "Q4_0": (2, q4_0),
    "Q8_0": (8, q8_0),
}
"""ggml's number of a type, and its writer."""

UNUSED = 5
"""llama.cpp's number for a token that stands for nothing."""


def write_gguf_model(
    path: Path,
    folder: Path,
    *,
    kind: str = "F32",
    tensors: Mapping[str, tuple[tuple[int, ...], int, bytes]] | None = None,
    marks: Mapping[str, int] | None = None,
    **overrides: Value | list[float] | None,
) -> Path:
    """The model in `folder` as a GGUF file whose matrices are of `kind`.

    `tensors` adds or replaces some by name (shape with rows first, ggml's type number, data); `marks` are texts for
    unused rows of the vocabulary, with llama.cpp's number for their kind (3: control, 4: user-defined); `overrides` are
    metadata with `__` for the dots, None removes.
    """
    config = json.loads((folder / "config.json").read_text())
    found = _tensors(folder, config, kind) | dict(tensors or {})
    metadata = _metadata(config) | _marked(_tokenizer(folder, config), marks or {})
    metadata |= {key.replace("__", "."): value for key, value in overrides.items()}
    kept = {key: value for key, value in metadata.items() if value is not None}
    path.write_bytes(_file(kept, found))
    return path


def _file(metadata: Mapping[str, Any], tensors: Mapping[str, tuple[tuple[int, ...], int, bytes]]) -> bytes:
    header = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    header += [_text(key) + _any(value) for key, value in metadata.items()]
    data = b""
    for name, (shape, kind, content) in tensors.items():
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        header.append(_text(name) + dimensions + struct.pack("<IQ", kind, len(data)))
        data += _padded(content)
    return _padded(b"".join(header)) + data


def _any(value: Any) -> bytes:
    if isinstance(value, list) and value and isinstance(value[0], float):
        return struct.pack("<IIQ", 9, 6, len(value)) + struct.pack(f"<{len(value)}f", *value)
    if isinstance(value, list) and value and isinstance(value[0], int):
        return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)
    return _value(value)


def _tensors(folder: Path, config: dict[str, Any], kind: str) -> dict[str, tuple[tuple[int, ...], int, bytes]]:
    found: dict[str, tuple[tuple[int, ...], int, bytes]] = {}
    for name, data in load_file(folder / "model.safetensors").items():
        module, _, ending = name.rpartition(".")
        written = _in_pairs(config, module, data.astype(np.float32))
        number, write = KINDS[kind if data.ndim > 1 else "F32"]
        found[f"{_gguf_name(module)}.{ending}"] = (data.shape, number, write(written))
    for curve, factors in _curves(config).items():
        found[curve] = (factors.shape, 0, f32(factors))
    return found


def _curves(config: dict[str, Any]) -> dict[str, Floats]:
    """By how much each rotary pair is slowed down."""
    scaling = config.get("rope_scaling") or {}
    if "long_factor" in scaling:
        return {f"rope_factors_{long}.weight": np.array(scaling[f"{long}_factor"], "f4") for long in ("long", "short")}
    if scaling.get("rope_type") != "llama3":
        return {}
    head = config["hidden_size"] // config["num_attention_heads"]
    turns = scaling["original_max_position_embeddings"] / (
        2 * np.pi * config["rope_theta"] ** (np.arange(0, head, 2) / head)
    )
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    part = ((turns - low) / (high - low)).clip(0, 1)
    return {"rope_freqs.weight": (1 / ((1 - part) / scaling["factor"] + part)).astype("f4")}


def _gguf_name(module: str) -> str:
    if module in OUTER:
        return OUTER[module]
    _, _, layer, inner = module.split(".", 3)
    return f"blk.{layer}.{LAYER[inner]}"


def _in_pairs(config: dict[str, Any], module: str, data: Floats) -> Floats:
    """Llama's query and key rows, with the two of a rotary pair beside each other."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    projection = module.rpartition(".")[2]
    if config["model_type"] not in {"llama", "mistral"} or projection not in heads:
        return data
    apart = data.reshape(heads[projection], 2, -1, data.shape[-1])
    return np.ascontiguousarray(apart.swapaxes(1, 2).reshape(data.shape))


def _metadata(config: dict[str, Any]) -> dict[str, Any]:
    family = "llama" if config["model_type"] == "mistral" else config["model_type"]
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    own = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.dimension_count": head,
        "rope.freq_base": float(config["rope_theta"]),
        "rope.scaling.original_context_length": (config.get("rope_scaling") or {}).get(
            "original_max_position_embeddings", config.get("original_max_position_embeddings")
        ),
    }
    if "rope_factors_long.weight" in _curves(config):
        original = config["original_max_position_embeddings"]
        stretch = math.log(config["max_position_embeddings"] / original) / math.log(original)
        own["rope.scaling.attn_factor"] = math.sqrt(1.0 + stretch)
    return {"general.architecture": family} | {f"{family}.{key}": value for key, value in own.items()}


def _marked(tokenizer: dict[str, Any], marks: Mapping[str, int]) -> dict[str, Any]:
    tokens, kinds = list(tokenizer["tokenizer.ggml.tokens"]), list(tokenizer["tokenizer.ggml.token_type"])
    unused = [token for token, kind in enumerate(kinds) if kind == UNUSED]
    for token, (text, kind) in zip(unused[: len(marks)], marks.items(), strict=True):
        tokens[token], kinds[token] = text, kind
    return tokenizer | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds}


def _tokenizer(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    file = json.loads((folder / "tokenizer.json").read_text())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    ids: dict[str, int] = file["model"]["vocab"] | {each["content"]: each["id"] for each in file["added_tokens"]}
    size = config["vocab_size"]
    tokens = {token: text for text, token in ids.items()}
    specials = {each["id"] for each in file["added_tokens"]}
    kinds = [3 if token in specials else 1 if token in tokens else 5 for token in range(size)]
    merges = [tuple(merge) for merge in file["model"]["merges"]]
    common: dict[str, Any] = {
        "tokenizer.ggml.tokens": [tokens.get(token, f"[PAD{token}]") for token in range(size)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": ids.get(settings["bos_token"]),
        "tokenizer.ggml.eos_token_id": ids[settings["eos_token"]],
        "tokenizer.ggml.add_bos_token": settings["add_bos_token"],
        "tokenizer.chat_template": settings.get("chat_template"),
    }
    if not file["model"]["byte_fallback"]:
        joined = [" ".join(merge) for merge in merges]
        return common | {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.merges": joined,
        }
    ranks = {"".join(merge): rank for rank, merge in enumerate(merges)}
    common["tokenizer.ggml.token_type"] = [
        2 if tokens.get(token) == "<unk>" else 6 if tokens.get(token, "").startswith("<0x") else kind
        for token, kind in enumerate(kinds)
    ]
    scores = [-float(ranks.get(tokens.get(token, ""), 1000)) for token in range(size)]
    has_prefix = any(step["type"] == "Prepend" for step in file["normalizer"].get("normalizers", [file["normalizer"]]))
    return common | {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.add_space_prefix": has_prefix,
    }
