"""The MLX engine's tokenizer: what goes in comes out, piece by piece, for both kinds of vocabulary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pensieve.errors import InvalidRequest, LoadFailed
from pensieve.inference.mlx.text_stream import Spelling, TextStream, UnknownDecoder, spelling_of
from pensieve.inference.mlx.tokenizer import MlxTokenizer
from tiny_models import FAMILIES, make_tiny_model

KINDS = ("llama", "phi3", "gemma3", "gpt_oss")
"""Bytes as letters; `▁` with a space in front, and without; special words inside a line."""

TEXTS = ("", " ", "  two", "Hello, the world", "a\n\tb", "né 日本語 😀👍🏽", "<|end|> x", "\x00\x7f", "▁ _", "é" * 40)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of each kind of vocabulary."""
    return make_tiny_model(tmp_path_factory.mktemp(request.param), request.param)


def streamed(tokenizer: MlxTokenizer, tokens: Sequence[int], *, continues: bool = False) -> str:
    """What a stream says of these tokens, one by one."""
    stream = tokenizer.stream(continues=continues)
    return "".join([*(stream.add(token) for token in tokens), stream.flush()])


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_from_its_tokens(folder: Path, text: str) -> None:
    """Encoding and streaming give what the library's own decoder gives, which is the text for these vocabularies."""
    tokenizer, library = MlxTokenizer.open(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = tokenizer.encode(text, adds_special=False)
    assert tokens == library.encode(text, add_special_tokens=False).ids
    assert streamed(tokenizer, tokens) == library.decode(tokens, skip_special_tokens=False)


@given(tokens=st.lists(st.integers(0, 290), max_size=24))
@pytest.mark.parametrize("family", ["llama", "gpt_oss", "deepseek_v3"])
def test_any_tokens_of_a_byte_vocabulary_stream_as_the_library_decodes_them(
    tmp_path_factory: pytest.TempPathFactory, family: str, tokens: list[int]
) -> None:
    """Invalid bytes, unknown ids and special tokens included, nothing is lost or said twice."""
    folder = tmp_path_factory.getbasetemp() / family
    if not folder.exists():
        make_tiny_model(folder, family)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert streamed(MlxTokenizer.open(folder), tokens) == library.decode(tokens, skip_special_tokens=False)


@pytest.mark.parametrize("family", ["deepseek_v3", "gpt_oss", "phi3"])
def test_every_token_alone_reads_as_the_library_decodes_it(tmp_path: Path, family: str) -> None:
    """Special tokens with letters that stand for no byte included."""
    make_tiny_model(tmp_path, family)
    tokenizer, library = MlxTokenizer.open(tmp_path), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for token in range(tokenizer.num_tokens):
        assert streamed(tokenizer, [token]) == library.decode([token], skip_special_tokens=False)


@given(texts=st.lists(st.one_of(st.binary(min_size=1, max_size=1), st.text(max_size=3)), max_size=24))
def test_byte_tokens_between_others_become_text_as_soon_as_they_are_whole(texts: list[bytes | str]) -> None:
    """Every prefix that ends in whole characters is said at once, and broken bytes cost one mark, not the rest."""
    pieces = [piece if isinstance(piece, bytes) else piece.encode("utf-8", "replace") for piece in texts]
    stream = TextStream(pieces.__getitem__, Spelling())
    said = ""
    for index in range(len(pieces)):
        said += stream.add(index)
        whole = b"".join(pieces[: index + 1]).decode("utf-8", "replace")
        assert whole.removesuffix("\ufffd") == said.removesuffix("\ufffd") or whole.startswith(said)
    assert said + stream.flush() == b"".join(pieces).decode("utf-8", "replace")


def test_an_emoji_in_pieces_waits_for_its_last_byte(folder: Path) -> None:
    """The first three of four byte tokens say nothing; the fourth says it all."""
    tokenizer = MlxTokenizer.open(folder)
    *first, last = tokenizer.encode("😀", adds_special=False)[-4:]
    stream = tokenizer.stream(continues=True)
    assert [stream.add(token) for token in first] == ["", "", ""]
    assert stream.add(last) == "😀"
    assert stream.flush() == ""


def test_an_unfinished_character_is_one_mark_at_the_end(folder: Path) -> None:
    """An answer that was cut inside a character keeps what it said and shows the cut."""
    tokenizer = MlxTokenizer.open(folder)
    tokens = tokenizer.encode("a😀", adds_special=False)
    assert streamed(tokenizer, tokens[:-1]) == "a\ufffd"


def test_the_space_at_the_start_is_kept_where_a_text_goes_on(tmp_path: Path) -> None:
    """An answer drops the space that opens every text of such a vocabulary; a continued text needs it."""
    tokenizer = MlxTokenizer.open(make_tiny_model(tmp_path, "phi3"))
    tokens = tokenizer.encode("the end", adds_special=False)
    assert streamed(tokenizer, tokens) == "the end"
    assert streamed(tokenizer, tokens, continues=True) == " the end"


def test_special_tokens_stay_in_the_text(tmp_path: Path) -> None:
    """The parser finds the markers of channels and turns in the stream."""
    tokenizer = MlxTokenizer.open(make_tiny_model(tmp_path, "gpt_oss"))
    text = "<|channel|>analysis<|message|>hm<|end|>"
    tokens = tokenizer.encode(text)
    assert len(tokens) < len(text)
    assert streamed(tokenizer, tokens) == text
    assert tokenizer.token_text(tokens[0]) == "<|channel|>"


@pytest.mark.parametrize(
    ("family", "bos", "adds_bos", "eos"),
    [
        ("llama", "<|begin_of_text|>", True, "<|eot_id|>"),
        ("phi3", "<s>", False, "<|endoftext|>"),
        ("qwen3", "", False, "<|im_end|>"),
        ("gpt_neox", "<|endoftext|>", False, "<|endoftext|>"),
    ],
)
def test_the_marks_of_a_text_are_found(tmp_path: Path, family: str, bos: str, adds_bos: bool, eos: str) -> None:
    """BOS and EOS come from the settings; whether BOS is added is tried out."""
    tokenizer = MlxTokenizer.open(make_tiny_model(tmp_path, family))
    assert (tokenizer.bos_token, tokenizer.adds_bos, tokenizer.eos_token) == (bos, adds_bos, eos)
    assert (tokenizer.encode("x")[0] == tokenizer.id_of(bos)) is adds_bos
    assert len(tokenizer.encode("x", adds_special=False)) == len(tokenizer.encode("x")) - adds_bos


def test_a_marker_may_be_an_object(tmp_path: Path) -> None:
    """Older folders write `{"content": "</s>"}`."""
    make_tiny_model(tmp_path, "mistral")
    settings = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": {"content": "</s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert MlxTokenizer.open(tmp_path).eos_token == "</s>"


def test_a_prompt_is_never_cut_or_padded_in_silence(tmp_path: Path) -> None:
    """A tokenizer.json that asks for either is not obeyed."""
    make_tiny_model(tmp_path, "qwen2")
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.enable_truncation(max_length=4)
    library.enable_padding(length=64)
    library.save(str(tmp_path / "tokenizer.json"))
    assert len(MlxTokenizer.open(tmp_path).encode("0123456789")) == 10


def test_half_a_surrogate_pair_becomes_a_mark(folder: Path) -> None:
    """JSON can carry what is no character; the prompt is read all the same."""
    tokenizer = MlxTokenizer.open(folder)
    assert streamed(tokenizer, tokenizer.encode("a\ud83db", adds_special=False)) == "a?b"


def test_a_token_without_weights_is_refused_by_its_text(tmp_path: Path) -> None:
    """Some vocabularies are larger than the model; what lies beyond would read other memory."""
    tokenizer = MlxTokenizer.open(make_tiny_model(tmp_path, "llama"))
    tokenizer.limit(tokenizer.id_of("<|eot_id|>"))
    assert tokenizer.encode("fine")
    with pytest.raises(InvalidRequest, match="eot_id"):
        tokenizer.encode("a<|eot_id|>b")


def test_unknown_tokens_say_nothing(folder: Path) -> None:
    """A model may have more columns than its vocabulary has tokens."""
    tokenizer = MlxTokenizer.open(folder)
    assert streamed(tokenizer, [10**6, -1, tokenizer.num_tokens]) == ""
    assert tokenizer.token_text(10**6) == ""


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b'{"model": {"type": "BPE"}}', b"[" * 10_000])
def test_a_broken_tokenizer_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    """Whatever the library raises, the sentence names the file and the next step."""
    make_tiny_model(tmp_path, "llama")
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(LoadFailed, match=r"tokenizer\.json is broken: .* fetch it again"):
        MlxTokenizer.open(tmp_path)


@pytest.mark.parametrize(("other", "next_step"), [("tokenizer.model", "copy of the model"), ("vocab.txt", "fetch it")])
def test_a_missing_tokenizer_names_the_next_step(tmp_path: Path, other: str, next_step: str) -> None:
    """A folder with a SentencePiece model alone needs another copy; an incomplete one needs the file."""
    (tmp_path / other).touch()
    with pytest.raises(LoadFailed, match=next_step):
        MlxTokenizer.open(tmp_path)


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        {"type": "WordPiece", "prefix": "##"},
        {"type": "Sequence", "decoders": [7]},
        {"type": "Sequence", "decoders": [{"type": "Fuse"}] * 100},
        {"type": "Replace", "pattern": {"Regex": "(a+)+"}, "content": ""},
        {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 50},
    ],
)
def test_a_decoder_of_another_kind_is_refused(decoder: Mapping[str, Any] | None) -> None:
    """Better no model than one whose text is wrong."""
    with pytest.raises(UnknownDecoder):
        spelling_of(decoder)


def test_several_letters_at_the_start_may_be_dropped() -> None:
    """As many as the decoder says at most, over several tokens, and only at the start."""
    strip = {"type": "Strip", "content": " ", "start": 3, "stop": 0}
    spelling = spelling_of({"type": "Sequence", "decoders": [{"type": "Fuse"}, strip]})
    stream = TextStream([b" ", b"   a", b"  b"].__getitem__, spelling)
    assert [stream.add(0), stream.add(1), stream.add(2)] == ["", " a", "  b"]


def test_metaspace_is_spelled_as_a_space() -> None:
    """The older way of `▁` vocabularies: the text's first space is dropped."""
    spelling = spelling_of({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True})
    words = ["▁the", "▁end"]
    stream = TextStream(lambda token: spelling.bytes_of(words[token]), spelling)
    assert stream.add(0) + stream.add(1) + stream.flush() == "the end"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_what_was_encoded(tmp_path: Path, family: str) -> None:
    """The tiny models' vocabularies carry any text."""
    tokenizer = MlxTokenizer.open(make_tiny_model(tmp_path, family))
    text = "The cat sat, naïve 😀."
    assert streamed(tokenizer, tokenizer.encode(text, adds_special=False)) == text


def test_nothing_is_printed_after_a_fork(tmp_path: Path) -> None:
    """The library warns of its threads when a process that used them forks; ours uses none."""
    make_tiny_model(tmp_path, "llama")
    program = (
        "import os, sys, pathlib; from pensieve.inference.mlx.tokenizer import MlxTokenizer;"
        "t = MlxTokenizer.open(pathlib.Path(sys.argv[1])); t.encode('x' * 9999); pid = os.fork();"
        "t.encode('y'); pid and os.waitpid(pid, 0)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    command = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, env=environment, check=True, timeout=60)
    assert ended.stdout + ended.stderr == b""
