"""Token ids back to text, one at a time: what a tokenizer's decoder does, at a constant cost for each token.

Each token stands for bytes, and bytes become text as soon as they are whole characters. Knows no MLX and no model.
"""

from __future__ import annotations

import codecs
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

MAX_STEPS: Final = 64
MAX_GROWTH: Final = 64
"""How many times longer replacements may make a token, all together: each may double what the last one made."""
_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>", re.ASCII)


class UnknownDecoder(Exception):
    """The decoder is of a kind that this module does not know."""


class Spelling(NamedTuple):
    """How a vocabulary writes its tokens, told from the decoder of its tokenizer.json."""

    replacements: tuple[tuple[str, str], ...] = ()
    """What stands for something else in a token, as `▁` for a space."""
    is_byte_level: bool = False
    """Each letter of a token stands for one byte."""
    has_byte_tokens: bool = False
    """Tokens such as `<0x0A>` stand for one byte."""
    stripped: str = ""
    """The letter that is taken off the start of the whole text,"""
    num_stripped: int = 0
    """so many times at most."""

    def bytes_of(self, token: str) -> bytes:
        """What the token's text stands for."""
        for old, new in self.replacements:
            token = token.replace(old, new)
        if self.has_byte_tokens and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        if self.is_byte_level:
            letters = _byte_letters()
            if all(letter in letters for letter in token):
                return bytes(letters[letter] for letter in token)
        return token.encode("utf-8", "replace")


class TextStream:
    """The text of one answer as it comes; text that ends inside a character waits for the rest of it."""

    def __init__(self, bytes_of: Callable[[int], bytes], spelling: Spelling) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stripped = spelling.stripped
        self._num_stripped = spelling.num_stripped

    def add(self, token: int) -> str:
        """The text that this token completes; "" while bytes of a character are missing, or for an unknown token."""
        return self._without_start(self._decoder.decode(self._bytes_of(token)))

    def flush(self) -> str:
        """What an unfinished character leaves at the end of the answer: "" or one replacement character."""
        return self._without_start(self._decoder.decode(b"", final=True))

    def _without_start(self, text: str) -> str:
        while text and self._num_stripped:
            if not text.startswith(self._stripped):
                self._num_stripped = 0
                break
            text = text[len(self._stripped) :]
            self._num_stripped -= 1
        return text


def spelling_of(decoder: Mapping[str, Any] | None) -> Spelling:
    """The spelling that a tokenizer.json's `decoder` describes; raises `UnknownDecoder`."""
    spelling = Spelling()
    is_fused = False
    for step in _flat(decoder):
        match step:
            case {"type": "ByteLevel"}:
                spelling = spelling._replace(is_byte_level=True)
            case {"type": "ByteFallback"}:
                spelling = spelling._replace(has_byte_tokens=True)
            case {"type": "Fuse"}:
                is_fused = True
            case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if old and not is_fused:
                spelling = spelling._replace(replacements=(*spelling.replacements, (old, new)))
            case {"type": "Strip", "content": str(letter), "start": int(start), "stop": 0} if is_fused and letter:
                spelling = spelling._replace(stripped=letter, num_stripped=start)
            case {"type": "Metaspace", "replacement": str(mark)} if mark and not is_fused:
                spelling = spelling._replace(replacements=(*spelling.replacements, (mark, " ")))
                if step.get("prepend_scheme", "always") != "never":
                    spelling = spelling._replace(stripped=" ", num_stripped=1)
            case _:
                raise UnknownDecoder(str(step.get("type"))[:40])
    if math.prod(max(1, len(new)) for _, new in spelling.replacements) > MAX_GROWTH:
        raise UnknownDecoder("replacements that make tokens too long")
    return spelling


def _flat(decoder: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    """The steps of a decoder in order, sequences in sequences unrolled."""
    steps: list[Mapping[str, Any]] = []
    waiting: list[Any] = [decoder]
    while waiting:
        step = waiting.pop(0)
        if not isinstance(step, Mapping):
            raise UnknownDecoder("none" if step is None else "malformed")
        if step.get("type") == "Sequence" and isinstance(step.get("decoders"), list):
            waiting[:0] = step["decoders"]
        else:
            steps.append(step)
        if len(steps) + len(waiting) > MAX_STEPS:
            raise UnknownDecoder("a very long sequence")
    return steps


@functools.cache
def _byte_letters() -> Mapping[str, int]:
    """The letter of each byte in GPT-2's vocabularies: printable ones stand for themselves, others follow U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + index): byte for index, byte in enumerate(others)}
