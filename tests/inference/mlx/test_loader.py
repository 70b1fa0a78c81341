"""Loading models for MLX: every family, every form of weights, and every kind of broken folder as one sentence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from pensieve.config.settings import MlxSettings, Settings
from pensieve.errors import LoadFailed
from pensieve.inference.mlx import architectures
from pensieve.inference.mlx.configuration import eos_ids, read_config
from pensieve.inference.mlx.loader import LoadedModel, load
from pensieve.models.spec import ModelSpec
from tiny_models import FAMILIES, make_tiny_model

PROMPT = "Hello, the world"
NUM_TOKENS = 12


@pytest.fixture(autouse=True)
def on_cpu() -> Iterator[None]:
    """The same numbers on every machine."""
    before = mx.default_device()
    mx.set_default_device(mx.Device(mx.cpu))
    yield
    mx.set_default_device(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model to break."""
    return make_tiny_model(tmp_path / "broken", "phi3")


def loaded(folder: Path, quantization: str = "none", *, room_bytes: int | None = None) -> LoadedModel:
    """The model in `folder`, by the name `tiny`."""
    settings = Settings(mlx=MlxSettings(quantization=quantization))  # type: ignore[arg-type]
    return load(ModelSpec(name="tiny", location=str(folder), format="mlx"), settings, room_bytes=room_bytes)


def greedy(model: LoadedModel, text: str = PROMPT) -> list[int]:
    """The most likely tokens after the text."""
    caches = architectures.make_caches(model.model)
    tokens = model.tokenizer.encode(text)
    said: list[int] = []
    while len(said) < NUM_TOKENS:
        logits = model.model(mx.array([tokens]), cache=caches)[0, -1]
        assert mx.isfinite(logits).all()
        tokens = [int(logits.argmax().tolist())]
        said += tokens
    return said


def rewrite(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes one out."""
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def stored(folder: Path) -> dict[str, mx.array]:
    """The tensors of the model's only file."""
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    return weights


def with_weights(folder: Path, changes: Mapping[str, mx.array | None]) -> Path:
    """Change tensors of the model; None takes one out."""
    path = str(folder / "model.safetensors")
    weights: dict[str, mx.array | None] = {**stored(folder), **changes}
    mx.eval([array for array in weights.values() if array is not None])
    mx.save_safetensors(path, {name: array for name, array in weights.items() if array is not None})
    return folder


def shards(folder: Path) -> tuple[Path, Path]:
    """The model's weights in two files with an index."""
    weights = sorted(stored(folder).items())
    paths = tuple(folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    parts = weights[: len(weights) // 2], weights[len(weights) // 2 :]
    for path, part in zip(paths, parts, strict=True):
        mx.save_safetensors(str(path), dict(part))
    weight_map = {name: path.name for path, part in zip(paths, parts, strict=True) for name, _ in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    return paths[0], paths[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_and_its_answers_follow_the_prompt(tmp_path: Path, family: str) -> None:
    """Real architectures with random weights: finite numbers, several words, other words for another prompt."""
    model = loaded(make_tiny_model(tmp_path, family))
    answer = greedy(model)
    assert len(set(answer)) > 3
    assert answer != greedy(model, "Something else")
    assert not set(answer) & model.eos_ids
    assert model.eos_ids
    assert max(answer) < model.vocabulary_size == model.config["vocab_size"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_from_four_bits(tmp_path: Path, family: str) -> None:
    """Quantized as mlx-community's repositories are; scales in half precision are computed with in float32."""
    model = loaded(make_tiny_model(tmp_path, family, bits=4, dtype="bfloat16"))
    assert "mlx.core.uint32" in architectures.dtypes(model.model)
    assert "mlx.core.bfloat16" not in architectures.dtypes(model.model)
    assert len(greedy(model)) == NUM_TOKENS


@pytest.mark.parametrize(("quantization", "share"), [("int4", 0.25), ("int8", 0.45), ("fp16", 1.01)])
@pytest.mark.parametrize("family", ["phi3", "gpt_oss", "smollm", "qwen3_next", "deepseek_v3"])
def test_dense_weights_are_quantized_at_load(tmp_path: Path, family: str, quantization: str, share: float) -> None:
    """What is asked for is what is held; half precision is rounded to, and computed in float32 on a CPU."""
    make_tiny_model(tmp_path, family)
    dense, model = loaded(tmp_path), loaded(tmp_path, quantization)
    assert model.weight_bytes <= share * dense.weight_bytes
    assert model.fingerprint != dense.fingerprint
    assert len(greedy(model)) == NUM_TOKENS


def test_half_precision_rounds_the_weights(folder: Path) -> None:
    """float16 holds 11 bits: the numbers are those, whatever they are computed in."""
    dense, half = loaded(folder), loaded(folder, "fp16")
    before, after = dense.model.lm_head.weight, half.model.lm_head.weight
    assert mx.array_equal(before.astype(mx.float16).astype(mx.float32), after)
    assert not mx.array_equal(before, after)


def test_layers_that_a_family_protects_stay_as_they_are(tmp_path: Path) -> None:
    """qwen3_next's router keeps eight bits, and deepseek_v3's corrections of its own are never rounded."""
    make_tiny_model(tmp_path / "router", "qwen3_next")
    assert loaded(tmp_path / "router", "int4").model.layers[0].mlp.gate.bits == 8
    make_tiny_model(tmp_path / "experts", "deepseek_v3", n_routed_experts=4, num_experts_per_tok=2)
    dense, half = (loaded(tmp_path / "experts", form).model.layers[0].mlp.gate for form in ("none", "fp16"))
    assert mx.array_equal(dense.e_score_correction_bias, half.e_score_correction_bias)
    assert not mx.array_equal(dense.weight, half.weight)


def test_quantizing_twice_is_refused(tmp_path: Path) -> None:
    """Four bits of four bits would answer worse in silence."""
    make_tiny_model(tmp_path, "llama", bits=8)
    with pytest.raises(LoadFailed, match=r"quantized already: leave mlx\.quantization at none, not int4"):
        loaded(tmp_path, "int4")


def test_single_layers_keep_their_own_bits(tmp_path: Path) -> None:
    """The head at eight bits and the rest at four, as the config says by name."""
    model = loaded(make_tiny_model(tmp_path, "qwen2", bits=4, layer_bits={"lm_head": 8})).model
    assert model.lm_head.bits == 8
    assert model.model.layers[0].mlp.up_proj.bits == 4


def test_microscaled_weights_load(tmp_path: Path) -> None:
    """gpt-oss is published in mxfp4, whose scales are bytes."""
    model = loaded(make_tiny_model(tmp_path, "gpt_oss", bits=4, mode="mxfp4"))
    assert "mlx.core.uint8" in architectures.dtypes(model.model)
    assert len(greedy(model)) == NUM_TOKENS


def test_half_precision_stays_where_float32_has_no_room(tmp_path: Path) -> None:
    """Slow beats not at all; and what does not fit at all is refused with both numbers."""
    make_tiny_model(tmp_path, "llama", dtype="bfloat16")
    needed = loaded(tmp_path).weight_bytes
    assert loaded(tmp_path, room_bytes=needed - 1).weight_bytes == needed // 2
    with pytest.raises(LoadFailed, match=r"take 0\.00 GB and 0\.00 GB are free: close other programs"):
        loaded(tmp_path, room_bytes=1000)


def test_shards_load_as_one_file_does(folder: Path) -> None:
    """Large models come in several files with an index."""
    before = greedy(loaded(folder))
    shards(folder)
    assert greedy(loaded(folder)) == before


def test_longrope_goes_beyond_its_first_window(tmp_path: Path) -> None:
    """A prompt four times as long as the original window still gives numbers that follow the prompt."""
    model = loaded(make_tiny_model(tmp_path, "phi3-128k"))
    assert model.context_tokens == 2048
    text = "the end of it all " * 20
    assert len(model.tokenizer.encode(text)) > 4 * model.config["original_max_position_embeddings"]
    assert greedy(model, text) != greedy(model, f"x{text}")


def test_a_model_says_what_it_is(tmp_path: Path) -> None:
    """Template, ends, context and a fingerprint that only changes with the files."""
    make_tiny_model(tmp_path, "qwen3", chat_template="{{ messages }}")
    model = loaded(tmp_path)
    assert model.chat_template == "{{ messages }}"
    assert model.context_tokens == 2048
    assert {model.tokenizer.token_text(token) for token in model.eos_ids} == {"<|im_end|>", "<|endoftext|>"}
    assert loaded(tmp_path).fingerprint == model.fingerprint


@pytest.mark.parametrize("name", ["chat_template.jinja", "config.json", "tokenizer.json", "model.safetensors"])
def test_the_fingerprint_changes_with_each_file(folder: Path, name: str) -> None:
    """A stored cache of one model must never be read into another: a new date of the weights is enough."""
    before = loaded(folder).fingerprint
    path = folder / name
    if path.suffix == ".safetensors":
        os.utime(path, ns=(0, 0))
    else:
        path.write_bytes((path.read_bytes() if path.exists() else b"") + b"\n")
    assert loaded(folder).fingerprint != before


def test_floats_that_json_lacks_are_read(tmp_path: Path) -> None:
    """Infinity is written as an object with a tag."""
    assert read_config(make_tiny_model(tmp_path, "mamba2"))["time_step_limit"] == [0.0, float("inf")]


def test_bare_floats_are_read_as_tagged_ones(tmp_path: Path) -> None:
    """Python's own writer leaves them bare; the model loads, and answers."""
    folder = make_tiny_model(tmp_path, "mamba2")
    tagged = (folder / "config.json").read_text()
    document = json.loads(tagged) | {"time_step_limit": [0.0, float("inf")]}
    (folder / "config.json").write_text(json.dumps(document))
    assert "Infinity]" in (folder / "config.json").read_text()
    assert loaded(folder).config["time_step_limit"] == [0.0, float("inf")]


def test_a_pipe_in_place_of_the_tokenizer_is_refused(folder: Path) -> None:
    """Opening it would wait for a writer that never comes."""
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(LoadFailed, match="is no file"):
        loaded(folder)


def test_every_file_that_names_an_end_is_heard(folder: Path) -> None:
    """A token that any of them names ends the answer; what is no token is passed over."""
    rewrite(folder / "config.json", eos_token_id=[5, True, -1, "x"], text_config={"eos_token_id": 9})
    rewrite(folder / "generation_config.json", eos_token_id=7)
    assert eos_ids(folder, read_config(folder), 3) == {3, 5, 7, 9}


def test_a_truncated_file_of_weights_is_found_before_it_is_read(folder: Path) -> None:
    """The header says how long the file must be."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LoadFailed, match=r"^model tiny could not be loaded: model\.safetensors: .*100 bytes too early"):
        loaded(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    """An interrupted download says what to fetch."""
    shards(folder)[1].unlink()
    with pytest.raises(LoadFailed, match=r"missing, first model-00002-of-00002\.safetensors"):
        loaded(folder)


def test_pickles_are_refused_with_the_next_step(folder: Path) -> None:
    """They can run code when they are loaded."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(LoadFailed, match=r"pickles.*convert to safetensors"):
        loaded(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    """Half a folder is no model."""
    (folder / name).unlink()
    with pytest.raises(LoadFailed, match=rf"no {name}"):
        loaded(folder)


@pytest.mark.parametrize("architecture", ["brandnew", "cache", "base", "rope_utils", "lille-0"])
def test_an_unknown_architecture_is_named(folder: Path, architecture: str) -> None:
    """A module of the library that is no model is none either."""
    rewrite(folder / "config.json", model_type=architecture)
    with pytest.raises(LoadFailed, match=f"architecture {architecture} is not one .*: use a GGUF file"):
        loaded(folder)


@pytest.mark.parametrize("architecture", ["..utils", "os.path", "a/b", "x" * 99, "", 7, None, ["llama"], "phi3\n"])
def test_a_hostile_architecture_imports_nothing(folder: Path, architecture: Any) -> None:
    """Only plain names are looked up."""
    rewrite(folder / "config.json", model_type=architecture)
    with pytest.raises(LoadFailed, match="no usable model_type"):
        loaded(folder)


@pytest.mark.parametrize("key", ["model_file", "auto_map"])
def test_code_in_the_folder_never_runs(folder: Path, key: str) -> None:
    """A config that asks for it is refused, or its wish ignored where the architecture is known."""
    witness = folder / "ran"
    (folder / "hostile.py").write_text(f"open({str(witness)!r}, 'w')")
    wishes = {"model_file": "hostile.py", "auto_map": {"AutoModelForCausalLM": "hostile.Model"}}
    rewrite(folder / "config.json", **{key: wishes[key]})
    rewrite(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["hostile.Tokenizer", None]})
    if key == "model_file":
        with pytest.raises(LoadFailed, match="Python file of its own, which is never done"):
            loaded(folder)
    else:
        assert greedy(loaded(folder))
    assert not witness.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lm_head.weight": None}, "Missing 1 parameters: lm_head.weight"),
        ({"lm_head.extra": mx.zeros(4)}, "1 parameters not in model: lm_head.extra"),
        ({"lm_head.weight": mx.zeros((4, 4))}, "parameter lm_head.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named(folder: Path, changes: dict[str, mx.array | None], words: str) -> None:
    """Missing, unknown or of another shape: one sentence with the name."""
    with pytest.raises(LoadFailed, match=f"not those of phi3.*{words}.*fetch both again"):
        loaded(with_weights(folder, changes))


@pytest.mark.parametrize(
    ("value", "problem"), [(float("nan"), "no finite numbers"), (float("inf"), "no finite"), (0.0, "the same chance")]
)
def test_weights_without_sense_fail_at_load(folder: Path, value: float, problem: str) -> None:
    """A few greedy words are said before anyone asks."""
    with pytest.raises(LoadFailed, match=problem):
        loaded(with_weights(folder, {"lm_head.weight": mx.full((368, 64), value)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 1e300},
        {"vision_config": {"n_blocks": 10_001}},
        {"layer_types": ["full_attention"] * 10_001},
        {"hybrid_override_pattern": "M" * 10_001},
        {"ffn_config": {"moe_num_experts": 10_001}},
        {"text_config": {"num_hidden_layers": 20_000}},
        {"hidden_size": 2**62},
        {"hidden_size": -1},
        {"num_attention_heads": 0},
        {"vocab_size": "many"},
        {"rope_scaling": {"type": "longrope"}},
        {"rope_scaling": [1]},
        {"hidden_size": None},
        {"quantization": "four"},
        {"quantization_config": {"quant_method": "awq"}},
        {"quantization_config": ["x"]},
        {"rms_norm_eps": "small"},
    ],
)
def test_an_absurd_config_is_one_error(folder: Path, changes: dict[str, Any]) -> None:
    """Whatever mlx-lm makes of it, `LoadFailed` is all that leaves, with the model's name."""
    rewrite(folder / "config.json", **changes)
    with pytest.raises(LoadFailed, match=r"^model tiny could not be loaded: "):
        loaded(folder)


def test_brackets_in_a_folder_name_are_refused_by_name(folder: Path) -> None:
    """mlx-lm would look for the weights elsewhere."""
    moved = folder.with_name("model[1]")
    shutil.move(folder, moved)
    with pytest.raises(LoadFailed, match="unusual characters: rename"):
        loaded(moved)


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    """Its first words already lie beyond the embedding."""
    other = make_tiny_model(tmp_path / "other", "llama")
    shutil.copy(folder / "tokenizer.json", other)
    with pytest.raises(LoadFailed, match="belongs to another one: fetch both again"):
        loaded(other)


def test_a_vocabulary_larger_than_the_model_is_bounded(folder: Path) -> None:
    """Its tokens would read beyond the embedding."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    far = {"id": 400, "content": "<far>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"pad{index}": index for index in range(len(vocabulary), 400)}
    tokenizer["added_tokens"].append(far | flags)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = loaded(folder)
    assert model.tokenizer.id_of("<far>") == 400 > model.vocabulary_size
    with pytest.raises(Exception, match="no weights for the token '<far>'"):
        model.tokenizer.encode("so <far>")
