"""OpenAI's oldest API: text that a model goes on from. Requests, answers and chunks; knows no server and no backend.

The text reaches the model as it stands, without a template and without a role.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest, PensieveError
from pensieve.generation import (
    Answer,
    Finished,
    GenerationEvent,
    GenerationRequest,
    Started,
    Switched,
    TextDelta,
    TokenLogprob,
)
from pensieve.messages import Json
from pensieve.wire.body import check, parse_object, unknown_fields
from pensieve.wire.exchange import Label, Settled
from pensieve.wire.openai.answers import encode_ending, encode_usage
from pensieve.wire.openai.chat import StreamOptions
from pensieve.wire.openai.encoder import DONE, PING, data_frame
from pensieve.wire.openai.errors import encode_error
from pensieve.wire.openai.sampling import (
    SamplingBody,
    decode_affinity,
    decode_bias,
    decode_sampling,
    decode_stop,
)
from pensieve.wire.sse import mended

DEFAULT_TOKENS = 16
"""What the API says of a request that does not say it."""


class CompletionBody(SamplingBody, frozen=True, kw_only=True, omit_defaults=True):
    """The whole body. The fields typed `Json` are known and change nothing here."""

    model: Annotated[str, Meta(min_length=1)]
    prompt: str | tuple[Json, ...]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: int | None = None
    suffix: str | None = None


class CompletionExchange(msgspec.Struct, frozen=True):
    """A request, and how its answer is wanted."""

    request: GenerationRequest
    is_stream: bool
    unknown_fields: tuple[str, ...]
    has_usage: bool = False
    is_echoed: bool = False

    id_prefix: ClassVar[str] = "cmpl-"
    positions: ClassVar[tuple[int, ...]] = ()

    def sent_path(self, path: str) -> str:
        """See `Exchange`."""
        return path

    def settled(self, label: Label) -> Settled | None:
        """See `Exchange`: every request is one for a model."""
        del label
        return None

    def encoder(self, label: Label) -> CompletionEncoder:
        """See `Exchange`."""
        return CompletionEncoder(label, self)


def decode_request(body: bytes, *, request_id: str, affinity_key: str = "") -> CompletionExchange:
    """The request in the body of `POST /v1/completions`; raises `InvalidRequest` with the path of what is wrong."""
    raw = parse_object(body)
    wire = check(raw, CompletionBody)
    if wire.suffix:
        raise InvalidRequest("text cannot be filled in here: send what comes before it alone", path="suffix")
    if wire.best_of not in (None, wire.n or 1):
        raise InvalidRequest("answers are not ranked here: leave it out", path="best_of")
    request = GenerationRequest(
        id=request_id,
        model=wire.model,
        messages=(),
        text=_prompt(wire.prompt),
        sampling=decode_sampling(wire),
        max_tokens=wire.max_tokens or DEFAULT_TOKENS,
        stop=decode_stop(wire.stop),
        stop_tokens=wire.stop_token_ids or (),
        logit_bias=decode_bias(wire.logit_bias),
        num_logprobs=wire.logprobs,
        num_answers=wire.n or 1,
        affinity_key=decode_affinity(wire, affinity_key),
    )
    has_usage = wire.stream_options is not None and bool(wire.stream_options.include_usage)
    return CompletionExchange(request, bool(wire.stream), unknown_fields(raw, wire), has_usage, bool(wire.echo))


class CompletionEncoder:
    """Tells the answers to one request."""

    def __init__(self, label: Label, exchange: CompletionExchange) -> None:
        self._label = label
        self._exchange = exchange
        self._echo = exchange.request.text if exchange.is_echoed else ""
        self._index = 0
        self._num_open = exchange.request.num_answers
        self._num_characters: dict[int, int] = {}
        self._head: dict[str, Json] = {
            "id": label.answer_id,
            "object": "text_completion",
            "created": label.created_seconds,
            "model": label.model,
        }

    def encode(self, event: GenerationEvent) -> bytes:
        """All frames that this event causes; empty if none. Nothing of plain text is thinking or a call."""
        match event:
            case Started():
                return self._chunk(self._echo) if self._echo else b""
            case Switched(index):
                self._index = index
                is_new = index not in self._num_characters
                self._num_characters.setdefault(index, 0)
                return self._chunk(self._echo) if is_new and index and self._echo else b""
            case TextDelta(text, logprobs):
                return self._chunk(text, logprobs)
            case Finished():
                return self._finish(event)
            case _:
                return b""

    def whole(self, answer: Answer) -> dict[str, Json]:
        """The same answer in one piece."""
        choices = [
            self._choice(at, self._echo + each.message.text, each.logprobs, len(self._echo))
            | encode_ending(each.reason, each.stop_string)
            for at, each in enumerate((answer, *answer.others))
        ]
        return self._head | {"choices": choices, "usage": encode_usage(answer.usage)}

    def ping(self) -> bytes:
        """A sign of life."""
        return PING

    def error(self, error: PensieveError) -> bytes:
        """The last frame of a stream that failed."""
        return data_frame(encode_error(error, self._label.request_id))

    def _chunk(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> bytes:
        offset = self._num_characters.get(self._index, 0)
        self._num_characters[self._index] = offset + len(text)
        return self._frame(self._choice(self._index, text, logprobs, offset))

    def _finish(self, finished: Finished) -> bytes:
        ending = encode_ending(finished.reason, finished.stop_string)
        frames = self._frame(self._choice(self._index, "", (), 0) | ending)
        self._num_open -= 1
        if self._num_open:
            return frames
        if self._exchange.has_usage:
            frames += data_frame(self._head | {"choices": [], "usage": encode_usage(finished.usage)})
        return frames + DONE

    def _frame(self, choice: Json) -> bytes:
        usage = {"usage": None} if self._exchange.has_usage else {}
        return data_frame(self._head | {"choices": [choice], **usage})

    def _choice(self, index: int, text: str, logprobs: tuple[TokenLogprob, ...], offset: int) -> dict[str, Json]:
        told = None if self._exchange.request.num_logprobs is None or not logprobs else _logprobs(logprobs, offset)
        return {"index": index, "text": mended(text), "logprobs": told, "finish_reason": None}


def _prompt(prompt: str | tuple[Json, ...]) -> str:
    """The one text; several of them, or token ids, are refused."""
    if isinstance(prompt, tuple):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise InvalidRequest("only one text at a time can be gone on from: send a string", path="prompt")
        prompt = prompt[0]
    if not prompt:
        raise InvalidRequest("must not be empty", path="prompt")
    return prompt


def _logprobs(logprobs: tuple[TokenLogprob, ...], offset: int) -> dict[str, Json]:
    """In the API's older form: four lists of the same length."""
    offsets = []
    for each in logprobs:
        offsets.append(offset)
        offset += len(each.text)
    return {
        "tokens": [each.text for each in logprobs],
        "token_logprobs": [each.logprob for each in logprobs],
        "top_logprobs": [{text: logprob for _, text, logprob in each.alternatives} for each in logprobs],
        "text_offset": offsets,
    }
