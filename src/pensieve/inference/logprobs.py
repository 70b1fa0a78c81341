"""Gives the probabilities of an answer's tokens to the text that they made. Knows no engine."""

from __future__ import annotations

from collections.abc import Iterable

from pensieve.generation import (
    GenerationEvent,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)


class PendingLogprobs:
    """Those whose text has not been told yet; those of thinking and of calls are dropped."""

    def __init__(self) -> None:
        self._pending: list[TokenLogprob] = []

    def add(self, logprobs: Iterable[TokenLogprob]) -> None:
        """Tokens that were sampled, before the events that their text causes."""
        self._pending += logprobs

    def attach(self, events: list[GenerationEvent]) -> list[GenerationEvent]:
        """The events, text with the probabilities of its tokens."""
        if not self._pending:
            return events
        told: list[GenerationEvent] = []
        for event in events:
            match event:
                case TextDelta(text):
                    told.append(TextDelta(text, tuple(self._pending)))
                    self._pending.clear()
                case ThinkingDelta() | ThinkingFinished() | ToolCallStarted() | ToolCallDelta() | ToolCallFinished():
                    self._pending.clear()
                    told.append(event)
                case _:
                    told.append(event)
        return told
