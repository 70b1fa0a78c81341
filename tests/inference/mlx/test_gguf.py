"""GGUF models under MLX: the same logits as the model they were written from, and refusals in one clear sentence."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_models import write_gguf_model
from pensieve.config.settings import Settings
from pensieve.errors import LoadFailed
from pensieve.inference.mlx.gguf import GgufModel
from pensieve.inference.mlx.loader import LoadedModel, load
from pensieve.inference.mlx.shards import write_shards
from pensieve.inference.mlx.weight_form import Wanted
from pensieve.models.progress import silent
from pensieve.models.spec import ModelSpec
from tiny_models import make_tiny_model

PROMPT = [[5, 6, 7, 30, 31, 40, 41, 9]]
FULL: dict[str, Any] = {"layer_types": None, "sliding_window": None}
"""GGUF's Mistral has no sliding layers."""


def loaded(folder: Path) -> LoadedModel:
    """The model in the folder."""
    return load(ModelSpec(name=folder.name, location=str(folder), format="mlx"), Settings())


def imported(path: Path, wanted: Wanted | None = None) -> LoadedModel:
    """The GGUF model, converted and loaded."""
    folder = path.with_suffix(".mlx")
    folder.mkdir()
    converted = GgufModel(path).converted(wanted or Wanted())
    for name, content in converted.files.items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_bytes(msgspec.json.encode(converted.config))
    write_shards(folder, converted.slots, converted.arrays, silent, shard_bytes=50_000)
    return loaded(folder)


def difference(one: LoadedModel, other: LoadedModel) -> float:
    """The largest one between their logits."""
    logits = [model.model(mx.array(PROMPT)) for model in (one, other)]
    return float(mx.abs(logits[0] - logits[1]).max())


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama's folder."""
    return make_tiny_model(tmp_path_factory.mktemp("llama") / "llama", "llama")


@pytest.fixture
def bytes_of(llama: Path, tmp_path: Path) -> bytearray:
    """The tiny Llama as the bytes of a GGUF file."""
    return bytearray(write_gguf_model(tmp_path / "whole.gguf", llama).read_bytes())


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "phi3", "phi3-128k", "mistral", "smollm"])
def test_a_family_gives_the_logits_it_was_written_with(family: str, tmp_path: Path) -> None:
    """Names, order of rows, rotary curves and tied embeddings are right: not a bit is different."""
    source = make_tiny_model(tmp_path / "source", family, **(FULL if family == "mistral" else {}))
    found = imported(write_gguf_model(tmp_path / "model.gguf", source))
    assert difference(found, loaded(source)) == 0.0
    assert found.context_tokens == loaded(source).context_tokens
    assert loaded(source).eos_ids >= found.eos_ids > set()


@pytest.mark.parametrize(("kind", "bits"), [("Q8_0", 8), ("Q4_0", 4)])
def test_blocks_are_kept_as_they_are(kind: str, bits: int, llama: Path, tmp_path: Path) -> None:
    """In the same bits; turned to floats instead, the same numbers come out."""
    path = write_gguf_model(tmp_path / "kept.gguf", llama, kind=kind)
    kept = imported(path, Wanted(dtype=mx.float32))
    assert kept.config["quantization"] == {"bits": bits, "group_size": 32, "mode": "affine"}
    floats = imported(path.rename(tmp_path / "floats.gguf"), Wanted(bits=0, dtype=mx.float32))
    assert "quantization" not in floats.config
    assert difference(kept, floats) < 1e-4


def test_a_type_that_mlx_cannot_hold_is_stored_in_eight_bits(tmp_path: Path) -> None:
    """Q6_K has groups of 16; zeros stay zeros."""
    source = make_tiny_model(tmp_path / "s", "llama", intermediate_size=256)
    zeros = {"blk.0.ffn_down.weight": ((64, 256), 14, bytes(64 * 210))}
    model = GgufModel(write_gguf_model(tmp_path / "m.gguf", source, tensors=zeros))
    assert not model.is_kept_whole
    converted = model.converted(Wanted())
    assert converted.config["quantization"] == {"bits": 8, "group_size": 32, "mode": "affine"}
    assert [slot.name for slot in converted.slots if "scales" in slot.name] == ["model.layers.0.mlp.down_proj.scales"]


@pytest.mark.parametrize("group_size", [32, 64])
def test_floats_are_quantized_as_asked(group_size: int, llama: Path, tmp_path: Path) -> None:
    """A width of 96 takes the largest group that divides it; what is written is what was planned."""
    model = GgufModel(write_gguf_model(tmp_path / "m.gguf", llama, kind="F16"))
    converted = model.converted(Wanted(8, group_size, mx.bfloat16))
    arrays = list(converted.arrays)
    assert [(array.shape, array.dtype) for array in arrays] == [(slot.shape, slot.dtype) for slot in converted.slots]
    quantization = converted.config["quantization"]
    assert quantization["group_size"] == group_size
    assert ("model.layers.0.mlp.down_proj" in quantization) == (group_size == 64)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"general__architecture": "gemma3"}, "family gemma3 cannot be imported"),
        ({"llama__expert_count": 8}, "mixture of experts"),
        ({"llama__attention__head_count": 0}, "no single attention.head_count"),
        ({"llama__block_count": 2**31}, "no single block_count from 1 to"),
        ({"llama__attention__head_count_kv": [2, 1]}, "no single attention.head_count_kv"),
        ({"llama__block_count": 3}, "tensor blk.2.attn_norm.weight is missing"),
        ({"llama__feed_forward_length": 95}, r"ffn_gate.weight is \(96, 64\), its header says \(95, 64\)"),
        ({"llama__rope__dimension_count": 8}, "factors of rotary embeddings are not one for each pair|turn a part"),
        ({"llama__rope__freq_base": 7.0}, "curve that is not Llama 3's"),
    ],
)
def test_a_header_that_makes_no_model_is_refused(
    metadata: dict[str, Any], words: str, llama: Path, tmp_path: Path
) -> None:
    """Each with what is wrong, and no array read."""
    path = write_gguf_model(tmp_path / "m.gguf", llama, **metadata)
    with pytest.raises(LoadFailed, match=words):
        GgufModel(path)


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("blk.0.attn_q.weight", ((64, 256), 16, bytes(66 * 64)), "is IQ2_XXS, which cannot be imported; Q4_0, Q4_1"),
        ("blk.0.attn_q.weight", ((64, 64), 77, bytes(64)), "is type 77"),
        ("blk.0.attn_q.weight", ((32, 128), 0, bytes(4 * 64 * 64)), r"its header says \(64, 64\)"),
        ("output_norm.weight", ((64,), 8, bytes(68)), "no whole blocks"),
        ("blk.0.attn_q.bias", ((64,), 0, bytes(256)), "attn_q.bias is none that the family llama has"),
        ("token_embd.weight", ((64,), 0, bytes(256)), "shape|its header says|none"),
        ("rope_factors_long.weight", ((8,), 0, struct.pack("<8f", 1, float("nan"), *[1] * 6)), "not one for each pair"),
        ("rope_factors_long.weight", ((8,), 0, struct.pack("<8f", float("inf"), *[1] * 7)), "not one for each pair"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(
    name: str, tensor: tuple[tuple[int, ...], int, bytes], words: str, llama: Path, tmp_path: Path
) -> None:
    """By its name."""
    path = write_gguf_model(tmp_path / "m.gguf", llama, tensors={name: tensor})
    with pytest.raises(LoadFailed, match=words):
        GgufModel(path)


@given(place=st.integers(0, 3_000), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_gives_a_model_or_one_kind_of_error(
    bytes_of: bytearray, tmp_path: Path, place: int, value: int
) -> None:
    """Whatever byte of it is another."""
    damaged = bytearray(bytes_of)
    damaged[place] = value
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged)
    try:
        for _ in GgufModel(path).converted(Wanted()).arrays:
            pass
    except LoadFailed:
        pass


def test_a_file_that_is_cut_while_it_is_read_is_one_error(llama: Path, tmp_path: Path) -> None:
    """The header was right; what it promises is gone."""
    path = write_gguf_model(tmp_path / "m.gguf", llama)
    converted = GgufModel(path).converted(Wanted())
    path.write_bytes(path.read_bytes()[:-40_000])
    with pytest.raises(LoadFailed, match="became shorter"):
        list(converted.arrays)
