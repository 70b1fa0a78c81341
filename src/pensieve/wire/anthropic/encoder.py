"""Events to the frames of a Messages stream: one state machine per answer, without I/O.

On the path of every token: frames are joined from bytes made once per block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pensieve.errors import PensieveError
from pensieve.generation import (
    Answer,
    Finished,
    GenerationEvent,
    PromptProgress,
    Started,
    Switched,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from pensieve.messages import Json
from pensieve.wire.anthropic.answers import encode_answer, encode_extras, encode_stop, encode_usage
from pensieve.wire.anthropic.errors import encode_error
from pensieve.wire.anthropic.manner import PLAIN, Manner
from pensieve.wire.anthropic.signature import MARK, sealed
from pensieve.wire.sse import encode_event, json_text

_PING = encode_event("ping", {"type": "ping"})
_END = b"}}\n\n"
_DELTA_FIELDS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}

Kind = Literal["text", "thinking", "tool_use"]


class EventEncoder:
    """Turns the events of one answer into frames; a block is opened and closed where the kind of event changes."""

    def __init__(
        self,
        message_id: str,
        model: str,
        *,
        request_id: str = "",
        manner: Manner = PLAIN,
        diagnose: Callable[[Started], Json] | None = None,
    ) -> None:
        """`diagnose` says why the prefix cache missed, once it is known what it served."""
        self._message_id = message_id
        self._model = model
        self._request_id = request_id
        self._manner = manner
        self._diagnose = diagnose
        self._hidden: list[str] = []
        self._index = 0
        self._kind: Kind | None = None
        self._delta = b""
        self._started: Started | None = None

    def encode(self, event: GenerationEvent) -> bytes:
        """All frames that this event causes; empty if none."""
        match event:
            case TextDelta(text):
                return self._text("text", text)
            case ThinkingDelta(text):
                return self._text("thinking", text)
            case ToolCallDelta(_, json):
                assert self._kind == "tool_use", "a tool call's delta came outside the call"
                return self._fragment(json) if json else b""
            case ToolCallStarted(call_id, name):
                block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
                return self._close() + self._open("tool_use", block) + self._fragment("")
            case ToolCallFinished():
                return self._close()
            case ThinkingFinished(signature):
                return self._close(signature) if self._kind == "thinking" else b""
            case PromptProgress() | Switched():
                return b""
            case Started():
                return self._start(event)
            case Finished():
                return self._finish(event)

    def whole(self, answer: Answer) -> dict[str, Json]:
        """The same answer in one piece."""
        started = Started(answer.usage.prompt_tokens, answer.usage.cached_tokens)
        diagnostics = self._diagnose(started) if self._diagnose and self._manner.is_diagnosed else None
        return encode_answer(
            answer, message_id=self._message_id, model=self._model, manner=self._manner, diagnostics=diagnostics
        )

    def ping(self) -> bytes:
        """A sign of life."""
        return _PING

    def error(self, error: PensieveError) -> bytes:
        """The last frame of a stream that failed."""
        return encode_event("error", encode_error(error, self._request_id, is_streamed=True))

    def _text(self, kind: Literal["text", "thinking"], text: str) -> bytes:
        if not text:
            return b""
        is_hidden = kind == "thinking" and not self._manner.is_thinking_shown
        if is_hidden:
            self._hidden.append(text)
        if self._kind == kind:
            return b"" if is_hidden else self._fragment(text)
        empty = {"type": "text", "text": ""} if kind == "text" else {"type": kind, "thinking": "", "signature": ""}
        return self._close() + self._open(kind, empty) + (b"" if is_hidden else self._fragment(text))

    def _fragment(self, text: str) -> bytes:
        return self._delta + json_text(text) + _END

    def _open(self, kind: Kind, block: Json) -> bytes:
        assert self._started is not None, "an answer begins with Started"
        self._kind = kind
        delta, field = _DELTA_FIELDS[kind]
        self._delta = (
            f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{self._index},'
            f'"delta":{{"type":"{delta}","{field}":'
        ).encode()
        data = {"type": "content_block_start", "index": self._index, "content_block": block}
        return encode_event("content_block_start", data)

    def _close(self, signature: str = "") -> bytes:
        if self._kind is None:
            return b""
        signed = b""
        if self._kind == "thinking":
            hidden, self._hidden = "".join(self._hidden), []
            delta = {"type": "signature_delta", "signature": signature or (sealed(hidden) if hidden else MARK)}
            data = {"type": "content_block_delta", "index": self._index, "delta": delta}
            signed = encode_event("content_block_delta", data)
        stopped = encode_event("content_block_stop", {"type": "content_block_stop", "index": self._index})
        self._kind = None
        self._index += 1
        return signed + stopped

    def _start(self, started: Started) -> bytes:
        assert self._started is None, "an answer starts once"
        self._started = started
        message: Json = {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": encode_usage(Usage(started.prompt_tokens, started.cached_tokens, 1)),
        }
        if self._manner.is_diagnosed:
            message["diagnostics"] = self._diagnose(started) if self._diagnose else None
        return encode_event("message_start", {"type": "message_start", "message": message}) + _PING

    def _finish(self, finished: Finished) -> bytes:
        assert self._started is not None, "an answer begins with Started"
        data = {
            "type": "message_delta",
            "delta": encode_stop(finished.reason, finished.stop_string),
            "usage": encode_usage(finished.usage),
        }
        return (
            self._close()
            + encode_event("message_delta", data | encode_extras(self._manner))
            + encode_event("message_stop", {"type": "message_stop"})
        )
