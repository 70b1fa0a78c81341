"""Frames of a Responses stream to events: one state machine per answer, without I/O, strict about order."""

from __future__ import annotations

import msgspec

from pensieve.errors import BackendFailure
from pensieve.generation import (
    Finished,
    GenerationEvent,
    Started,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from pensieve.wire.anthropic.signature import MARK
from pensieve.wire.openai.answers import ChosenBody, LogprobsBody, decode_logprobs
from pensieve.wire.openai.errors import decode_error
from pensieve.wire.openai.responses.answers import EndBody, decode_end, decode_usage
from pensieve.wire.openai.responses.names import INPUT, qualified
from pensieve.wire.sse import SseEvent

_WORDS = frozenset({"response.output_text.delta", "response.refusal.delta"})
_THOUGHTS = frozenset({"response.reasoning_text.delta", "response.reasoning_summary_text.delta"})
_ENDS = frozenset({"response.completed", "response.incomplete"})


class _Item(msgspec.Struct, frozen=True):
    """As much of an item as a stream's reader needs."""

    type: str
    call_id: str = ""
    name: str = ""
    namespace: str | None = None
    status: str | None = None
    encrypted_content: str | None = None


class _Frame(msgspec.Struct, frozen=True):
    """Any frame; each kind has some of the fields."""

    type: str
    item: _Item | None = None
    delta: str = ""
    output_index: int = -1
    response: EndBody | None = None
    logprobs: tuple[ChosenBody, ...] | None = None
    message: str = ""
    code: str | None = None
    param: str | None = None


_FRAMES = msgspec.json.Decoder(_Frame)


class EventDecoder:
    """Turns the frames of one answer into events; `is_finished` is true once nothing is missing."""

    def __init__(self) -> None:
        self._is_started = False
        self._item: _Item | None = None
        self._index = -1
        self._text: list[str] = []
        """Of a tool that takes text."""
        self._has_calls = False
        self.is_finished = False

    def decode(self, event: SseEvent) -> list[GenerationEvent]:
        """The events in this frame; a failure it tells of is raised as the error it was."""
        try:
            frame = _FRAMES.decode(event.data.encode())
        except (msgspec.DecodeError, RecursionError) as error:
            raise BackendFailure(f"the server sent a broken {event.event} frame: {error}") from error
        if self.is_finished:
            raise _misplaced(frame)
        return self._take(frame)

    def _take(self, frame: _Frame) -> list[GenerationEvent]:
        kind = frame.type
        if kind == "error":
            raise decode_error(0, {"error": {"message": frame.message, "code": frame.code, "param": frame.param}})
        if kind == "response.failed":
            raise decode_error(0, {"error": frame.response.error if frame.response else {}})
        if kind in ("response.in_progress", *_ENDS):
            started = self._start(frame.response)
            return [*started, self._end(frame)] if kind in _ENDS else started
        if kind == "response.output_item.added":
            return [*self._start(None), *self._open(frame)]
        if kind == "response.output_item.done":
            return self._close(frame)
        return self._more(frame) if kind.endswith(".delta") else []

    def _start(self, response: EndBody | None) -> list[GenerationEvent]:
        """Servers of others tell the size of the prompt at the end; ours does before."""
        if self._is_started:
            return []
        self._is_started = True
        usage = decode_usage(response.usage if response else None)
        return [Started(usage.prompt_tokens, usage.cached_tokens)]

    def _open(self, frame: _Frame) -> list[GenerationEvent]:
        if self._item is not None or frame.item is None or frame.output_index <= self._index:
            raise _misplaced(frame)
        self._item, self._index, self._text = frame.item, frame.output_index, []
        if frame.item.type in ("function_call", "custom_tool_call"):
            return [ToolCallStarted(frame.item.call_id, qualified(frame.item.namespace, frame.item.name))]
        return []

    def _more(self, frame: _Frame) -> list[GenerationEvent]:
        item, kind = self._item, frame.type
        if item is None or frame.output_index != self._index:
            raise _misplaced(frame)
        if kind in _WORDS:
            logprobs = decode_logprobs(LogprobsBody(frame.logprobs))
            return [TextDelta(frame.delta, logprobs)] if frame.delta or logprobs else []
        if kind in _THOUGHTS:
            return [ThinkingDelta(frame.delta)] if frame.delta else []
        if kind == "response.function_call_arguments.delta":
            return [ToolCallDelta(item.call_id, frame.delta)] if frame.delta else []
        if kind == "response.custom_tool_call_input.delta":
            self._text.append(frame.delta)
        return []

    def _close(self, frame: _Frame) -> list[GenerationEvent]:
        opened, item = self._item, frame.item
        if opened is None or item is None or frame.output_index != self._index:
            raise _misplaced(frame)
        self._item = None
        if opened.type == "reasoning":
            signature = item.encrypted_content or ""
            return [ThinkingFinished("" if signature.startswith(MARK) else signature)]
        if opened.type not in ("function_call", "custom_tool_call") or item.status == "incomplete":
            return []
        self._has_calls = True
        whole: list[GenerationEvent] = [ToolCallFinished(opened.call_id)]
        if opened.type == "custom_tool_call":
            arguments = msgspec.json.encode({INPUT: "".join(self._text)}).decode()
            whole.insert(0, ToolCallDelta(opened.call_id, arguments))
        return whole

    def _end(self, frame: _Frame) -> Finished:
        end = frame.response
        if end is None or self._item is not None:
            raise _misplaced(frame)
        self.is_finished = True
        reason, stop_string = decode_end(end, has_calls=self._has_calls)
        return Finished(reason, decode_usage(end.usage), stop_string)


def _misplaced(frame: _Frame) -> BackendFailure:
    return BackendFailure(f"the server sent a {frame.type[:64]} frame out of order")
