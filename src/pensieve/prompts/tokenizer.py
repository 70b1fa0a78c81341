"""The tokenizer, as a protocol: what a backend needs of it, whoever implements it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable


class Tokenizer(Protocol):
    """Text to token ids. Calls may block; a caller gives each instance one thread of its own."""

    def encode(self, text: str, *, adds_special: bool = True) -> list[int]:
        """Ids of `text`, the vocabulary's markers in it read as such; `adds_special` adds BOS and the like."""
        ...


@runtime_checkable
class KnowsMarkers(Protocol):
    """A tokenizer that can tell its markers, so that they can be kept from being read in what people write."""

    def markers(self) -> Mapping[str, bool]:
        """Text of each token that was added to the vocabulary whole -> whether it is a special one."""
        ...
