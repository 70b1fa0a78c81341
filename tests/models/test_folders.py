"""What a folder of safetensors says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model_folders import TINY_CONFIG, TINY_TENSORS, Tensors, safetensors_bytes, write_folder
from pensieve.errors import LoadFailed
from pensieve.models.folders import missing_shards, read_folder, read_json


def test_the_facts_of_a_folder(tmp_path: Path) -> None:
    """Architecture, context, quantization, sizes and capabilities come out as they were written."""
    header = read_folder(write_folder(tmp_path / "tiny"))
    assert (header.architecture, header.context_tokens, header.quantization) == ("llama", 2048, "int4 g64")
    assert (header.parameters, header.weight_bytes) == (704, 488)
    assert (header.cache.bytes_per_token, header.cache.window_bytes) == (256, 0)
    assert header.capabilities == ("tools",)


def test_a_spec_names_the_folder(tmp_path: Path) -> None:
    """An engine is given the folder, and is told which engine that is."""
    spec = read_folder(write_folder(tmp_path / "tiny")).spec("tiny", origin="convert")
    assert (spec.format, spec.location, spec.origin) == ("mlx", str(tmp_path / "tiny"), "convert")
    assert (spec.cache_bytes_per_token, spec.weight_bytes, spec.created_seconds > 0) == (256, 488, True)


@pytest.mark.parametrize(
    ("config", "tensors", "name"),
    [
        ({"quantization": {"group_size": 32, "bits": 8}}, TINY_TENSORS, "int8 g32"),
        ({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}, TINY_TENSORS, "mxfp4"),
        ({"quantization": {"mode": "mxfp4", "bits": 4, "a.b": {"bits": 8, "c": 1}}}, TINY_TENSORS, "mxfp4+int8"),
        ({"quantization": {"bits": 4, "a": {"bits": 4}, "b": {"bits": 8}, "c": False}}, TINY_TENSORS, "int4+int8"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, TINY_TENSORS, "mxfp4"),
        ({}, {"a": ("BF16", (8, 8)), "b": ("F32", (8,))}, "bf16"),
        ({}, {"a": ("F16", (8, 8))}, "fp16"),
        ({"quantization": {"bits": 4, "a": {"bits": 4, "group_size": 32}}}, TINY_TENSORS, "int4"),
        ({"quantization": {"bits": "4"}}, TINY_TENSORS, ""),
        ({"quantization": {"bits": "4", "a": {"bits": 8}}}, TINY_TENSORS, "int8"),
        ({"quantization_config": {"quant_method": "\x1b[2JGPTQ\n"}}, TINY_TENSORS, "2jgptq"),
    ],
)
def test_how_weights_are_stored_has_a_name(
    tmp_path: Path, config: dict[str, object], tensors: Tensors, name: str
) -> None:
    """Quantized by MLX or by others, or the type that holds the most bytes."""
    assert read_folder(write_folder(tmp_path, {"model_type": "llama"} | config, tensors)).quantization == name


def test_packed_numbers_are_counted_unpacked(tmp_path: Path) -> None:
    """Blocks hold two numbers a byte, layers may differ in their group size, masks are no parameters."""
    tensors: Tensors = {
        "experts.w_blocks": ("U8", (2, 16)),
        "experts.w_scales": ("U8", (2,)),
        "head.weight": ("U32", (10, 8)),
        "head.scales": ("F16", (10, 2)),
        "attn.bias": ("BOOL", (8, 8)),
    }
    config = dict(TINY_CONFIG) | {"quantization": {"group_size": 64, "bits": 4, "head": {"group_size": 32, "bits": 4}}}
    assert read_folder(write_folder(tmp_path, config, tensors)).parameters == 64 + 640


@pytest.mark.parametrize(
    ("name", "content", "capabilities"),
    [
        ("chat_template.jinja", "<think>", ("thinking",)),
        ("chat_template.json", json.dumps({"chat_template": "{{ tools }}<|channel|>analysis"}), ("thinking", "tools")),
        ("tokenizer_config.json", json.dumps({"chat_template": [{"name": "default", "template": "<think>"}]}), None),
        ("tokenizer_config.json", json.dumps({"chat_template": [1, {"name": 2}]}), ()),
        ("tokenizer_config.json", "{}", ()),
    ],
)
def test_the_template_is_found_in_each_of_its_places(
    tmp_path: Path, name: str, content: str, capabilities: tuple[str, ...] | None
) -> None:
    """A file of its own wins over the tokenizer's settings; of several templates the default one counts."""
    write_folder(tmp_path)
    (tmp_path / name).write_text(content)
    assert read_folder(tmp_path).capabilities == (("thinking",) if capabilities is None else capabilities)


def test_a_model_in_shards_weighs_all_of_them(tmp_path: Path) -> None:
    """The index and the numbers in the names are kept to; a first part numbered 0 is fine."""
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    names = [f"model-{part:05}-of-00002.safetensors" for part in (0, 1, 2)]
    for name in names:
        (tmp_path / name).write_bytes(safetensors_bytes({name: ("F32", (10,))}))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: n for n in names}}))
    assert read_folder(tmp_path).weight_bytes == 120
    (tmp_path / names[0]).unlink()
    with pytest.raises(LoadFailed, match="1 of its files of weights are missing, first model-00000-of-00002"):
        read_folder(tmp_path)


def test_a_whole_file_of_weights_needs_no_index(tmp_path: Path) -> None:
    """One that was left over from the model in shards does not matter."""
    write_folder(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00001.safetensors"}}))
    assert read_folder(tmp_path).weight_bytes == 488


def test_missing_numbers_are_found_without_an_index() -> None:
    """A name that promises more parts than there are is not believed."""
    assert missing_shards(["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"]) == (
        "model-00002-of-00003.safetensors",
    )
    assert len(missing_shards(["model-00001-of-99999.safetensors"])) == 1000
    assert missing_shards(["model.safetensors"]) == ()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json in this folder: name the folder"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json is no valid JSON object"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff"), "config.json is no valid JSON object"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "config.json is no valid JSON object"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no model\*\.safetensors in this folder"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "convert to safetensors"),
        (lambda folder: (folder / "config.json").rename(folder / "x.gguf"), "name one of the files"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors"),
            "first model-00002-of-00002",
        ),
    ],
)
def test_what_is_no_whole_model_says_what_to_do(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    """Each thing that can be missing has its own sentence."""
    damage(write_folder(tmp_path / "tiny"))
    with pytest.raises(LoadFailed, match=words) as failed:
        read_folder(tmp_path / "tiny")
    assert failed.value.model == "tiny"


def test_floats_that_json_has_no_word_for_are_read_as_mlx_tags_them(tmp_path: Path) -> None:
    """Python writes them bare, also into the config.json of real models; texts stay as they are."""
    config = {"model_type": 'a NaN, "Infinity', "limits": [0.0, float("inf"), -float("inf")], "none": float("nan")}
    found = read_json(write_folder(tmp_path, config) / "config.json")
    tags = [{"__float__": name} for name in ("Infinity", "-Infinity", "NaN")]
    assert (found["limits"], found["none"]) == ([0.0, *tags[:2]], tags[2])
    assert found["model_type"] == 'a NaN, "Infinity'


@pytest.mark.parametrize("content", [b'{"a": Infinit}', b'{"a": NaN', b'{"' + b'\\"' * 100_000, b'{"a": --Infinity}'])
def test_what_is_no_json_stays_none(tmp_path: Path, content: bytes) -> None:
    """Also where it is hostile."""
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(LoadFailed, match="no valid JSON"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize("template", [5, True, [["a"]], [{"name": ["x"], "template": "t"}], {"name": "default"}])
def test_a_template_that_is_none_is_left_out(tmp_path: Path, template: object) -> None:
    """Whatever stands in its place."""
    write_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert read_folder(tmp_path).chat_template == ""
