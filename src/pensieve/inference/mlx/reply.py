"""From the engine's tokens to the events of one answer: text, thinking, tool calls, stop strings. On the event loop."""

from __future__ import annotations

from collections.abc import Iterable

from pensieve.config.settings import GenerationSettings
from pensieve.errors import PensieveError
from pensieve.generation import (
    Finished,
    GenerationEvent,
    PromptProgress,
    Started,
    TokenLogprob,
    Usage,
)
from pensieve.inference.ending import ending, joined
from pensieve.inference.logprobs import PendingLogprobs
from pensieve.inference.mlx.runner import Probabilities
from pensieve.inference.mlx.sequence import Began, Ended, Failed, Item, Read, Spoke
from pensieve.inference.mlx.tokenizer import MlxTokenizer
from pensieve.inference.parsing.parser import OutputParser
from pensieve.inference.repetition import RepetitionGuard


class Reply:
    """The events of one sequence, from its items in order."""

    def __init__(
        self,
        num_prompt_tokens: int,
        parser: OutputParser,
        tokenizer: MlxTokenizer,
        *,
        turn_stop: Iterable[str] = (),
        guard: RepetitionGuard | None = None,
    ) -> None:
        """`turn_stop` are those of the parser's stop strings that end a turn of the prompt format itself."""
        self.finished: Finished | None = None
        self.failure: PensieveError | None = None
        """What ended the sequence instead; raise it once the events before it are out."""
        self._num_prompt_tokens = num_prompt_tokens
        self._parser = parser
        self._guard = guard or RepetitionGuard(GenerationSettings(repetition_guard="off"))
        self._tokenizer = tokenizer
        self._stream = tokenizer.stream()
        self._turn_stop = frozenset(turn_stop)
        self._num_cached = self._num_read = 0
        self._num_spoken = 0
        self._logprobs = PendingLogprobs()

    @property
    def has_stopped(self) -> bool:
        """A stop string or a loop ended the answer: what the engine still says is not part of it."""
        return self._parser.matched_stop is not None or self._guard.is_looping

    def take(self, items: Iterable[Item]) -> list[GenerationEvent]:
        """The events of these items; see `failure` for what is no event."""
        events: list[GenerationEvent] = []
        for item in items:
            match item:
                case Spoke(token, probabilities):
                    events += self._heard(token, probabilities)
                case Began(num_cached):
                    self._num_cached = num_cached
                    events.append(Started(self._num_prompt_tokens, num_cached))
                case Read(num_tokens) if num_tokens > self._num_read:  # one that stepped back is read again
                    self._num_read = num_tokens
                    events.append(PromptProgress(num_tokens, self._num_prompt_tokens))
                case Ended():
                    events += self._parsed(self._stream.flush())
                    events += self._ending(item)
                case Failed(error):
                    self.failure = error
        return joined(events)

    def _heard(self, token: int, probabilities: Probabilities | None) -> list[GenerationEvent]:
        """Token by token, so that what is counted and reported ends with the token that completed a stop string."""
        if self.has_stopped:
            return []
        self._num_spoken += 1
        if probabilities is not None:
            self._logprobs.add((self._with_texts(token, probabilities),))
        self._guard.take_tokens((token,))
        return self._parsed(self._stream.add(token))

    def _with_texts(self, token: int, probabilities: Probabilities) -> TokenLogprob:
        text_of = self._tokenizer.token_text
        alternatives = tuple((other, text_of(other), logprob) for other, logprob in probabilities.alternatives)
        return TokenLogprob(token, text_of(token), probabilities.logprob, alternatives)

    def _parsed(self, text: str) -> list[GenerationEvent]:
        events = self._logprobs.attach(self._parser.feed(text)) if text else []
        for event in events:
            self._guard.take_event(event)
        return events

    def _ending(self, ended: Ended) -> list[GenerationEvent]:
        is_cut = ended.reason != "stop" or self._guard.is_looping
        events = self._logprobs.attach(self._parser.flush(is_cut=is_cut))
        usage = Usage(self._num_prompt_tokens, self._num_cached, self._num_spoken)
        reason, matched = ending(self._parser, ended.reason, self._turn_stop)
        if self._guard.is_looping:
            reason, matched = "repetition", None
        self.finished = Finished(reason, usage, matched, ended.timings)
        return [*events, self.finished]
