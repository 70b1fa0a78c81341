"""What an answer consists of so far, piece by piece, so that it can be continued token by token. Knows no engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Piece(NamedTuple):
    """Some text of an answer and what it was made of."""

    text: str
    last_token: int
    """-1: not known."""
    num_tokens: int
    """Sampled for it; 0: it was put there."""


class Said:
    """Grows at its end, and can be cut there."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self.num_sampled = 0
        self.num_added = 0
        """Tokens that were put there, at the most."""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(piece.text for piece in self._pieces)

    def add(self, text: str, last_token: int, num_tokens: int) -> None:
        """The model said this."""
        self._pieces.append(Piece(text, last_token, num_tokens))
        self.num_sampled += num_tokens

    def put(self, text: str) -> None:
        """This stands there without having been sampled."""
        if text:
            self._pieces.append(Piece(text, -1, 0))
            self.num_added += len(text.encode())

    def cut(self, num_characters: int) -> None:
        """Take back the last characters."""
        while num_characters > 0 and self._pieces:
            piece = self._pieces.pop()
            kept = piece.text[: max(0, len(piece.text) - num_characters)]
            num_characters -= len(piece.text)
            if kept:
                self._pieces.append(Piece(kept, -1, piece.num_tokens))
            else:
                self.num_sampled -= piece.num_tokens

    def tokens(self, encode: Callable[[str], list[int]]) -> list[int]:
        """Its token ids: those that were sampled, as far as they are known; `encode` gives the others."""
        tokens: list[int] = []
        for piece in self._pieces:
            if piece.num_tokens == 1 and piece.last_token >= 0:
                tokens.append(piece.last_token)
                continue
            encoded = encode(piece.text)
            # Some vocabularies put a space before whatever begins a text: here it is no beginning.
            is_same = 0 < piece.num_tokens <= len(encoded) and encoded[-1] == piece.last_token
            tokens += encoded[-piece.num_tokens :] if is_same else encoded
        return tokens

    def known_tokens(self) -> list[int]:
        """Its first token ids, up to the first that is not known."""
        tokens: list[int] = []
        for piece in self._pieces:
            if piece.num_tokens != 1 or piece.last_token < 0:
                break
            tokens.append(piece.last_token)
        return tokens
