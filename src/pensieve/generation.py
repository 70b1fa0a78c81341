"""A request to a backend, the events it answers with, and `collect`, which folds the events into an answer.

Every accepted request ends in exactly one `Finished` or one error. Knows no wire format and no engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Literal

import msgspec

from pensieve.errors import BackendFailure
from pensieve.messages import Json, Message, Part, TextPart, ThinkingPart, ToolCallPart, ToolSpec
from pensieve.sampling.params import SamplingParams

FinishReason = Literal["stop", "length", "stop_string", "tool_calls", "context_full", "refusal", "repetition"]
"""Why generation ended: `length` is `max_tokens` reached, `context_full` the context window reached."""


class ToolChoice(msgspec.Struct, frozen=True):
    """Which tools may or must be called; `name` only with mode `tool`."""

    mode: Literal["auto", "any", "tool", "none"] = "auto"
    name: str = ""
    is_parallel_allowed: bool = True


class Thinking(msgspec.Struct, frozen=True):
    """Whether the model thinks first, and for how many tokens at most (None: the model's choice)."""

    mode: Literal["enabled", "adaptive", "disabled"] = "adaptive"
    budget_tokens: int | None = None
    is_shown: bool = True


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a backend needs to answer once. `max_tokens` None means: as much as the context allows."""

    id: str
    model: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    sampling: SamplingParams = SamplingParams()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    thinking: Thinking | None = None
    output_schema: Json = None
    logit_bias: dict[int, float] = {}
    """Token id -> what is added to its logit."""
    stop_tokens: tuple[int, ...] = ()
    """Token ids that end the answer, beside the model's own; they are not part of its text."""
    num_logprobs: int | None = None
    """Alternatives to report with each token; 0 reports the chosen token alone, None nothing."""
    num_answers: int = 1
    """More than one: a backend gives one at a time, `inference.several` asks it for all of them."""
    text: str = ""
    """Goes on from this text as it stands, without messages and without a template, instead."""
    affinity_key: str = ""
    """Requests with the same key belong to one session and share a cached prefix best."""
    deadline_seconds: float | None = None
    """Give up this long after the request was accepted; None: never."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request; `prompt_tokens` is the whole prompt, its cached part included."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Timings(msgspec.Struct, frozen=True):
    """Where the time of one answer went. Waiting in the queue counts from the request's arrival in the engine."""

    queue_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    """From the first token to the last."""
    time_to_first_token_seconds: float = 0.0
    peak_memory_bytes: int = 0
    """Of the engine while the request ran, weights included; 0: the engine cannot say."""


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token of the answer and what else could have stood there, most likely first."""

    token: int
    text: str
    logprob: float
    alternatives: tuple[tuple[int, str, float], ...] = ()
    """Token id, its text, its natural logarithm of probability."""


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The request left the queue; comes before prefill, with the true size of the prompt."""

    prompt_tokens: int
    cached_tokens: int


class PromptProgress(msgspec.Struct, frozen=True, tag="progress"):
    """Prefill has come this far; cached tokens count as processed."""

    processed_tokens: int
    total_tokens: int


class ThinkingDelta(msgspec.Struct, frozen=True, tag="thinking"):
    """More thinking text."""

    text: str


class ThinkingFinished(msgspec.Struct, frozen=True, tag="thinking_end"):
    """The thinking block is complete; the signature is for clients that echo it."""

    signature: str = ""


class TextDelta(msgspec.Struct, frozen=True, tag="text"):
    """More answer text, with its tokens' probabilities where they were asked for."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolCallStarted(msgspec.Struct, frozen=True, tag="tool_start"):
    """A tool call begins; its deltas follow until `ToolCallFinished`."""

    id: str
    name: str


class ToolCallDelta(msgspec.Struct, frozen=True, tag="tool_delta"):
    """More of the call's arguments, as JSON text."""

    id: str
    json: str


class ToolCallFinished(msgspec.Struct, frozen=True, tag="tool_end"):
    """The call's arguments are complete."""

    id: str


class Switched(msgspec.Struct, frozen=True, tag="switched"):
    """What follows belongs to another of the answers that one request asked for; the first has index 0."""

    index: int


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The last event of every answered request; `stop_string` only with reason `stop_string`."""

    reason: FinishReason
    usage: Usage
    stop_string: str | None = None
    timings: Timings | None = None
    """None: the backend does not measure."""


GenerationEvent = (
    Started
    | PromptProgress
    | ThinkingDelta
    | ThinkingFinished
    | TextDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallFinished
    | Switched
    | Finished
)


class Answer(msgspec.Struct, frozen=True):
    """A whole answer: what `collect` makes of the events."""

    message: Message
    reason: FinishReason
    usage: Usage
    stop_string: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens of its text, where they were asked for."""
    others: tuple[Answer, ...] = ()
    """Further answers to the same request; `usage` counts them all."""


class Collector:
    """Folds events one by one; `message` is what has been said so far, also when the stream broke off."""

    def __init__(self) -> None:
        self._logprobs: list[TokenLogprob] = []
        self._others: dict[int, Collector] = {}
        self._index = 0
        self._parts: list[Part] = []
        self._open: TextPart | ThinkingPart | None = None
        self._fragments: list[str] = []
        self._call: ToolCallStarted | None = None
        self.finished: Finished | None = None

    def add(self, event: GenerationEvent) -> None:
        """Take the next event in."""
        if isinstance(event, Switched):
            self._index = event.index
        elif self._index:
            self._others.setdefault(self._index, Collector()).add(event)
        else:
            self._take(event)

    def _take(self, event: GenerationEvent) -> None:
        match event:
            case TextDelta(text, logprobs):
                self._extend(TextPart(""), text)
                self._logprobs += logprobs
            case ThinkingDelta(text):
                self._extend(ThinkingPart(""), text)
            case ThinkingFinished(signature):
                self._close(signature)
            case ToolCallStarted():
                self._close()
                self._call = event
            case ToolCallDelta(_, json):
                self._fragments.append(json)
            case ToolCallFinished():
                self._close_call()
            case Finished():
                self._close()
                self.finished = event
            case Started() | PromptProgress() | Switched():
                pass

    @property
    def message(self) -> Message:
        """The assistant's message so far; an unfinished tool call is not in it."""
        still_open = () if self._open is None else (self._completed(self._open, ""),)
        return Message("assistant", (*self._parts, *still_open))

    @property
    def answer(self) -> Answer:
        """The whole answer, once every one of them has `Finished`."""
        finished = self.finished
        assert finished is not None, "a backend's stream ended without Finished"
        others = tuple(self._others[index].answer for index in sorted(self._others))
        usages = [finished.usage, *(other.usage for other in others)]
        usage = max(usages, key=lambda each: each.completion_tokens)
        return Answer(self.message, finished.reason, usage, finished.stop_string, tuple(self._logprobs), others)

    def _extend(self, empty: TextPart | ThinkingPart, text: str) -> None:
        if type(self._open) is not type(empty):
            self._close()
            self._open = empty
        self._fragments.append(text)

    def _completed(self, part: TextPart | ThinkingPart, signature: str) -> TextPart | ThinkingPart:
        text = "".join(self._fragments)
        return TextPart(text) if isinstance(part, TextPart) else ThinkingPart(text, signature)

    def _close(self, signature: str = "") -> None:
        if self._open is not None:
            self._parts.append(self._completed(self._open, signature))
        if signature and not isinstance(self._open, ThinkingPart):
            self._parts.append(ThinkingPart("", signature))  # thinking that was not shown; its producer reads it back
        self._open = None
        self._fragments.clear()

    def _close_call(self) -> None:
        if self._call is None:
            return
        try:
            arguments = msgspec.json.decode("".join(self._fragments) or "{}", type=dict[str, Json])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise BackendFailure(f"the arguments of {self._call.name} are not a JSON object: {error}") from error
        self._parts.append(ToolCallPart(self._call.id, self._call.name, arguments))
        self._call = None
        self._fragments.clear()


async def collect(events: AsyncIterable[GenerationEvent]) -> Answer:
    """The whole answer of a stream of events; the stream's own errors pass through."""
    collector = Collector()
    async for event in events:
        collector.add(event)
    return collector.answer
