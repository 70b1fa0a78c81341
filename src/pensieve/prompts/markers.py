"""Markers that people write, as `<|im_end|>`, kept apart from those that the template writes: they are only text.

Each kind of marker in a message is rendered as one private character and encoded by itself afterwards, in pieces that
are no markers. Text without markers is encoded just as it was. Knows no template and no vocabulary.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from pensieve.errors import InvalidRequest
from pensieve.prompts.tokenizer import Tokenizer

_PRIVATE: Final = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE))
_PROTECTED_ROLES: Final = frozenset({"user", "system"})
"""What the model said itself may hold its markers, and templates look for them there."""


class MarkerGuard:
    """Hides markers before rendering and encodes them as text afterwards."""

    def __init__(self, markers: Collection[str]) -> None:
        self._markers = tuple(sorted((marker for marker in markers if len(marker) > 1), key=len, reverse=True))
        self._pattern = re.compile("|".join(map(re.escape, self._markers)) or r"(?!)")

    def hide(self, chat: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, str]], dict[str, str]]:
        """The messages with private characters for markers, and which character stands for which."""
        written = [message["content"] for message in chat if message["role"] in _PROTECTED_ROLES]
        found = sorted({match for text in written for match in self._pattern.findall(text)})
        if not found:
            return [dict(message) for message in chat], {}
        taken = {character for message in chat for text in message.values() for character in text}
        free = (chr(code) for code in itertools.chain(*_PRIVATE) if chr(code) not in taken)
        hidden = dict(zip(found, free, strict=False))
        if len(hidden) < len(found):
            raise InvalidRequest("the messages use up Unicode's private characters", "messages")
        return [self._hidden(message, hidden) for message in chat], {mark: text for text, mark in hidden.items()}

    def encode(self, text: str, hidden: Mapping[str, str], tokenizer: Tokenizer, *, adds_special: bool) -> list[int]:
        """Token ids of the rendered text; what was hidden is encoded as the text it is."""
        if not hidden:
            return tokenizer.encode(text, adds_special=adds_special)
        pieces = re.split(f"([{''.join(hidden)}])", text)
        tokens = tokenizer.encode(pieces[0], adds_special=adds_special)
        for piece in pieces[1:]:
            for harmless in self._harmless(hidden[piece]) if piece in hidden else (piece,):
                tokens = tokens + tokenizer.encode(harmless, adds_special=False) if harmless else tokens
        return tokens

    def _hidden(self, message: Mapping[str, str], hidden: Mapping[str, str]) -> dict[str, str]:
        if message["role"] not in _PROTECTED_ROLES:
            return dict(message)
        return {**message, "content": self._pattern.sub(lambda match: hidden[match[0]], message["content"])}

    def _harmless(self, marker: str) -> Sequence[str]:
        """The marker in pieces that hold no marker."""
        halves = (marker[:1], marker[1:])
        return tuple(marker) if self._pattern.search(halves[1]) else halves
