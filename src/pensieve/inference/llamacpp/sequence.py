"""One request inside the engine: what it was given, what it has said, and the events that follow from that.

Chunks are made on an engine thread and read on the event loop; nothing else crosses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Sequence as Several
from typing import NamedTuple

import msgspec

from pensieve.errors import BackendFailure, PensieveError
from pensieve.generation import (
    Finished,
    FinishReason,
    GenerationEvent,
    PromptProgress,
    Started,
    TokenLogprob,
    Usage,
)
from pensieve.inference.clock import Clock
from pensieve.inference.constraints.constraint import NOT_KEPT
from pensieve.inference.constraints.following import Follower
from pensieve.inference.delivery import Inbox
from pensieve.inference.ending import ending, joined
from pensieve.inference.llamacpp.completion import RANDOM_SEED, Chunk, Run
from pensieve.inference.llamacpp.phases import Phases, Verdict
from pensieve.inference.llamacpp.said import Said
from pensieve.inference.logprobs import PendingLogprobs
from pensieve.inference.parsing.parser import OutputParser
from pensieve.inference.repetition import RepetitionGuard
from pensieve.sampling.params import SamplingParams


class EnginePrompt(msgspec.Struct, frozen=True):
    """A prompt as the engine takes it."""

    tokens: Several[int]
    """Its ids; an image is its digest, as often as it takes tokens."""
    text: str = ""
    """With images: what is sent instead of ids."""
    images: tuple[bytes, ...] = ()


class Limit(msgspec.Struct, frozen=True):
    """How much may be said, and whose limit that is."""

    max_tokens: int
    reason: FinishReason = "length"


class Bound(NamedTuple):
    """What an answer must look like, from where its `Phases` say that it is ruled."""

    lark: str
    """For llama.cpp, which does not tell when it gives a grammar up;"""
    follower: Follower
    """so what comes is followed here too."""


class Sequence:
    """The state of one request: `take` turns chunks into events."""

    def __init__(
        self,
        sequence_id: str,
        prompt: EnginePrompt,
        *,
        parser: OutputParser,
        phases: Phases,
        guard: RepetitionGuard,
        limit: Limit,
        inbox: Inbox[Chunk | None],
        sampling: SamplingParams,
        bound: Bound | None = None,
        turn_stop: Collection[str] = (),
        stop_tokens: Collection[int] = (),
        logit_bias: Mapping[int, float] | None = None,
        specials: Mapping[int, str] | None = None,
        num_logprobs: int | None = None,
    ) -> None:
        """`turn_stop`: those of the parser's stop strings that end a turn of the prompt format itself.

        `specials`: texts of the tokens that llama.cpp may end a turn with; that text is not part of the answer.
        """
        self.id = sequence_id
        self.prompt = prompt
        self.inbox = inbox
        self.admitted = asyncio.Event()
        self.thread: asyncio.Future[None] | None = None
        self.slot: int | None = None
        self.said = Said()
        self.is_cancelled = False
        self.is_stepping_back = False
        self.is_turning = False
        """A phase has ended: what this run still says is dropped, and another one goes on from what was said."""
        self.is_run_over = False
        self.is_let_go = False
        """The engine has said its last word of this run: its slot takes the next one, whenever its thread is back."""
        self.finished: Finished | None = None
        self.failure: PensieveError | None = None
        """What ended the sequence instead; raise it once the events before it are out."""
        self._parser, self._phases, self._guard = parser, phases, guard
        self._limit = limit
        self._sampling, self._bound = sampling, bound
        self._turn_stop, self._stop_tokens = turn_stop, stop_tokens
        self._logit_bias, self._specials = logit_bias or {}, specials or {}
        self._num_logprobs, self._logprobs = num_logprobs, PendingLogprobs()
        self._held: Chunk | None = None
        """A special token: what follows tells whether it ended the turn."""
        self._cached_tokens: int | None = None
        self._has_started = self._is_read_told = self._has_spoken_here = False
        self._num_free: int | None = None
        """Tokens that were sampled before the rule began."""
        self._num_prompt = len(prompt.tokens)
        self._num_read = self._num_now = 0
        self._is_flowing = False
        self._clock = Clock()
        self._put(phases.opening)

    @property
    def is_bound(self) -> bool:
        """A run that begins now obeys a grammar."""
        return self._bound is not None and self._phases.is_ruled

    @property
    def is_pinned(self) -> bool:
        """It is in the middle of what its grammar rules, and can only be continued as long as it runs."""
        return self._num_free is not None and self.said.num_sampled > self._num_free

    def _hears(self) -> bool:
        """What the run says is part of the answer."""
        return not self.is_turning and self.finished is None and self.failure is None

    @property
    def is_reading(self) -> bool:
        """Its prompt is not read yet."""
        return not self._clock.has_spoken

    @property
    def num_read(self) -> int:
        """Tokens of the prompt that the engine holds."""
        return self._num_read

    @property
    def has_just_read(self) -> bool:
        """Its prompt is read in the slot where it sits, and nobody has been told yet."""
        return self._has_spoken_here and not self._is_read_told

    @property
    def reading(self) -> tuple[int, float]:
        """How many tokens were read at first, and how many seconds that took; counts as told."""
        self._is_read_told = True
        return self._num_prompt - (self._cached_tokens or 0), self._clock.timings().prefill_seconds

    @property
    def engine_tokens(self) -> list[int]:
        """What the engine's cache holds for sure when the run is over."""
        if not self._has_spoken_here:
            return list(self.prompt.tokens[: self._num_read])
        return [*self.prompt.tokens, *self.said.known_tokens()]

    @property
    def remaining_tokens(self) -> int:
        """Tokens that may still be sampled."""
        added = self.said.num_added if self._limit.reason == "context_full" else 0
        return self._limit.max_tokens - self.said.num_sampled - added

    @property
    def held_tokens(self) -> int:
        """Tokens in the engine's cache, at the most."""
        return len(self.prompt.tokens) + self.said.num_sampled + self.said.num_added

    @property
    def most_tokens(self) -> int:
        """The most it can come to hold."""
        return len(self.prompt.tokens) + self._limit.max_tokens + self.said.num_added

    def tokens(self, encode: Callable[[str], list[int]]) -> list[int]:
        """Ids of all that the engine must have read before it goes on. Blocks while `encode` does."""
        return [*self.prompt.tokens, *self.said.tokens(encode)]

    def run(self, tokens: list[int]) -> Run:
        """What the engine is to do next; `tokens` as given above."""
        sampling = self._sampling
        if sampling.seed is not None and self.said.num_sampled:  # the same draws a second time would be no chance
            sampling = msgspec.structs.replace(sampling, seed=(sampling.seed + self.said.num_sampled) % RANDOM_SEED)
        return Run(
            tokens,
            sampling,
            self.remaining_tokens,
            text=self.prompt.text + self.said.text if self.prompt.images else "",
            images=self.prompt.images,
            lark=self._bound.lark if self._bound is not None and self._phases.is_ruled else "",
            logit_bias=self._logit_bias,
            slot=-1 if self.slot is None else self.slot,
            num_logprobs=self._num_logprobs,
        )

    def step_back(self) -> None:
        """Its seat is needed: it waits to be admitted again."""
        self.admitted.clear()
        self.is_stepping_back = False

    def sit(self, slot: int) -> None:
        """It has this slot, where what it needs is not read yet."""
        self.slot = slot
        self._is_read_told = self._has_spoken_here = False
        self._num_read = 0

    def begin_run(self) -> None:
        """The engine let go of this sequence; another run follows from what was said."""
        self.is_turning = self.is_run_over = self.is_let_go = False
        self._num_now, self._held = 0, None
        if self.is_bound:
            self._num_free = self.said.num_sampled

    def on_chunk(self, chunk: Chunk) -> bool:
        """The engine's callback, on its thread; True cancels."""
        is_text = chunk.cached_tokens is None and not chunk.finish and chunk.error is None
        self.inbox.put(chunk, is_urgent=not (is_text and self._is_flowing))
        self._is_flowing = is_text  # the first text of an answer is urgent, what follows is paced
        return self.is_cancelled or self.is_stepping_back or not self._hears()

    def take(self, chunks: Iterable[Chunk | None]) -> list[GenerationEvent]:
        """The events of these chunks; see `failure` for what is no event."""
        events: list[GenerationEvent] = []
        for chunk in chunks:
            if chunk is None:
                self.is_run_over = True
                continue
            self.is_let_go = self.is_let_go or bool(chunk.finish)
            if chunk.error is not None and self._hears():
                self.failure = chunk.error
            else:
                events += self._advance(chunk)
            if self.failure is not None:
                break
        return joined(events)

    def _advance(self, chunk: Chunk) -> list[GenerationEvent]:
        """The events this chunk causes."""
        if not self._hears():
            return []
        if chunk.cached_tokens is not None:
            return self._progress(chunk, chunk.cached_tokens)
        self._clock.speak()
        self._has_spoken_here = True
        held, self._held = self._held, None
        events = self._heard(held, ends_turn=chunk.finish == "stop") if held is not None else []
        if not self._hears():
            return events
        if chunk.finish:
            if chunk.completion_tokens > self._num_now:  # the bytes of a character that was cut off
                events += self._heard(chunk)
            if not self._hears():
                return events
            if chunk.finish == "stop" and not self._may_end():
                return events
            return events + self._ended("stop" if chunk.finish == "stop" else self._limit.reason)
        if chunk.token in self._specials:
            self._held = chunk
            return events
        return events + self._heard(chunk)

    def _heard(self, chunk: Chunk, *, ends_turn: bool = False) -> list[GenerationEvent]:
        num_tokens, self._num_now = chunk.completion_tokens - self._num_now, chunk.completion_tokens
        ends_turn = ends_turn or chunk.token in self._stop_tokens
        text = chunk.text
        if ends_turn:
            text = text.removesuffix(self._specials.get(chunk.token, text if num_tokens == 1 else ""))
        if chunk.finish != "length" and not self._obeys(text):  # half a character at the limit is no fault
            return []
        self.said.add(text, -1 if ends_turn else chunk.token, num_tokens)
        self._logprobs.add(() if ends_turn else map(self._asked_for, chunk.logprobs))
        events = self._followed(self._phases.take(text, num_tokens)) if text else []
        if self._guard.take_tokens((chunk.token,)):
            return events + self._finish("repetition")
        if chunk.token in self._stop_tokens and self._hears():
            return events + self._ended("stop")
        return events

    def _asked_for(self, logprob: TokenLogprob) -> TokenLogprob:
        return msgspec.structs.replace(logprob, alternatives=logprob.alternatives[: self._num_logprobs])

    def _obeys(self, text: str) -> bool:
        """Whether this is what a grammar allows, if one rules; if not, that is the end of it."""
        if self._bound is not None and self.is_bound and text and not self._bound.follower.take(text):
            self.failure = BackendFailure(NOT_KEPT)
        return self.failure is None

    def _may_end(self) -> bool:
        """As `_obeys`, for the end of the answer."""
        if self._bound is not None and self.is_bound and not self._bound.follower.is_whole:
            self.failure = BackendFailure(NOT_KEPT)
        return self.failure is None

    def _followed(self, verdict: Verdict) -> list[GenerationEvent]:
        """What a verdict means for the answer."""
        self.said.cut(verdict.cut_characters)
        self.said.put(verdict.put)
        self.is_turning = verdict.is_over
        events = self._logprobs.attach(self._parser.feed(verdict.shown)) if verdict.shown else []
        if any(self._guard.take_event(event) for event in events):
            return events + self._finish("repetition")
        if self._parser.matched_stop is not None:
            return events + self._finish("stop")
        if self.is_turning and self.remaining_tokens <= 0:
            return events + self._finish(self._limit.reason)
        return events

    def _ended(self, reason: FinishReason) -> list[GenerationEvent]:
        """The run is over by itself; the answer too, unless a constraint still waits."""
        if reason == "stop":
            events = self._followed(self._phases.end())
            if not self._hears():
                return events
            return events + self._finish(reason)
        return self._finish(reason)

    def _finish(self, reason: FinishReason) -> list[GenerationEvent]:
        rest = self._phases.rest()
        events = self._parser.feed(rest) if rest else []
        events = self._logprobs.attach(events + self._parser.flush(is_cut=reason != "stop"))
        matched = None
        if reason != "repetition":
            reason, matched = ending(self._parser, reason, self._turn_stop)
        usage = Usage(self._num_prompt, self._cached_tokens or 0, self.said.num_sampled)
        self.is_turning = False
        self.finished = Finished(reason, usage, matched, self._clock.timings())
        return [*events, self.finished]

    def _progress(self, chunk: Chunk, cached_tokens: int) -> list[GenerationEvent]:
        if self._cached_tokens is None:
            self._clock.begin()
            self._cached_tokens = cached_tokens
            if self.prompt.images and not self.said.num_added:
                self._num_prompt = chunk.prompt_tokens  # only the engine knows for sure what images take
        total = self._num_prompt
        self._num_read = max(self._num_read, min(chunk.processed_tokens, total))
        if not self._has_started:
            self._has_started = True
            return [Started(total, cached_tokens)]
        return [PromptProgress(self._num_read, total)] if self.is_reading else []

    def _put(self, text: str) -> None:
        self.said.put(text)
        self._parser.feed(text)
