"""Events to the chunks of a Chat Completions stream: one state machine per answer, without I/O.

On the path of every token: chunks are joined from bytes made once per answer. A sign of life is a comment, which the
format has for that: every client passes it over.
"""

from __future__ import annotations

import msgspec

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
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    Usage,
)
from pensieve.messages import Json
from pensieve.wire.exchange import Label
from pensieve.wire.openai.answers import Shown, encode_answer, encode_ending, encode_logprobs, encode_usage
from pensieve.wire.openai.errors import encode_error
from pensieve.wire.sse import json_text, mended

PING = b": still working\n\n"
DONE = b"data: [DONE]\n\n"


class ChunkManner(msgspec.Struct, frozen=True):
    """How a client wants its stream."""

    shows: Shown = Shown()
    has_usage: bool = False
    """Token counts come in a chunk of their own at the end."""
    has_early_usage: bool = False
    """Those of the prompt come with the first chunk, too."""
    num_answers: int = 1


PLAIN = ChunkManner()


def data_frame(data: Json) -> bytes:
    """A frame without a name."""
    return b"data: %b\n\n" % msgspec.json.encode(data)


class ChunkEncoder:
    """Turns the events of one request's answers into chunks."""

    def __init__(self, label: Label, manner: ChunkManner = PLAIN) -> None:
        self._label = label
        self._manner = manner
        self._index = 0
        self._num_open = manner.num_answers
        self._num_calls: dict[int, int] = {}
        self._begun: set[int] = set()
        self._head: Json = {
            "id": label.answer_id,
            "object": "chat.completion.chunk",
            "created": label.created_seconds,
            "model": label.model,
        }
        self._tail = (
            b',"logprobs":null,"finish_reason":null}]' + (b',"usage":null' if manner.has_usage else b"") + b"}\n\n"
        )
        self._opening = b""
        self._turn_to(0)

    def encode(self, event: GenerationEvent) -> bytes:
        """All frames that this event causes; empty if none."""
        match event:
            case TextDelta(text, logprobs):
                return self._text(text, logprobs) if text or logprobs else b""
            case ThinkingDelta(text):
                quoted = json_text(text)
                return (
                    self._delta(b'"reasoning_content":%b,"reasoning":%b' % (quoted, quoted))
                    if self._tells(text)
                    else b""
                )
            case ToolCallStarted(call_id, name):
                return self._call(call_id, name)
            case ToolCallDelta(_, json):
                return self._arguments(json) if json else b""
            case Started():
                return self._start(0, Usage(event.prompt_tokens, event.cached_tokens))
            case Switched(index):
                self._turn_to(index)
                return self._start(index)
            case Finished():
                return self._finish(event)
            case PromptProgress() | ThinkingFinished() | ToolCallFinished():
                return b""

    def whole(self, answer: Answer) -> dict[str, Json]:
        """The same answer in one piece."""
        label = self._label
        return encode_answer(
            answer,
            answer_id=label.answer_id,
            model=label.model,
            created_seconds=label.created_seconds,
            shows=self._manner.shows,
        )

    def ping(self) -> bytes:
        """A sign of life."""
        return PING

    def error(self, error: PensieveError) -> bytes:
        """The last frame of a stream that failed."""
        return data_frame(encode_error(error, self._label.request_id))

    def _tells(self, thinking: str) -> bool:
        return bool(thinking) and self._manner.shows.thinking

    def _turn_to(self, index: int) -> None:
        self._index = index
        head = msgspec.json.encode(self._head)[:-1]
        self._opening = b'data: %b,"choices":[{"index":%d,"delta":{' % (head, index)

    def _start(self, index: int, usage: Usage | None = None) -> bytes:
        if index in self._begun:
            return b""
        self._begun.add(index)
        early = usage if self._manner.has_early_usage else None
        return self._chunk({"role": "assistant", "content": ""}, usage=early)

    def _text(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        if not (logprobs and self._manner.shows.logprobs):
            return self._delta(b'"content":%b' % json_text(text))
        return self._chunk({"content": mended(text)}, logprobs=encode_logprobs(logprobs))

    def _call(self, call_id: str, name: str) -> bytes:
        place = self._num_calls[self._index] = self._num_calls.get(self._index, -1) + 1
        call = {"index": place, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        return self._chunk({"tool_calls": [call]})

    def _arguments(self, json: str) -> bytes:
        place = self._num_calls.get(self._index, 0)
        return self._delta(b'"tool_calls":[{"index":%d,"function":{"arguments":%b}}]' % (place, json_text(json)))

    def _finish(self, finished: Finished) -> bytes:
        frames = self._chunk({}, ending=encode_ending(finished.reason, finished.stop_string))
        self._num_open -= 1
        if self._num_open:
            return frames
        if self._manner.has_usage:
            frames += data_frame(self._head | {"choices": [], "usage": encode_usage(finished.usage)})
        return frames + DONE

    def _delta(self, fields: bytes) -> bytes:
        return self._opening + fields + b"}" + self._tail

    def _chunk(self, delta: Json, *, logprobs: Json = None, ending: Json = None, usage: Usage | None = None) -> bytes:
        choice = {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        chunk = self._head | {"choices": [choice | (ending or {})]}
        if usage is not None or self._manner.has_usage:
            chunk["usage"] = None if usage is None else encode_usage(usage)
        return data_frame(chunk)
