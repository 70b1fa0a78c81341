"""The chunks of a Chat Completions stream to events: one state machine per answer, without I/O.

Reads what any server of that API sends, with its liberties: no counts before the end, calls in one piece. Chunks of
other answers than the first are passed over, since nobody here asks another server for several.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pensieve.errors import BackendFailure
from pensieve.generation import (
    Finished,
    FinishReason,
    GenerationEvent,
    Started,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from pensieve.messages import Json
from pensieve.wire.openai.answers import LogprobsBody, UsageBody, decode_ending, decode_logprobs, decode_usage
from pensieve.wire.openai.errors import decode_error
from pensieve.wire.sse import SseEvent


class FunctionMore(msgspec.Struct, frozen=True):
    """More of a call."""

    name: str | None = None
    arguments: str | None = None


class CallMore(msgspec.Struct, frozen=True):
    """More of one of the calls; the first piece has its id and name."""

    index: int = 0
    id: str | None = None
    function: FunctionMore = FunctionMore()


class Delta(msgspec.Struct, frozen=True):
    """What was said since the last chunk."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[CallMore, ...] | None = None


class ChoiceMore(msgspec.Struct, frozen=True):
    """More of one answer."""

    index: int = 0
    delta: Delta = Delta()
    finish_reason: str | None = None
    stop_reason: Json = None
    logprobs: LogprobsBody | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One frame."""

    choices: tuple[ChoiceMore, ...] = ()
    usage: UsageBody | None = None
    error: Json = None


class ChunkDecoder:
    """Turns the frames of one answer into events; what it cannot be is `BackendFailure`."""

    def __init__(self) -> None:
        self._has_started = False
        self._kind: Literal["", "text", "thinking", "call"] = ""
        self._call_id = ""
        self._call_index = -1
        self._num_made = 0
        self._ending: tuple[FinishReason, str | None] | None = None
        self._usage: UsageBody | None = None

    def decode(self, frame: SseEvent) -> list[GenerationEvent]:
        """The events of this frame; raises the error that it tells of."""
        if frame.data.strip() == "[DONE]":
            return self._done()
        chunk = self._read(frame.data)
        if chunk.error is not None:
            raise decode_error(0, {"error": chunk.error})
        self._usage = chunk.usage or self._usage
        events: list[GenerationEvent] = [] if self._has_started else [self._start()]
        for choice in chunk.choices:
            if choice.index == 0:
                events += self._more(choice)
        return events

    def _read(self, data: str) -> Chunk:
        try:
            return msgspec.json.decode(data, type=Chunk)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise BackendFailure(f"the server's stream is not as the API has it: {str(error)[:200]}") from error

    def _start(self) -> Started:
        self._has_started = True
        usage = decode_usage(self._usage)
        return Started(usage.prompt_tokens, usage.cached_tokens)

    def _more(self, choice: ChoiceMore) -> list[GenerationEvent]:
        delta, events = choice.delta, list[GenerationEvent]()
        if thinking := delta.reasoning_content or delta.reasoning:
            events += [*self._become("thinking"), ThinkingDelta(thinking)]
        text, logprobs = delta.content or delta.refusal, decode_logprobs(choice.logprobs)
        if text or logprobs:
            events += [*self._become("text"), TextDelta(text or "", logprobs)]
        for call in delta.tool_calls or ():
            events += self._call(call)
        if choice.finish_reason is not None:
            events += self._become("")
            self._ending = decode_ending(choice.finish_reason, choice.stop_reason)
        return events

    def _call(self, call: CallMore) -> list[GenerationEvent]:
        events: list[GenerationEvent] = []
        if call.function.name and (self._kind != "call" or call.index != self._call_index):
            events += self._become("")
            self._kind, self._call_index = "call", call.index
            self._num_made += 1
            self._call_id = call.id or f"call_{self._num_made}"
            events.append(ToolCallStarted(self._call_id, call.function.name))
        if call.function.arguments:
            if self._kind != "call":
                raise BackendFailure("the server's stream has arguments of a call that never began")
            events.append(ToolCallDelta(self._call_id, call.function.arguments))
        return events

    def _become(self, kind: Literal["", "text", "thinking"]) -> list[GenerationEvent]:
        """What ends when something of this kind begins."""
        last, self._kind = self._kind, kind
        if last == "thinking" != kind:
            return [ThinkingFinished()]
        return [ToolCallFinished(self._call_id)] if last == "call" else []

    def _done(self) -> list[GenerationEvent]:
        if self._ending is None:
            raise BackendFailure("the server's stream ended in the middle of the answer")
        usage = Usage() if self._usage is None else decode_usage(self._usage)
        return [Finished(*self._finished(usage))]

    def _finished(self, usage: Usage) -> tuple[FinishReason, Usage, str | None]:
        assert self._ending is not None
        reason, stop_string = self._ending
        return reason, usage, stop_string
