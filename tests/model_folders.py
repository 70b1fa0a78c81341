"""Model folders for tests: safetensors files and their JSON, written byte by byte. Knows no engine and no test."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BITS = {"F32": 32, "F16": 16, "BF16": 16, "U32": 32, "U8": 8, "BOOL": 8}
TINY_CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "quantization": {"group_size": 64, "bits": 4},
}
TINY_TENSORS = {
    "model.norm.weight": ("F16", (64,)),
    "lm_head.weight": ("U32", (10, 8)),
    "lm_head.scales": ("F16", (10, 1)),
    "lm_head.biases": ("F16", (10, 1)),
}
"""64 + 640 parameters in 128 + 320 + 20 + 20 bytes."""
TINY_TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }}"

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


def safetensors_bytes(tensors: Tensors = TINY_TENSORS) -> bytes:
    """A whole file with zeros for data."""
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


def folder_files(config: Mapping[str, Any] = TINY_CONFIG, tensors: Tensors = TINY_TENSORS) -> dict[str, bytes]:
    """The files of a tiny whole model, by name."""
    return {
        "config.json": json.dumps(dict(config)).encode(),
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": json.dumps({"chat_template": TINY_TEMPLATE}).encode(),
        "model.safetensors": safetensors_bytes(tensors),
    }


def write_folder(folder: Path, config: Mapping[str, Any] = TINY_CONFIG, tensors: Tensors = TINY_TENSORS) -> Path:
    """Put a tiny whole model into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in folder_files(config, tensors).items():
        (folder / name).write_bytes(content)
    return folder
