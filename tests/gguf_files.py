"""A tiny GGUF writer for tests: plain Python, in our own words of the format. Knows no model."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

Scalar = str | bool | int | float
Value = Scalar | Sequence[str] | Sequence[int]

TINY_MODEL: dict[str, Value] = {
    "general.architecture": "llama",
    "general.file_type": 3,
    "llama.block_count": 2,
    "llama.context_length": 2048,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a", "b"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
}
"""Metadata of a model of two layers; 2 * 2 heads * (16 + 16) * 2 bytes = 256 bytes of cache a token."""


class Tensor(NamedTuple):
    """A tensor of `kind` (ggml's number) with `num_bytes` of zeros behind it."""

    name: str
    dimensions: tuple[int, ...]
    kind: int
    num_bytes: int


TINY_TENSORS = (Tensor("token_embd.weight", (64, 5), 3, 200), Tensor("output_norm.weight", (64,), 0, 256))


def write_gguf(
    path: Path,
    metadata: Mapping[str, Value] = TINY_MODEL,
    tensors: Sequence[Tensor] = TINY_TENSORS,
    *,
    version: int = 3,
) -> Path:
    """A whole GGUF file at `path`."""
    path.write_bytes(gguf_bytes(metadata, tensors, version=version))
    return path


def write_sparse(path: Path, num_bytes: int) -> None:
    """A GGUF file whose header tells of weights of that size, and which takes no room on the disk."""
    huge = Tensor("token_embd.weight", (num_bytes // 4096 * 1024, 1), 0, 0)
    write_gguf(path, TINY_MODEL, (huge,))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + num_bytes)


def gguf_bytes(
    metadata: Mapping[str, Value] = TINY_MODEL, tensors: Sequence[Tensor] = TINY_TENSORS, *, version: int = 3
) -> bytes:
    """The bytes of a whole GGUF file."""
    header = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    header += [_text(key) + _value(value) for key, value in metadata.items()]
    data = b""
    for tensor in tensors:
        dimensions = struct.pack(f"<{len(tensor.dimensions)}Q", *tensor.dimensions)
        shape = struct.pack("<I", len(tensor.dimensions)) + dimensions
        header.append(_text(tensor.name) + shape + struct.pack("<IQ", tensor.kind, len(data)))
        data += _padded(bytes(tensor.num_bytes))
    return _padded(b"".join(header)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<Ii", 5, value) if value < 0 else struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return _array(value)


def _array(values: Sequence[str] | Sequence[int]) -> bytes:
    texts = [_text(value) for value in values if isinstance(value, str)]
    if texts:
        return struct.pack("<IIQ", 9, 8, len(texts)) + b"".join(texts)
    return struct.pack("<IIQ", 9, 4, len(values)) + struct.pack(f"<{len(values)}I", *values)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 32)
