"""How byte-level vocabularies cut text into words before pairs are merged, by GGUF's name (`tokenizer.ggml.pre`).

Each pattern cuts what the one before it left whole. Data only.
"""

from __future__ import annotations

from typing import Final

_ENDINGS: Final = r"'s|'t|'re|'ve|'m|'ll|'d"
_ANY_ENDINGS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS: Final = r"\s+(?!\S)|\s+"
_GPT2: Final = rf"{_ENDINGS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_BLANKS}"
_DIGITS: Final = r"\p{N}"


def _words(digits: str) -> str:
    """GPT-4's pattern: a word takes one sign before it, line breaks stay together, digits go by `digits`."""
    letters = rf"{_ANY_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+"
    return rf"{letters}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|{_BLANKS}"


def _cased_words(ending: str, digits: str) -> str:
    """The pattern that also cuts where small letters are followed by a capital."""
    capitals, smalls = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    sign = r"[^\r\n\p{L}\p{N}]?"
    letters = rf"{sign}{capitals}*{smalls}+{ending}|{sign}{capitals}+{smalls}*{ending}"
    return rf"{letters}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_BLANKS}"


_DEFAULT: Final = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_DIGIT_BY_DIGIT: Final = (_DIGITS, _GPT2)
_LLAMA3: Final = (_words(r"\p{N}{1,3}"),)
_QWEN2: Final = (_words(_DIGITS),)

SPLITTERS: Final[dict[str, tuple[str, ...]]] = {
    "default": _DEFAULT,
    "gpt-2": (_GPT2,),
    "phi-2": (_GPT2,),
    "mpt": (_GPT2,),
    "olmo": (_GPT2,),
    "jais": (_GPT2,),
    "smollm": _DIGIT_BY_DIGIT,
    "starcoder": _DIGIT_BY_DIGIT,
    "refact": _DIGIT_BY_DIGIT,
    "command-r": _DIGIT_BY_DIGIT,
    "codeshell": _DIGIT_BY_DIGIT,
    "exaone": _DIGIT_BY_DIGIT,
    "minerva-7b": _DIGIT_BY_DIGIT,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "falcon3": _LLAMA3,
    "pixtral": _LLAMA3,
    "dbrx": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "stablelm2": _QWEN2,
    "hunyuan": _QWEN2,
    "megrez": _QWEN2,
    "gpt-4o": (_cased_words(rf"{_ANY_ENDINGS}?", r"\p{N}{1,3}"),),
    "llama4": (_cased_words(rf"{_ANY_ENDINGS}?", r"\p{N}{1,3}"),),
    "tekken": (_cased_words("", _DIGITS),),
}

WHOLE_WORD_SPLITTERS: Final = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken"})
"""Those whose vocabulary takes a word that is a token as it is, whatever the merges say."""
