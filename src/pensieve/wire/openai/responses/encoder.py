"""Events to the frames of a Responses stream: one state machine per answer, without I/O.

Each item is opened where the kind of event changes, and closed with all it holds; the last frame holds the whole
response once more. On the path of every token: frames are joined from bytes made once per item.
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
from pensieve.messages import Json, RedactedThinkingPart, TextPart, ThinkingPart, ToolCallPart
from pensieve.wire.openai.answers import encode_logprobs
from pensieve.wire.openai.responses.answers import (
    INCOMPLETE,
    encode_end,
    encode_failure,
    encode_response,
    encode_usage,
)
from pensieve.wire.openai.responses.manner import PLAIN, Manner
from pensieve.wire.openai.responses.telling import Call, TextCall, Thoughts, Words
from pensieve.wire.sse import encode_event, mended

_json = msgspec.json.Encoder().encode
_Open = Words | Thoughts | Call | TextCall


class EventEncoder:
    """Turns the events of one answer into frames."""

    def __init__(self, response_id: str, model: str, *, created_seconds: int = 0, manner: Manner = PLAIN) -> None:
        self._response_id = response_id
        self._model = model
        self._created_seconds = created_seconds
        self._manner = manner
        self._num_frames = 0
        self._is_created = False
        self._started: Started | None = None
        self._open: _Open | None = None
        self._delta = b""
        self._output: list[Json] = []

    def encode(self, event: GenerationEvent) -> bytes:
        """All frames that this event causes; empty if none."""
        match event:
            case TextDelta(text, logprobs):
                return self._say(text, logprobs) if text or logprobs else b""
            case ThinkingDelta(text):
                return self._think(text) if text else b""
            case ToolCallDelta(_, json):
                return self._more(json) if json else b""
            case ToolCallStarted(call_id, name):
                return self._call(call_id, name)
            case ToolCallFinished():
                return self._close()
            case ThinkingFinished(signature):
                return self._seal(signature)
            case PromptProgress() | Switched():
                return b""
            case Started():
                return self._start(event)
            case Finished(reason, usage, stop_string):
                status = (
                    "incomplete" if reason in INCOMPLETE or isinstance(self._open, Call | TextCall) else "completed"
                )
                return self._close(status) + self._end(encode_usage(usage), encode_end(reason, stop_string))

    def ping(self) -> bytes:
        """A sign of life: the response's state once more, which readers take for news, unlike a comment."""
        if not self._is_created:
            return self._create()
        return self._state("queued" if self._started is None else "in_progress")

    def error(self, error: PensieveError) -> bytes:
        """The last frame of a stream that failed."""
        created = b"" if self._is_created else self._create()
        return created + self._end(self._usage(), encode_failure(error))

    def whole(self, answer: Answer) -> dict[str, Json]:
        """The same answer in one piece: what the last frame of its stream holds."""
        logprobs = answer.logprobs
        for part in answer.message.parts:
            self._tell(part, logprobs)
            logprobs = () if isinstance(part, TextPart) else logprobs
        self._close("incomplete" if answer.reason in INCOMPLETE else "completed")
        return self._response(usage=encode_usage(answer.usage), **encode_end(answer.reason, answer.stop_string))

    def _tell(self, part: object, logprobs: tuple[TokenLogprob, ...]) -> None:
        match part:
            case TextPart(text):
                self._say(text, logprobs)
            case ThinkingPart(text, signature):
                self._think(text)
                self._seal(signature)
            case RedactedThinkingPart(data):
                self._seal(data)
            case ToolCallPart(call_id, name, arguments):
                self._call(call_id, name)
                self._more(_json(arguments).decode())
                self._close()

    def _start(self, started: Started) -> bytes:
        assert self._started is None, "an answer starts once"
        created = b"" if self._is_created else self._create()
        self._started = started
        return created + self._state("in_progress")

    def _create(self) -> bytes:
        self._is_created = True
        return self._frame("response.created", response=self._response())

    def _state(self, status: str) -> bytes:
        return self._frame(f"response.{status}", response=self._response(status=status, usage=self._usage()))

    def _usage(self) -> Json:
        """The size of the prompt is known before the answer is."""
        started = self._started
        return None if started is None else encode_usage(Usage(started.prompt_tokens, started.cached_tokens))

    def _say(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> bytes:
        opened = b"" if isinstance(self._open, Words) else self._begin(Words(self._item_id("msg")))
        assert isinstance(self._open, Words)
        told = encode_logprobs(logprobs)["content"] if self._manner.has_logprobs else []
        self._open.logprobs += told
        return opened + self._more(text, b',"logprobs":' + _json(told))

    def _think(self, text: str) -> bytes:
        opened = b"" if isinstance(self._open, Thoughts) else self._begin(self._thoughts())
        return opened + self._more(text)

    def _seal(self, signature: str) -> bytes:
        if not isinstance(self._open, Thoughts):
            if not signature:
                return b""
            opened = self._begin(self._thoughts())
        else:
            opened = b""
        assert isinstance(self._open, Thoughts)
        self._open.signature = signature
        return opened + self._close()

    def _thoughts(self) -> Thoughts:
        manner = self._manner
        return Thoughts(self._item_id("rs"), is_summary=manner.is_summary_wanted, is_sealed=manner.is_thinking_sealed)

    def _call(self, call_id: str, name: str) -> bytes:
        names = self._manner.names
        if name in names.customs:
            return self._begin(TextCall(self._item_id("ctc"), call_id, names.on_wire(name)))
        return self._begin(Call(self._item_id("fc"), call_id, names.on_wire(name)))

    def _item_id(self, prefix: str) -> str:
        num_begun = len(self._output) + (self._open is not None)
        return f"{prefix}_{self._response_id.removeprefix('resp_')}{num_begun:03}"

    def _begin(self, told: _Open) -> bytes:
        closed = self._close()
        self._open = told
        item = told.item("in_progress")
        self._place: dict[str, Json] = {"output_index": len(self._output), "item_id": item["id"]}
        added = self._frame("response.output_item.added", output_index=len(self._output), item=item)
        if told.delta_type:
            fields = {"type": told.delta_type, **self._place, **told.place}
            self._delta = b"event: %b\ndata: %b" % (told.delta_type.encode(), _json(fields)[:-1])
        return closed + added + self._frames(told)

    def _frames(self, told: _Open) -> bytes:
        return b"".join(self._frame(each.type, **self._place, **each.fields) for each in told.opening())

    def _more(self, text: str, more: bytes = b"") -> bytes:
        assert self._open is not None, "a piece came outside an item"
        text = text if text.isascii() else mended(text)
        self._open.pieces.append(text)
        if not self._open.delta_type:
            return b""
        frame = b'%b,"delta":%b%b,"sequence_number":%d}\n\n' % (self._delta, _json(text), more, self._num_frames)
        self._num_frames += 1
        return frame

    def _close(self, status: str = "completed") -> bytes:
        told, self._open = self._open, None
        if told is None:
            return b""
        # A call that was cut has no whole arguments to tell of; it ends as far as it came.
        is_cut = status == "incomplete" and isinstance(told, Call | TextCall)
        closing = [] if is_cut else told.closing()
        item = told.item(status)
        self._output.append(item)
        frames = [self._frame(each.type, **self._place, **each.fields) for each in closing]
        index = self._place["output_index"]
        return b"".join([*frames, self._frame("response.output_item.done", output_index=index, item=item)])

    def _end(self, usage: Json, fields: dict[str, Json]) -> bytes:
        return self._frame(f"response.{fields['status']}", response=self._response(usage=usage, **fields))

    def _response(self, **fields: Json) -> dict[str, Json]:
        return encode_response(
            self._response_id,
            self._model,
            self._created_seconds,
            self._manner.echoed,
            **{"output": list(self._output)} | fields,
        )

    def _frame(self, kind: str, **fields: Json) -> bytes:
        frame = encode_event(kind, {"type": kind, **fields, "sequence_number": self._num_frames})
        self._num_frames += 1
        return frame
