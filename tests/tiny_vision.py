"""A tiny projector with random weights, in the GGUF form that llama.cpp loads beside a text model: a vision
transformer of LLaVA's shape, two layers deep, that turns every picture into four embeddings of the text model.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gguf_models import Floats, _file, f16, f32

SIDE_PIXELS = 28
PATCH_PIXELS = 14
NUM_IMAGE_TOKENS = (SIDE_PIXELS // PATCH_PIXELS) ** 2
WIDTH = 64
HIDDEN = 128
NUM_LAYERS = 2


def write_tiny_projector(path: Path, *, text_width: int, seed: int = 0) -> Path:
    """The projector for a text model whose embeddings have `text_width` numbers."""
    draw = np.random.default_rng(seed)
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]] = {}

    def add(name: str, *shape: int, scale: float = 0.0, middle: float = 0.0) -> None:
        data = (draw.standard_normal(shape) * (scale or shape[-1] ** -0.5) + middle).astype("f4")
        tensors[name] = _tensor(data)

    add("v.class_embd", WIDTH, scale=0.1)
    add("v.patch_embd.weight", WIDTH, 3, PATCH_PIXELS, PATCH_PIXELS, scale=0.1)
    add("v.position_embd.weight", NUM_IMAGE_TOKENS + 1, WIDTH)
    for norm in ("v.pre_ln", "v.blk.0.ln1", "v.blk.0.ln2", "v.blk.1.ln1", "v.blk.1.ln2"):
        add(f"{norm}.weight", WIDTH, scale=0.1, middle=1.0)
        add(f"{norm}.bias", WIDTH, scale=0.1)
    for layer in range(NUM_LAYERS):
        for part, rows, columns in (
            *((name, WIDTH, WIDTH) for name in ("attn_q", "attn_k", "attn_v", "attn_out")),
            ("ffn_down", WIDTH, HIDDEN),
            ("ffn_up", HIDDEN, WIDTH),
        ):
            add(f"v.blk.{layer}.{part}.weight", rows, columns)
            add(f"v.blk.{layer}.{part}.bias", rows, scale=0.1)
    for index, columns in ((0, WIDTH), (2, text_width)):
        add(f"mm.{index}.weight", text_width, columns, scale=columns**-0.5)
        add(f"mm.{index}.bias", text_width, scale=0.1)
    path.write_bytes(_file(_metadata(text_width), tensors))
    return path


def _tensor(data: Floats) -> tuple[tuple[int, ...], int, bytes]:
    return (data.shape, 1, f16(data)) if data.ndim == 4 else (data.shape, 0, f32(data))


def _metadata(text_width: int) -> dict[str, Any]:
    return {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": SIDE_PIXELS,
        "clip.vision.patch_size": PATCH_PIXELS,
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": HIDDEN,
        "clip.vision.projection_dim": text_width,
        "clip.vision.block_count": NUM_LAYERS,
        "clip.vision.attention.head_count": 2,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }


def picture(colour: str, *, kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture of one colour, with a dot in it."""
    image = Image.new("RGB", size, colour)
    image.putpixel((3, 5), (10, 200, 30))
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()
