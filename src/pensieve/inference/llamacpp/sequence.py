"""One request inside the engine: what it was given and what it has produced.

Chunks are made on an engine thread and read on the event loop; nothing else crosses.
"""

from __future__ import annotations

import asyncio

from pensieve.generation import Finished, FinishReason, GenerationEvent, PromptProgress, Started, TextDelta, Usage
from pensieve.inference.clock import Clock
from pensieve.inference.delivery import Inbox
from pensieve.inference.llamacpp.engine import Chunk
from pensieve.inference.parsing.stops import StopMatcher
from pensieve.sampling.params import SamplingParams


class Sequence:
    """The state of one request; `advance` turns chunks into events."""

    def __init__(
        self,
        sequence_id: str,
        prompt: list[int],
        *,
        sampling: SamplingParams,
        max_tokens: int,
        reason_at_max: FinishReason,
        stop: tuple[str, ...],
        inbox: Inbox[Chunk | None],
        turn_stop: tuple[str, ...] = (),
    ) -> None:
        """`max_tokens` is what really fits; `reason_at_max` says whose limit that is.

        `stop` is the client's; `turn_stop` is how the prompt format itself ends a turn, which the client never sees.
        """
        self.id = sequence_id
        self.prompt = prompt
        self.sampling = sampling
        self.inbox = inbox
        self.admitted = asyncio.Event()
        self.thread: asyncio.Future[None] | None = None
        self.text = ""
        self.is_cancelled = False
        self.is_stepping_back = False
        self.finished: Finished | None = None
        self._max_tokens = max_tokens
        self._reason_at_max = reason_at_max
        self._turn_stop = frozenset(turn_stop) - frozenset(stop)
        self._stops = StopMatcher(stop + turn_stop)
        self._cached_tokens: int | None = None
        self._tokens_before = 0
        self._tokens_now = 0
        self._is_flowing = False
        self._clock = Clock()

    @property
    def completion_tokens(self) -> int:
        """Tokens sampled, those before a step back included."""
        return self._tokens_before + self._tokens_now

    @property
    def remaining_tokens(self) -> int:
        """Tokens that may still be sampled."""
        return self._max_tokens - self.completion_tokens

    @property
    def held_tokens(self) -> int:
        """Tokens in the engine's cache."""
        return len(self.prompt) + self.completion_tokens

    @property
    def most_tokens(self) -> int:
        """The most it can come to hold."""
        return len(self.prompt) + self._max_tokens

    def step_back(self) -> None:
        """The engine let go of this sequence; what it said is rendered as prompt next time."""
        self._tokens_before += self._tokens_now
        self._tokens_now = 0
        self.is_stepping_back = False
        self.admitted.clear()

    def on_chunk(self, chunk: Chunk) -> bool:
        """The engine's callback, on its thread; True cancels."""
        is_text = chunk.cached_tokens is None and not chunk.finish and chunk.error is None
        self.inbox.put(chunk, is_urgent=not (is_text and self._is_flowing))
        self._is_flowing = is_text  # the first text of an answer is urgent, what follows is paced
        return self.is_cancelled or self.is_stepping_back or self.finished is not None

    def advance(self, chunk: Chunk) -> list[GenerationEvent]:
        """The events this chunk causes. Raises the chunk's error."""
        if chunk.error is not None:
            raise chunk.error
        if chunk.cached_tokens is not None:
            return [self._progress(chunk.cached_tokens, chunk.processed_tokens)]
        self._tokens_now = max(self._tokens_now, chunk.completion_tokens)
        self.text += chunk.text
        self._clock.speak()
        shown = self._stops.feed(chunk.text)
        if chunk.finish:
            shown += self._stops.flush()
        events: list[GenerationEvent] = [TextDelta(shown)] if shown else []
        if chunk.finish or self._stops.matched is not None:
            self.finished = self._finish(chunk.finish)
            events.append(self.finished)
        return events

    def _progress(self, cached_tokens: int, processed_tokens: int) -> GenerationEvent:
        if self._cached_tokens is None:
            self._clock.begin()
            self._cached_tokens = cached_tokens
            return Started(len(self.prompt), cached_tokens)
        return PromptProgress(min(processed_tokens, len(self.prompt)), len(self.prompt))

    def _finish(self, finish: str) -> Finished:
        matched = self._stops.matched
        if matched in self._turn_stop:
            matched, finish = None, "stop"
        reason: FinishReason = "stop" if finish == "stop" else self._reason_at_max
        usage = Usage(len(self.prompt), self._cached_tokens or 0, self.completion_tokens)
        return Finished("stop_string" if matched is not None else reason, usage, matched, self._clock.timings())
