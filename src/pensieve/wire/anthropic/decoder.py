"""The frames of a Messages stream to events: one state machine per answer, without I/O.

A frame out of order is `BackendFailure`; kinds of events, blocks and deltas that are not known are passed over,
as the API asks.
"""

from __future__ import annotations

from typing import TypeVar, get_args

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
    Usage,
)
from pensieve.messages import Json
from pensieve.wire.anthropic.answers import StopDetails, UsageBody, decode_stop_reason, decode_usage
from pensieve.wire.anthropic.errors import decode_error
from pensieve.wire.anthropic.signature import MARK
from pensieve.wire.progress import decode_progress
from pensieve.wire.sse import SseComment, SseEvent


class StartedMessage(msgspec.Struct, frozen=True):
    """The message that begins."""

    usage: UsageBody


class MessageStart(msgspec.Struct, frozen=True, tag_field="type", tag="message_start"):
    """The first frame."""

    message: StartedMessage


class TextStart(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """A text block begins."""

    text: str = ""


class ThinkingStart(msgspec.Struct, frozen=True, tag_field="type", tag="thinking"):
    """A thinking block begins."""

    thinking: str = ""


class ToolUseStart(msgspec.Struct, frozen=True, tag_field="type", tag="tool_use"):
    """A tool call begins; some servers put all of its input here."""

    id: str
    name: str
    input: dict[str, Json] = {}


class PassedOver(msgspec.Struct, frozen=True):
    """A block of a kind that is not known, until it ends."""


class BlockStart(msgspec.Struct, frozen=True, tag_field="type", tag="content_block_start"):
    """A block begins; it is read only if its kind is known."""

    index: int
    content_block: msgspec.Raw


class TextMore(msgspec.Struct, frozen=True, tag_field="type", tag="text_delta"):
    """More text."""

    text: str


class ThinkingMore(msgspec.Struct, frozen=True, tag_field="type", tag="thinking_delta"):
    """More thinking."""

    thinking: str


class Signature(msgspec.Struct, frozen=True, tag_field="type", tag="signature_delta"):
    """The signature of the thinking."""

    signature: str


class InputMore(msgspec.Struct, frozen=True, tag_field="type", tag="input_json_delta"):
    """More of a tool call's input."""

    partial_json: str


class BlockDelta(msgspec.Struct, frozen=True, tag_field="type", tag="content_block_delta"):
    """More of the open block; it is read only if its kind is known."""

    index: int
    delta: msgspec.Raw


class BlockStop(msgspec.Struct, frozen=True, tag_field="type", tag="content_block_stop"):
    """The open block ends."""

    index: int


class StopDelta(msgspec.Struct, frozen=True):
    """Why the message ends."""

    stop_reason: str
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


class MessageDelta(msgspec.Struct, frozen=True, tag_field="type", tag="message_delta"):
    """The message's end, but for the last frame."""

    delta: StopDelta
    usage: UsageBody = UsageBody()


class MessageStop(msgspec.Struct, frozen=True, tag_field="type", tag="message_stop"):
    """The last frame."""


Frame = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop
_KNOWN = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    }
)
_FRAMES = msgspec.json.Decoder(Frame)

Start = TextStart | ThinkingStart | ToolUseStart
More = TextMore | ThinkingMore | Signature | InputMore
_STARTS = {kind.__struct_config__.tag: msgspec.json.Decoder[Start](kind) for kind in get_args(Start)}
_MORES = {kind.__struct_config__.tag: msgspec.json.Decoder[More](kind) for kind in get_args(More)}
_T = TypeVar("_T")


class Kind(msgspec.Struct, frozen=True):
    """What a block or a delta is."""

    type: str


_KINDS = msgspec.json.Decoder(Kind)


class EventDecoder:
    """Turns the frames of one answer into events; `is_finished` is true once nothing is missing."""

    def __init__(self) -> None:
        self._started: Usage | None = None
        self._block: Start | PassedOver | None = None
        self._index = 0
        self._signature = ""
        self._arguments: list[str] = []
        """Of the open call, as JSON text."""
        self._finished: Finished | None = None
        self.is_finished = False

    def decode(self, event: SseEvent | SseComment) -> list[GenerationEvent]:
        """The events in this frame; an `error` frame is raised as the error it tells of."""
        if isinstance(event, SseComment):
            return self._progress(event)
        if event.event == "error":
            raise decode_error(500, event.data.encode())
        if event.event not in _KNOWN:
            return []
        try:
            return self._take(_FRAMES.decode(event.data.encode()))
        except (msgspec.DecodeError, RecursionError) as error:
            raise BackendFailure(f"the server sent a broken {event.event} frame: {error}") from error

    def _progress(self, comment: SseComment) -> list[GenerationEvent]:
        # Believed only where a prompt is read: between the start and the first block.
        is_reading = self._started is not None and self._block is None and not self._index and self._finished is None
        told = decode_progress(comment.text) if is_reading else None
        return [] if told is None else [told]

    def _take(self, frame: Frame) -> list[GenerationEvent]:
        if self._started is None and not isinstance(frame, MessageStart):
            if isinstance(frame, BlockStop):
                return []  # of nothing: the SDKs pass over it too
            raise _misplaced(frame)
        match frame:
            case MessageStart(message):
                return self._start(frame, message)
            case BlockStart():
                return self._open(frame)
            case BlockDelta():
                return self._more(frame)
            case BlockStop():
                return self._close(frame)
            case MessageDelta():
                return self._end(frame)
            case MessageStop():
                return self._stop(frame)

    def _start(self, frame: Frame, message: StartedMessage) -> list[GenerationEvent]:
        if self._started is not None:
            raise _misplaced(frame)
        self._started = decode_usage(message.usage)
        return [Started(self._started.prompt_tokens, self._started.cached_tokens)]

    def _open(self, frame: BlockStart) -> list[GenerationEvent]:
        if self._block is not None or self._finished is not None or frame.index != self._index:
            raise _misplaced(frame)
        block: Start | PassedOver = _read(frame.content_block, _STARTS) or PassedOver()
        self._block = block
        match block:
            case TextStart(text):
                return [TextDelta(text)] if text else []
            case ThinkingStart(text):
                return [ThinkingDelta(text)] if text else []
            case ToolUseStart(call_id, name, given):
                self._arguments = [msgspec.json.encode(given).decode()] if given else []
                return [ToolCallStarted(call_id, name), *(ToolCallDelta(call_id, json) for json in self._arguments)]
            case PassedOver():
                return []

    def _more(self, frame: BlockDelta) -> list[GenerationEvent]:
        if self._block is None or frame.index != self._index:
            raise _misplaced(frame)
        if isinstance(self._block, PassedOver):
            return []
        match self._block, _read(frame.delta, _MORES):
            case _, None:
                return []
            case TextStart(), TextMore(text):
                return [TextDelta(text)] if text else []
            case ThinkingStart(), ThinkingMore(text):
                return [ThinkingDelta(text)] if text else []
            case ThinkingStart(), Signature(signature):
                self._signature = signature
                return []
            case ToolUseStart(call_id), InputMore(fragment):
                self._arguments.append(fragment)
                return [ToolCallDelta(call_id, fragment)] if fragment else []
        raise _misplaced(frame)

    def _close(self, frame: BlockStop) -> list[GenerationEvent]:
        if self._block is None or frame.index != self._index:
            raise _misplaced(frame)
        block, self._block = self._block, None
        signature, self._signature = self._signature, ""
        self._index += 1
        match block:
            case TextStart() | PassedOver():
                return []
            case ThinkingStart():
                return [ThinkingFinished("" if signature == MARK else signature)]
            case ToolUseStart(call_id):
                # A call that was cut is closed on the wire too: its arguments tell that it came to nothing.
                return [ToolCallFinished(call_id)] if _is_whole("".join(self._arguments)) else []

    def _end(self, frame: MessageDelta) -> list[GenerationEvent]:
        if self._finished is not None:
            raise _misplaced(frame)
        assert self._started is not None
        told = decode_usage(frame.usage)
        prompt = self._started if frame.usage.input_tokens is None else told
        usage = Usage(prompt.prompt_tokens, prompt.cached_tokens, told.completion_tokens)
        reason = decode_stop_reason(frame.delta.stop_reason, frame.delta.stop_details)
        self._finished = Finished(reason, usage, frame.delta.stop_sequence)
        # An answer that was cut may end with its block open. A call is whole only if the answer ended for calls.
        is_cut_call = isinstance(self._block, ToolUseStart) and reason != "tool_calls"
        if self._block is None or is_cut_call:
            self._block = None
            return []
        return self._close(BlockStop(self._index))

    def _stop(self, frame: MessageStop) -> list[GenerationEvent]:
        if self._finished is None or self.is_finished:
            raise _misplaced(frame)
        self.is_finished = True
        return [self._finished]


def _is_whole(arguments: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(arguments or "{}"), dict)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return False


def _read(raw: msgspec.Raw, readers: dict[str, msgspec.json.Decoder[_T]]) -> _T | None:
    reader = readers.get(_KINDS.decode(raw).type)
    return None if reader is None else reader.decode(raw)


def _misplaced(frame: Frame) -> BackendFailure:
    return BackendFailure(f"the server sent a {frame.__struct_config__.tag} frame out of order")
