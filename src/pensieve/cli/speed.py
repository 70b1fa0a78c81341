"""How fast an answer came, measured from its events. Knows no terminal and no backend."""

from __future__ import annotations

import time

import msgspec

from pensieve.generation import Finished, GenerationEvent, Started, TextDelta, ThinkingDelta, ToolCallStarted


class Speed(msgspec.Struct, frozen=True):
    """What a person notices; None where an answer was too short to tell. Waiting for a model to load counts."""

    time_to_first_token_seconds: float | None
    prefill_tokens_per_second: float | None
    decode_tokens_per_second: float | None
    total_seconds: float


class Stopwatch:
    """Starts when it is made, and takes in the events as they come."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._started: float | None = None
        self._first: float | None = None
        self._finished: float | None = None
        self._prefilled_tokens = 0
        self._completion_tokens = 0

    def add(self, event: GenerationEvent) -> None:
        """Take the next event in, at this moment."""
        now = time.perf_counter()
        match event:
            case Started(prompt_tokens, cached_tokens):
                self._started, self._prefilled_tokens = now, prompt_tokens - cached_tokens
            case TextDelta() | ThinkingDelta() | ToolCallStarted():
                self._first = self._first or now
            case Finished(_, usage):
                self._finished = now
                self._prefilled_tokens = usage.prompt_tokens - usage.cached_tokens
                self._completion_tokens = usage.completion_tokens

    @property
    def speed(self) -> Speed:
        """The measures so far."""
        end = self._finished or time.perf_counter()
        return Speed(
            time_to_first_token_seconds=None if self._first is None else round(self._first - self._begun, 4),
            prefill_tokens_per_second=_rate(self._prefilled_tokens, self._started, self._first),
            # The first token came with the prefill.
            decode_tokens_per_second=_rate(self._completion_tokens - 1, self._first, self._finished),
            total_seconds=round(end - self._begun, 4),
        )


def _rate(num_tokens: int, begin: float | None, end: float | None) -> float | None:
    if begin is None or end is None or end <= begin or num_tokens <= 0:
        return None
    return round(num_tokens / (end - begin), 1)
