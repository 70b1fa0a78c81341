"""The tokenizer in a GGUF header as a tokenizer.json: byte-level pairs (`gpt2`) and SentencePiece pairs (`llama`).

Gives the ids that llama.cpp gives for the same file. The header is hostile: ids, lengths and merges are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from pensieve.errors import LoadFailed
from pensieve.inference.mlx.gguf_families import refusal
from pensieve.inference.mlx.gguf_splitters import SPLITTERS, WHOLE_WORD_SPLITTERS
from pensieve.models.gguf import Container
from pensieve.models.metadata import GgufHeader

MAX_TOKENS: Final = 2**22
MAX_TOKEN_CHARACTERS: Final = 4_096
"""Of a token that takes part in merges; what is longer can only be matched whole."""
CONTROL: Final = 3
USER_DEFINED: Final = 4
SPACE: Final = "\u2581"
_ENDS: Final = frozenset({"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"})
"""Markers that end a turn, whatever the header says of them."""
_OPEN_MARKERS: Final = frozenset({"<unk>", "<s>", "<|endoftext|>"})
"""Phi-3's markers that leave the blanks after them alone."""

Json = dict[str, Any]


class Vocabulary(msgspec.Struct, frozen=True):
    """The tokens of a header, all arrays of one length."""

    texts: tuple[str, ...]
    kinds: tuple[int, ...]
    scores: tuple[float, ...]
    """Empty for byte-level vocabularies."""
    merges: tuple[str, ...]


class TokenizerFiles(msgspec.Struct, frozen=True):
    """What a model needs beside its weights."""

    files: dict[str, Json]
    """tokenizer.json, and tokenizer_config.json with the chat template."""
    ids: Json
    """What config.json says of tokens: `bos_token_id`, and as `eos_token_id` all that end an answer."""


def tokenizer_of(container: Container, header: GgufHeader, num_rows: int) -> TokenizerFiles:
    """The tokenizer of a model whose embedding has `num_rows`; raises `LoadFailed` for one that is not known here."""
    model = header.path.name
    vocabulary = _vocabulary(container, model, num_rows)
    kind = container.text("tokenizer.ggml.model")
    if kind == "gpt2":
        parts = _byte_level(container, vocabulary, model)
    elif kind == "llama":
        parts = _sentencepiece(container, vocabulary, model)
    else:
        raise refusal(f"its tokenizer is of the kind {kind or '(none named)'}, which cannot be imported", model)
    bos, eos = _special_ids(container, vocabulary)
    built = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(container, header, vocabulary),
        "post_processor": _post_processor(header, vocabulary, bos, eos),
        **parts,
    }
    config = _config(container, header, vocabulary, bos, eos)
    ids: Json = {"bos_token_id": bos, "eos_token_id": _eos_ids(container, vocabulary, eos)}
    return TokenizerFiles(
        {"tokenizer.json": built, "tokenizer_config.json": config},
        {name: value for name, value in ids.items() if value not in (None, ())},
    )


def _vocabulary(container: Container, model: str, num_rows: int) -> Vocabulary:
    texts = container.texts("tokenizer.ggml.tokens")
    if not 0 < len(texts) <= min(MAX_TOKENS, num_rows):
        raise LoadFailed(f"it has {len(texts):,} tokens and {num_rows:,} embeddings: download it again", model)
    if len(set(texts)) != len(texts):
        raise LoadFailed("its vocabulary names a token twice: download it again", model)
    given = container.decimals("tokenizer.ggml.token_type")
    kinds = tuple(int(kind) if math.isfinite(kind) else 0 for kind in given) or (1,) * len(texts)
    scores = container.decimals("tokenizer.ggml.scores")
    if len(kinds) != len(texts) or len(scores) not in {0, len(texts)}:
        raise LoadFailed("its vocabulary has not one kind and one score for each token: download it again", model)
    return Vocabulary(texts, kinds, scores, container.texts("tokenizer.ggml.merges"))


def _byte_level(container: Container, vocabulary: Vocabulary, model: str) -> Json:
    splitter = container.text("tokenizer.ggml.pre") or "default"
    if splitter not in SPLITTERS:
        raise refusal(f"its tokenizer splits text as {splitter!r}, which cannot be imported", model)
    steps = [_split(pattern) for pattern in SPLITTERS[splitter]]
    bytes_as_letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, bytes_as_letters]},
        "decoder": bytes_as_letters,
        "model": _pairs(vocabulary, _given_merges(vocabulary)) | {"ignore_merges": splitter in WHOLE_WORD_SPLITTERS},
    }


def _split(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _given_merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The header's merges, without those that name no tokens: they can never apply."""
    known = set(vocabulary.texts)
    pairs = (merge.partition(" ") for merge in vocabulary.merges)
    return [(left, right) for left, _, right in pairs if {left, right, left + right} <= known]


def _sentencepiece(container: Container, vocabulary: Vocabulary, model: str) -> Json:
    if not vocabulary.scores:
        raise LoadFailed("its SentencePiece vocabulary has no scores: download it again", model)
    has_prefix = container.flag("tokenizer.ggml.add_space_prefix") is not False
    prepend = [{"type": "Prepend", "prepend": SPACE}] if has_prefix else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if has_prefix else []
    unknown = container.number("tokenizer.ggml.unknown_token_id") or 0
    merges = sorted(_scored_merges(vocabulary), key=lambda merge: -merge[0])
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, replace]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": _pairs(vocabulary, [pair for _, pair in merges])
        | {"byte_fallback": True, "fuse_unk": True, "unk_token": _text(vocabulary, unknown)},
    }


def _scored_merges(vocabulary: Vocabulary) -> Iterator[tuple[float, tuple[str, str]]]:
    """Every way to make a token of two others, with its score: the best is merged first."""
    known = {text for text, kind in zip(vocabulary.texts, vocabulary.kinds, strict=True) if kind != CONTROL}
    for text, score in zip(vocabulary.texts, vocabulary.scores, strict=True):
        if text not in known or len(text) > MAX_TOKEN_CHARACTERS:
            continue
        for place in range(1, len(text)):
            if text[:place] in known and text[place:] in known:
                yield score, (text[:place], text[place:])


def _pairs(vocabulary: Vocabulary, merges: list[tuple[str, str]]) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {text: token for token, text in enumerate(vocabulary.texts)},
        "merges": merges,
    }


def _special_ids(container: Container, vocabulary: Vocabulary) -> tuple[int | None, int | None]:
    """BOS and EOS; a SentencePiece vocabulary that does not say means 1 and 2."""
    is_sentencepiece = container.text("tokenizer.ggml.model") == "llama"

    def token(name: str, usual: int) -> int | None:
        found = container.number(f"tokenizer.ggml.{name}_token_id")
        found = usual if found is None and is_sentencepiece else found
        return found if found is not None and 0 <= found < len(vocabulary.texts) else None

    return token("bos", 1), token("eos", 2)


def _eos_ids(container: Container, vocabulary: Vocabulary, eos: int | None) -> tuple[int, ...]:
    named = [eos, *(container.number(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom"))]
    markers = [token for token, text in enumerate(vocabulary.texts) if text in _ENDS and _is_special(vocabulary, token)]
    ends = [token for token in named if token is not None and 0 <= token < len(vocabulary.texts)]
    return tuple(dict.fromkeys([*ends, *markers]))


def _is_special(vocabulary: Vocabulary, token: int) -> bool:
    return vocabulary.kinds[token] in {CONTROL, USER_DEFINED}


def _added_tokens(container: Container, header: GgufHeader, vocabulary: Vocabulary) -> list[Json]:
    """Tokens that are matched before anything else; control ones are not text for a reader."""
    strips = header.architecture == "phi3" and container.text("tokenizer.ggml.model") == "llama"
    found: list[Json] = []
    for token, (text, kind) in enumerate(zip(vocabulary.texts, vocabulary.kinds, strict=True)):
        if kind in {CONTROL, USER_DEFINED} and text:
            takes_blanks = strips and kind == CONTROL and text not in _OPEN_MARKERS
            blanks = {"single_word": False, "lstrip": False, "rstrip": takes_blanks, "normalized": False}
            found.append({"id": token, "content": text, **blanks, "special": kind == CONTROL})
    return found


def _post_processor(header: GgufHeader, vocabulary: Vocabulary, bos: int | None, eos: int | None) -> Json | None:
    before = bos if header.adds_bos else None
    after = eos if header.adds_eos else None
    ends = {token: _text(vocabulary, token) for token in (before, after) if token is not None}
    if not ends:
        return None

    def around(sequences: tuple[str, ...]) -> list[Json]:
        marks = [[] if t is None else [{"SpecialToken": {"id": ends[t], "type_id": 0}}] for t in (before, after)]
        return [*marks[0], *({"Sequence": {"id": name, "type_id": 0}} for name in sequences), *marks[1]]

    specials = {text: {"id": text, "ids": [token], "tokens": [text]} for token, text in ends.items()}
    both = {"single": around(("A",)), "pair": around(("A", "B"))}
    return {"type": "TemplateProcessing", **both, "special_tokens": specials}


def _config(container: Container, header: GgufHeader, vocabulary: Vocabulary, bos: int | None, eos: int | None) -> Json:
    unknown = container.number("tokenizer.ggml.unknown_token_id")
    padding = container.number("tokenizer.ggml.padding_token_id")
    named = {"bos_token": bos, "eos_token": eos, "unk_token": unknown, "pad_token": padding}
    texts = {name: _text(vocabulary, token) for name, token in named.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": header.adds_bos,
        "add_eos_token": header.adds_eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": header.context_tokens,
        **{name: text for name, text in texts.items() if text},
        **({"chat_template": header.chat_template} if header.chat_template else {}),
    }


def _text(vocabulary: Vocabulary, token: int | None) -> str:
    return vocabulary.texts[token] if token is not None and 0 <= token < len(vocabulary.texts) else ""
