"""What the store can say of all conversations together. Knows no database."""

from __future__ import annotations

from datetime import datetime

import msgspec


class ModelStats(msgspec.Struct, frozen=True, kw_only=True):
    """What one model was asked and answered."""

    model: str
    num_turns: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over everything that is stored."""

    num_conversations: int
    num_turns: int
    num_interrupted: int
    size_bytes: int
    """Of the file."""
    first: datetime | None
    last: datetime | None
    models: tuple[ModelStats, ...]
    """Most turns first."""

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts, their cached parts included."""
        return sum(each.prompt_tokens for each in self.models)

    @property
    def cached_tokens(self) -> int:
        """Of all prompts, those that were not computed again."""
        return sum(each.cached_tokens for each in self.models)

    @property
    def completion_tokens(self) -> int:
        """Of all answers."""
        return sum(each.completion_tokens for each in self.models)
