"""Tokenizers out of GGUF headers: the ids of the model they were written from, and of llama.cpp."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tokenizers import Regex, pre_tokenizers

from gguf_models import write_gguf_model
from pensieve.config.settings import LlamaCppSettings
from pensieve.errors import LoadFailed
from pensieve.inference.llamacpp.engine import Engine
from pensieve.inference.llamacpp.sizing import Sizes
from pensieve.inference.llamacpp.tokenizer import EngineTokenizer
from pensieve.inference.mlx.gguf_splitters import SPLITTERS
from pensieve.inference.mlx.gguf_tokenizer import tokenizer_of
from pensieve.inference.mlx.perplexity import evaluation_text
from pensieve.inference.mlx.tokenizer import MlxTokenizer
from pensieve.models.gguf import open_container
from pensieve.models.metadata import read_gguf
from tiny_models import make_tiny_model

TEXTS = (
    *("Hello, world!", "  many    blanks \n\n\n\tand tabs\t\t", "12345 3.14 1,000,000 2nd", "\n", "   ", ""),
    *("café über Straße", "日本語のテキスト。中文字符", "Привет, мир!", "العربية שלום हिन्दी", "½ ² Ⅷ ٣٤٥ 一二三"),
    *(
        "🙂👩‍👩‍👧‍👦🏳️‍🌈 emoji 🎉🎉",
        "e\u0301 \u00a0 \u2003 \u200b",
        "I'm you're DON'T \u2019s \u201cx\u201d",
        "camelCaseHTTPServer snake_case",
    ),
    *(
        "def f(x):\n    return x**2  # no\n\tif a!=b: pass\r\n",
        "...!!!???---===$$$",
        "https://example.com/c?d=1&e=%20#f",
    ),
    *("<|im_start|>user\nhi<|im_end|>\n", "<|end|> after", "<s>one</s>two", evaluation_text()[:2_000]),
)


def tokenizer_from(path: Path, num_rows: int = 10**6) -> MlxTokenizer:
    """The GGUF file's tokenizer, as a model's folder has it."""
    folder = path.with_suffix(".tokenizer")
    folder.mkdir(exist_ok=True)
    with open_container(path) as container:
        found = tokenizer_of(container, read_gguf(path), num_rows)
    for name, content in found.files.items():
        (folder / name).write_bytes(msgspec.json.encode(content))
    return MlxTokenizer.open(folder)


def answer(tokenizer: MlxTokenizer, text: str) -> str:
    """The text through ids and back."""
    stream = tokenizer.stream()
    return "".join(map(stream.add, tokenizer.encode(text, adds_special=False))) + stream.flush()


@pytest.mark.parametrize("family", ["smollm", "llama", "mistral", "phi3"])
def test_the_ids_are_those_of_the_model_it_was_written_from(family: str, tmp_path: Path) -> None:
    """Byte-level and SentencePiece, with and without a BOS, with the blanks Phi-3's markers take."""
    source = make_tiny_model(tmp_path / "source", family)
    found = tokenizer_from(write_gguf_model(tmp_path / "m.gguf", source))
    known = MlxTokenizer.open(source)
    texts = [text for text in TEXTS if family != "phi3" or "<" not in text]
    assert [found.encode(text) for text in texts] == [known.encode(text) for text in texts]
    assert (found.bos_token, found.eos_token, found.adds_bos) == (known.bos_token, known.eos_token, known.adds_bos)


@pytest.mark.parametrize("family", ["smollm", "mistral"])
def test_text_comes_back_as_it_was(family: str, tmp_path: Path) -> None:
    """Through ids and a stream; a space that was put before the text is its opening, as llama.cpp has it."""
    source = make_tiny_model(tmp_path / "source", family)
    found = tokenizer_from(write_gguf_model(tmp_path / "m.gguf", source))
    for text in (text for text in TEXTS if "<" not in text):
        assert answer(found, text).removeprefix(" ") == text.removeprefix(" ")


@pytest.mark.parametrize(
    ("splitter", "text", "count"),
    [
        ("smollm", "1234", 4),
        ("qwen2", "1234", 4),
        ("llama-bpe", "1234", 2),
        ("gpt-2", "1234", 1),
        ("default", "1234", 2),
        ("gpt-4o", "camelCase", 2),
        ("llama-bpe", "camelCase", 1),
        ("tekken", "camelCase", 2),
    ],
)
def test_a_splitter_cuts_where_its_name_says(splitter: str, text: str, count: int) -> None:
    """Digits one by one, by threes or together; capitals begin a word or do not."""
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITTERS[splitter]]
    assert len(pre_tokenizers.Sequence(steps).pre_tokenize_str(text)) == count


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"tokenizer__ggml__pre": "wild"}, "splits text as 'wild'"),
        ({"tokenizer__ggml__model": "t5"}, "of the kind t5"),
        ({"tokenizer__ggml__model": None}, "kind .none named."),
        ({"tokenizer__ggml__tokens": ["a", "b"]}, "not one kind and one score"),
        ({"tokenizer__ggml__tokens": ["a", "a"]}, "names a token twice"),
        ({"tokenizer__ggml__tokens": None}, "it has 0 tokens"),
        ({"tokenizer__ggml__model": "llama"}, "has no scores"),
    ],
)
def test_a_tokenizer_that_cannot_be_right_is_refused(metadata: dict[str, Any], words: str, tmp_path: Path) -> None:
    """A wrong id would be an answer of nonsense."""
    path = write_gguf_model(tmp_path / "m.gguf", make_tiny_model(tmp_path / "source", "smollm"), **metadata)
    with pytest.raises(LoadFailed, match=words):
        tokenizer_from(path)


def test_a_kind_that_is_no_number_is_no_kind(tmp_path: Path) -> None:
    """A header may hold its kinds as floats, and any floats."""
    source = make_tiny_model(tmp_path / "source", "smollm")
    kinds = [float("nan"), float("inf"), *[1.0] * 270]
    path = write_gguf_model(tmp_path / "m.gguf", source, tokenizer__ggml__token_type=kinds)
    assert tokenizer_from(path).num_tokens == 272


def test_more_tokens_than_embeddings_are_refused(tmp_path: Path) -> None:
    """An id past the end would read foreign memory."""
    path = write_gguf_model(tmp_path / "m.gguf", make_tiny_model(tmp_path / "source", "smollm"))
    with pytest.raises(LoadFailed, match="272 tokens and 271 embeddings"):
        tokenizer_from(path, num_rows=271)


@pytest.fixture
def engine(starter_model: Path) -> Iterator[Engine]:
    """The starter model under llama.cpp."""
    sizes = Sizes(context_tokens=256, pool_tokens=256, batch_tokens=32, num_slots=1, num_threads=1)
    engine = Engine(read_gguf(starter_model).spec("starter"), sizes, LlamaCppSettings())
    yield engine
    engine.close()


@pytest.mark.model
async def test_the_starter_model_has_the_ids_of_llama_cpp(engine: Engine, starter_model: Path, tmp_path: Path) -> None:
    """For every text, id by id."""
    theirs = EngineTokenizer(engine.socket)
    link = tmp_path / "starter.gguf"
    link.symlink_to(starter_model)
    ours = await asyncio.to_thread(tokenizer_from, link)
    for text in TEXTS:
        assert ours.encode(text) == await asyncio.to_thread(theirs.encode, text), text
