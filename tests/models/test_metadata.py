"""What the keys of a header mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_files import TINY_MODEL, TINY_TENSORS, Value, write_gguf
from pensieve.errors import LoadFailed
from pensieve.models.metadata import GgufHeader, read_gguf, read_markers


def header_with(folder: Path, **changes: Value | None) -> GgufHeader:
    """The header of the tiny model with keys changed (`__` stands for a dot), or left out by None."""
    keys = {name.replace("__", "."): value for name, value in changes.items()}
    metadata = {key: value for key, value in (TINY_MODEL | keys).items() if value is not None}
    return read_gguf(write_gguf(folder / "tiny.gguf", metadata))


def test_the_facts_of_a_header(tmp_path: Path) -> None:
    """Architecture, context, quantization, sizes and special tokens come out as they were written."""
    header = header_with(tmp_path)
    assert (header.architecture, header.context_tokens, header.quantization) == ("llama", 2048, "Q4_1")
    assert (header.parameters, header.weight_bytes, header.cache_bytes_per_token) == (384, 480, 256)
    assert (header.bos_token, header.eos_token) == ("<s>", "</s>")
    assert header.size_bytes == header.path.stat().st_size


def test_a_spec_carries_the_facts(tmp_path: Path) -> None:
    """The spec names the file and repeats what the header says."""
    spec = header_with(tmp_path).spec("tiny", origin="pull")
    assert (spec.name, spec.origin, spec.location) == ("tiny", "pull", str(tmp_path / "tiny.gguf"))
    assert (spec.context_tokens, spec.cache_bytes_per_token, spec.weight_bytes) == (2048, 256, 480)


@pytest.mark.parametrize(
    ("changes", "cache_bytes"),
    [
        ({"llama__attention__head_count_kv": None}, 512),
        ({"llama__attention__head_count_kv": [2, 1]}, 192),
        ({"llama__attention__head_count_kv": [2, 0]}, 128),
        ({"llama__attention__key_length": 32}, 384),
        ({"llama__attention__key_length": 8, "llama__attention__value_length": 8}, 128),
        ({"llama__attention__head_count": 0}, 0),
        ({"llama__block_count": -1}, 0),
        ({"llama__block_count": 2**31}, 0),
        ({"llama__attention__head_count_kv": [2**31, 2]}, 512),
        ({"llama__attention__head_count_kv": None, "llama__attention__head_count": None}, 0),
    ],
)
def test_cache_bytes_per_token(tmp_path: Path, changes: dict[str, Value | None], cache_bytes: int) -> None:
    """Heads may differ by layer, widths may be given, and absurd numbers count as not said."""
    assert header_with(tmp_path, **changes).cache_bytes_per_token == cache_bytes


@pytest.mark.parametrize(
    ("template", "capabilities"),
    [
        ("{{ messages }}", ()),
        ("{% if tools %}{{ tools }}{% endif %}", ("tools",)),
        ("{% if enable_thinking %}{% endif %}", ("thinking",)),
        ("<think>{{ tools }}", ("thinking", "tools")),
        ("toolset", ()),
    ],
)
def test_capabilities_come_from_the_template(tmp_path: Path, template: str, capabilities: tuple[str, ...]) -> None:
    """A template that cannot say a thing cannot be asked for it."""
    assert header_with(tmp_path, tokenizer__chat_template=template).capabilities == capabilities


@pytest.mark.parametrize(
    ("model", "splitter", "said", "adds_bos"),
    [
        ("gpt2", "smollm", None, False),
        ("gpt2", "llama-bpe", None, True),
        ("llama", None, None, True),
        ("llama", None, False, False),
        ("gpt2", "smollm", True, True),
    ],
)
def test_whether_bos_is_added(
    tmp_path: Path, model: str, splitter: str | None, said: bool | None, adds_bos: bool
) -> None:
    """The header's word wins; without one the vocabulary's kind decides, as in llama.cpp."""
    header = header_with(
        tmp_path, tokenizer__ggml__model=model, tokenizer__ggml__pre=splitter, tokenizer__ggml__add_bos_token=said
    )
    assert header.adds_bos is adds_bos
    assert header.adds_eos is False


def test_special_tokens_outside_the_vocabulary_are_empty(tmp_path: Path) -> None:
    """An id past the end names no token; a vocabulary that does not say has none."""
    header = header_with(tmp_path, tokenizer__ggml__bos_token_id=99, tokenizer__ggml__eos_token_id=None)
    assert (header.bos_token, header.eos_token) == ("", "")


def test_a_sentencepiece_vocabulary_has_its_usual_tokens(tmp_path: Path) -> None:
    """Without ids, BOS is 1 and EOS is 2."""
    unsaid: dict[str, Value | None] = {"tokenizer__ggml__bos_token_id": None, "tokenizer__ggml__eos_token_id": None}
    header = header_with(tmp_path, tokenizer__ggml__model="llama", **unsaid)
    assert (header.bos_token, header.eos_token) == ("<s>", "</s>")


def test_quantization_falls_back_to_the_largest_tensors(tmp_path: Path) -> None:
    """Without a known file type, the type that holds the most bytes names it."""
    assert header_with(tmp_path, general__file_type=None).quantization == "F32"
    assert header_with(tmp_path, general__file_type=999).quantization == "F32"


def test_parts_are_summed_from_the_first(tmp_path: Path) -> None:
    """A model in two files weighs what both weigh."""
    first = write_gguf(tmp_path / "m-00001-of-00002.gguf")
    write_gguf(tmp_path / "m-00002-of-00002.gguf", {}, TINY_TENSORS)
    header = read_gguf(first)
    assert (header.weight_bytes, header.parameters, header.architecture) == (960, 768, "llama")
    with pytest.raises(LoadFailed, match="part 2 of a model in 2 files: name the first"):
        read_gguf(tmp_path / "m-00002-of-00002.gguf")


def test_missing_parts_are_named(tmp_path: Path) -> None:
    """Without all its files a split model is refused, with the first missing name."""
    first = write_gguf(tmp_path / "m-00001-of-00003.gguf")
    with pytest.raises(LoadFailed, match=r"in 3 files, and 2 are missing beside it, first m-00002-of-00003\.gguf"):
        read_gguf(first)


def test_a_broken_part_breaks_the_model(tmp_path: Path) -> None:
    """Every part is checked for completeness."""
    first = write_gguf(tmp_path / "m-00001-of-00002.gguf")
    second = write_gguf(tmp_path / "m-00002-of-00002.gguf", {}, TINY_TENSORS)
    second.write_bytes(second.read_bytes()[:-10])
    with pytest.raises(LoadFailed, match="m-00002-of-00002"):
        read_gguf(first)


def test_a_large_vocabulary_is_stepped_over(tmp_path: Path) -> None:
    """Behind 150,000 tokens the next key is found, and the last token by its id."""
    tokens = [f"token{index}" for index in range(150_000)]
    header = header_with(tmp_path, tokenizer__ggml__tokens=tokens, tokenizer__ggml__eos_token_id=149_999)
    assert (header.bos_token, header.eos_token) == ("token1", "token149999")
    assert header.chat_template == TINY_MODEL["tokenizer.chat_template"]


def test_markers_are_the_tokens_that_stand_for_themselves(tmp_path: Path) -> None:
    """Control tokens and those the maker added; ordinary pieces of text are not among them."""
    tokens: dict[str, Value] = {
        "tokenizer.ggml.tokens": ["a", "<|im_end|>", "<tool>", ""],
        "tokenizer.ggml.token_type": [1, 3, 4, 3],
    }
    assert read_markers(write_gguf(tmp_path / "m.gguf", TINY_MODEL | tokens)) == {"<|im_end|>": True, "<tool>": False}
