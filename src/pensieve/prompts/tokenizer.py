"""The tokenizer, as a protocol: what a backend needs of it, whoever implements it."""

from __future__ import annotations

from typing import Protocol


class Tokenizer(Protocol):
    """Text to token ids. Calls may block; a caller gives each instance one thread of its own."""

    def encode(self, text: str, *, adds_special: bool = True) -> list[int]:
        """Ids of `text`, the vocabulary's markers in it read as such; `adds_special` adds BOS and the like."""
        ...
