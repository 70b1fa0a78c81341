"""Models in real shapes whose weights are random numbers: as fast as the real ones, and worthless as answers.

A folder that every MLX program loads. Its tokenizer takes one token for each letter, so that a prompt has exactly as
many tokens as letters. Its end token and those of single bytes are never the likeliest: each answer runs to its
limit, and each of its tokens is a word of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import string
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.quantized import quantize
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LABEL = "random weights"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The prompt is the text itself: every server makes the same tokens of it."""
END = "<|end|>"
NUM_BYTES = 256
"""The first tokens are those of single bytes."""
GROUP_SIZE = 64
MXFP4_GROUP_SIZE = 32
AFFINE_SPREAD = 4.6
"""Standard deviation of sixteen equally likely steps."""
MXFP4_SPREAD = 2.9

PHI_3_MINI = {
    "model_type": "phi3",
    "architectures": ["Phi3ForCausalLM"],
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-5,
    "vocab_size": 32064,
    "rope_theta": 10000.0,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
GPT_OSS_20B = {
    "model_type": "gpt_oss",
    "architectures": ["GptOssForCausalLM"],
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 24,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "rms_norm_eps": 1e-5,
    "vocab_size": 201088,
    "rope_theta": 150000,
    "max_position_embeddings": 131072,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "tie_word_embeddings": False,
}
TINY_PHI = PHI_3_MINI | {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
TINY_GPT_OSS = GPT_OSS_20B | {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 512,
    "layer_types": ["sliding_attention", "full_attention"],
}
SHAPES: dict[str, dict[str, Any]] = {
    "phi-3-mini": PHI_3_MINI,
    "gpt-oss-20b": GPT_OSS_20B,
    "tiny-phi-3": TINY_PHI,
    "tiny-gpt-oss": TINY_GPT_OSS,
}


def make_model(folder: Path, shape: str) -> Path:
    """Write the model of that shape into `folder`, unless it is there, and return the folder."""
    if (folder / "config.json").exists():
        return folder
    config = SHAPES[shape]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(config["vocab_size"])
    tokenizer.save(str(folder / "tokenizer.json"))
    end_id = tokenizer.get_vocab_size() - 1
    quantization = _write_weights(folder, config, mx.array([*range(NUM_BYTES), end_id]))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "bos_token": None, "pad_token": END}
    _write_json(folder / "tokenizer_config.json", names | {"chat_template": TEMPLATE, "add_bos_token": False})
    _write_json(folder / "generation_config.json", {"eos_token_id": end_id})
    added = {"eos_token_id": end_id, "torch_dtype": "bfloat16"}
    _write_json(
        folder / "config.json", config | added | dict.fromkeys(("quantization", "quantization_config"), quantization)
    )
    return folder


def prompt(num_tokens: int, seed: int | str) -> str:
    """A text of that many letters and spaces, which are as many tokens; another one for each seed."""
    source = random.Random(seed)
    letters = source.choices(string.ascii_lowercase, k=num_tokens)
    letters[5::6] = " " * len(letters[5::6])
    letters[-1] = "."
    return "".join(letters)


def make_tokenizer(vocabulary_size: int) -> Tokenizer:
    """One token for each byte; all further ones are words that no text is split into, so that any id has a text."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    words = ("Ġ" + "".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=4))
    for word in itertools.islice(words, vocabulary_size - 1 - len(vocabulary)):
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return tokenizer


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2))


def _write_weights(folder: Path, config: dict[str, Any], silent: mx.array) -> dict[str, Any]:
    """Save the weights in a file for each layer; gives the quantization that config.json names."""
    model_class, arguments_class = _get_classes(config)
    model = model_class(arguments_class.from_dict(config))
    is_mixture = "num_local_experts" in config
    if is_mixture:
        quantize(
            model, mode="mxfp4", class_predicate=lambda path, _: path.endswith(("gate_proj", "up_proj", "down_proj"))
        )
    else:
        quantize(model, group_size=GROUP_SIZE, bits=4)
    arrays: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    del model
    index: dict[str, str] = {}
    for number, (part, names) in enumerate(itertools.groupby(sorted(arrays), key=_part)):
        file = f"model-{number:05}.safetensors"
        drawn = {name: _drawn(name, arrays, silent) for name in names}
        mx.save_safetensors(str(folder / file), drawn, metadata={"format": "mlx"})
        index |= dict.fromkeys(drawn, file)
        del drawn, part
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    if is_mixture:
        return {"group_size": MXFP4_GROUP_SIZE, "bits": 4, "mode": "mxfp4"}
    return {"group_size": GROUP_SIZE, "bits": 4}


def _part(name: str) -> str:
    """The layer a weight belongs to, or its own first words."""
    return ".".join(name.split(".")[:3])


def _drawn(name: str, arrays: dict[str, mx.array], silent: mx.array) -> mx.array:
    """Random numbers in the shape of that array, such that each layer hands on numbers of about the size it got."""
    old = arrays[name]
    weight: mx.array
    path, _, kind = name.rpartition(".")
    if old.dtype == mx.uint32:
        rows = (*old.shape[:-1], old.shape[-1] * 2)  # two halves: the full range in one overflows
        return mx.random.randint(0, 2**16, rows).astype(mx.uint16).view(mx.uint32)
    if kind in ("scales", "biases"):
        is_embedding = path.endswith("embed_tokens")  # its rows are taken as they are, not summed up
        num_inputs = 1 if is_embedding else arrays[f"{path}.weight"].shape[-1] * 8
        return _scales(old, num_inputs, is_bias=kind == "biases", silent=silent if path == "lm_head" else None)
    if old.ndim == 1:
        return mx.ones(old.shape, mx.bfloat16) if "norm" in name else mx.zeros(old.shape, mx.bfloat16)
    weight = mx.random.normal(old.shape, dtype=mx.bfloat16) * old.shape[-1] ** -0.5
    if path == "lm_head":
        weight[silent] = 0.0
    return weight


def _scales(old: mx.array, num_inputs: int, *, is_bias: bool, silent: mx.array | None) -> mx.array:
    if old.dtype == mx.uint8:  # mxfp4: a power of two
        return mx.full(old.shape, 127 - _halvings(MXFP4_SPREAD * num_inputs**0.5), mx.uint8)
    step = 2.0 ** -_halvings(AFFINE_SPREAD * num_inputs**0.5)  # exact in bfloat16, as is the middle: no drift
    filled = mx.full(old.shape, -7.5 * step if is_bias else step, mx.bfloat16)
    if silent is not None:
        filled[silent] = 0.0  # a logit of 0 is below the likeliest one's
    return filled


def _halvings(factor: float) -> int:
    return max(0, round(factor).bit_length() - 1)


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(make_model(arguments.folder, arguments.shape))


if __name__ == "__main__":
    main()
