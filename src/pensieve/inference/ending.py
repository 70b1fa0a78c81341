"""What every engine's answers have in common at their end, and between events. Knows no engine."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pensieve.generation import FinishReason, GenerationEvent, TextDelta, ThinkingDelta
from pensieve.inference.parsing.parser import OutputParser


def ending(parser: OutputParser, reason: FinishReason, turn_stop: Collection[str]) -> tuple[FinishReason, str | None]:
    """Why an answer really ended, and by which stop string of the client.

    `reason` is the engine's; `turn_stop` are those of the parser's stop strings that end a turn of the prompt format.
    """
    matched = parser.matched_stop
    if matched in turn_stop:
        return "stop", None
    if reason == "stop" or matched is not None:
        reason = parser.finish_hint or "stop"
    return reason, matched


def joined(events: Iterable[GenerationEvent]) -> list[GenerationEvent]:
    """The same events, with deltas that follow one another made one: each costs a frame to the server."""
    joined: list[GenerationEvent] = []
    for event in events:
        match joined[-1] if joined else None, event:
            case TextDelta(before, logprobs), TextDelta(text, more):
                joined[-1] = TextDelta(before + text, logprobs + more)
            case ThinkingDelta(before), ThinkingDelta(text):
                joined[-1] = ThinkingDelta(before + text)
            case _:
                joined.append(event)
    return joined
