"""Requests of the Responses API: bytes to a `GenerationRequest` and back.

Every request brings its whole conversation: nothing is kept here between two of them. Knows no server and no backend;
what the values cannot say is refused with the path of the field.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest, Thinking
from pensieve.messages import Json, Message, TextPart
from pensieve.sampling.params import RANGES, SamplingParams, validate
from pensieve.wire.body import MAX_UNKNOWN_FIELDS, check, parse_object, unknown_fields
from pensieve.wire.exchange import Label, Settled
from pensieve.wire.openai.effort import decode_effort, encode_effort
from pensieve.wire.openai.responses.encoder import EventEncoder
from pensieve.wire.openai.responses.items import AnyItem, MessageItem, NonEmpty, settle
from pensieve.wire.openai.responses.manner import PLAIN, Manner
from pensieve.wire.openai.responses.tools import (
    Choice,
    DecodedTools,
    Tool,
    decode_tool_choice,
    decode_tools,
    encode_tool,
    encode_tool_choice,
)
from pensieve.wire.openai.responses.turns import Placed, decode_items, encode_messages

StopString = Annotated[str, Meta(min_length=1, max_length=1_000)]
MAX_KEY_CHARACTERS = 200
SEALED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
_MESSAGE_PATH = re.compile(r"messages\.(\d+)(?:\.content\.(\d+))?")
_ECHOED = ("instructions", "metadata", "max_output_tokens", "prompt_cache_key", "temperature", "top_p", "user")


class TextFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The shape of the answer's text."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Json] | None = None
    strict: Json = None
    description: Json = None


class TextConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the text is wanted; `verbosity` has no meaning for a local model."""

    format: TextFormat | None = None
    verbosity: Json = None


class ReasoningConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """How hard to think, and whether to tell of it."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class RequestBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole body. The fields typed `Json` are known and change nothing here."""

    model: NonEmpty
    input: str | tuple[AnyItem, ...]
    instructions: str | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: str | Choice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    reasoning: ReasoningConfig | None = None
    text: TextConfig | None = None
    stream: bool | None = None
    stop: StopString | Annotated[tuple[StopString, ...], Meta(max_length=64)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: tuple[str, ...] | None = None
    prompt_cache_key: str | None = None
    previous_response_id: str | None = None
    conversation: Json = None
    background: bool | None = None
    prompt: Json = None
    store: Json = None
    metadata: Json = None
    user: Json = None
    client_metadata: Json = None
    context_management: Json = None
    max_tool_calls: Json = None
    moderation: Json = None
    prompt_cache_options: Json = None
    prompt_cache_retention: Json = None
    safety_identifier: Json = None
    service_tier: Json = None
    stream_options: Json = None
    truncation: Json = None


class DecodedRequest(msgspec.Struct, frozen=True):
    """A request, how its answer is wanted, and the names of the fields that nobody knows."""

    request: GenerationRequest
    is_stream: bool
    unknown_fields: tuple[str, ...]
    manner: Manner = PLAIN
    positions: tuple[int, ...] = ()
    paths: tuple[tuple[str, ...], ...] = ()
    """For each message of the request, where each of its parts stood."""

    id_prefix: ClassVar[str] = "resp_"

    def settled(self, label: Label) -> Settled | None:
        """See `Exchange`."""
        del label
        return None

    def encoder(self, label: Label) -> EventEncoder:
        """See `Exchange`."""
        return EventEncoder(label.answer_id, label.model, created_seconds=label.created_seconds, manner=self.manner)

    def sent_path(self, path: str) -> str:
        """Where the client sent what stands at `path` in the request (`messages.1.content.0`)."""
        found = _MESSAGE_PATH.match(path)
        if found is None or int(found[1]) >= len(self.paths):
            return path
        parts = self.paths[int(found[1])]
        at = int(found[2] or 0)
        return parts[at] + path[found.end() :] if at < len(parts) else path


def decode_request(body: bytes, *, request_id: str, affinity_key: str = "") -> DecodedRequest:
    """The request in the body of `POST /v1/responses`; raises `InvalidRequest` with the path of what is wrong."""
    raw = parse_object(body)
    _refuse_what_is_kept_elsewhere(raw)
    unknown_kinds = settle(raw["input"]) if isinstance(raw.get("input"), list) else ()
    wire = check(raw, RequestBody)
    tools = decode_tools(wire.tools or ())
    choice, allowed = decode_tool_choice(
        wire.tool_choice, tools, is_parallel_allowed=wire.parallel_tool_calls is not False
    )
    placed = _decode_conversation(wire)
    request = GenerationRequest(
        id=request_id,
        model=wire.model,
        messages=tuple(each.message for each in placed),
        tools=allowed.specs,
        tool_choice=choice,
        sampling=validate(SamplingParams(**{name: getattr(wire, name) for name in RANGES})),
        max_tokens=wire.max_output_tokens,
        stop=(wire.stop,) if isinstance(wire.stop, str) else wire.stop or (),
        thinking=_decode_thinking(wire.reasoning),
        output_schema=_output_schema(wire.text),
        num_logprobs=_num_logprobs(wire),
        affinity_key=(wire.prompt_cache_key or affinity_key)[:MAX_KEY_CHARACTERS],
    )
    unknown = (*unknown_fields(raw, wire), *_unknown_kinds(unknown_kinds, tools))
    return DecodedRequest(
        request,
        bool(wire.stream),
        unknown[:MAX_UNKNOWN_FIELDS],
        _decode_manner(raw, wire, allowed),
        tuple(each.position for each in placed),
        tuple(each.paths for each in placed),
    )


def encode_request(request: GenerationRequest, *, is_stream: bool) -> dict[str, Json]:
    """The JSON body that `decode_request` reads back; id and deadline do not travel in it."""
    sampling = {name: getattr(request.sampling, name) for name in RANGES}
    thinking, schema = request.thinking, request.output_schema
    body = RequestBody(
        model=request.model,
        input=encode_messages(request.messages),
        tools=tuple(encode_tool(tool) for tool in request.tools) or None,
        tool_choice=encode_tool_choice(request.tool_choice),
        parallel_tool_calls=request.tool_choice.is_parallel_allowed,
        max_output_tokens=request.max_tokens,
        reasoning=None if thinking is None else ReasoningConfig(encode_effort(thinking), "auto"),
        text=None if schema is None else TextConfig(TextFormat("json_schema", "answer", schema, True)),
        stop=request.stop or None,
        stream=is_stream,
        top_logprobs=request.num_logprobs,
        include=(SEALED, LOGPROBS) if request.num_logprobs is not None else (SEALED,),
        prompt_cache_key=request.affinity_key or None,
        store=False,
        **sampling,
    )
    return msgspec.json.decode(msgspec.json.encode(body), type=dict[str, Json])


def _refuse_what_is_kept_elsewhere(raw: dict[str, Json]) -> None:
    """Ignoring these would lose what the client believes to be said."""
    if raw.get("previous_response_id") is not None:
        raise InvalidRequest(
            "answers are not kept here: send the whole conversation as input",
            path="previous_response_id",
            reason="previous_response_not_found",
        )
    if raw.get("conversation") is not None:
        problem = "conversations are not kept here: send the whole conversation as input"
        raise InvalidRequest(problem, path="conversation")
    if raw.get("prompt") is not None:
        raise InvalidRequest("prompts are not kept here: send their text as instructions", path="prompt")
    if raw.get("background"):
        problem = "answers are not kept here for later: wait for this one, or send it as a message batch"
        raise InvalidRequest(problem, path="background")


def _unknown_kinds(items: tuple[str, ...], tools: DecodedTools) -> tuple[str, ...]:
    return (*(f"input.type={kind}" for kind in items), *(f"tools.type={kind}" for kind in tools.left_out))


def _decode_conversation(wire: RequestBody) -> tuple[Placed, ...]:
    items = (MessageItem(role="user", content=wire.input),) if isinstance(wire.input, str) else wire.input
    if isinstance(wire.input, str) and not wire.input:
        raise InvalidRequest("must not be empty", path="input")
    placed = decode_items(items)
    if all(each.message.role == "system" for each in placed):
        raise InvalidRequest("there is nothing to answer: add a user message", path="input")
    if not wire.instructions:
        return placed
    return (Placed(Message("system", (TextPart(wire.instructions),)), ("instructions",)), *placed)


def _decode_thinking(reasoning: ReasoningConfig | None) -> Thinking | None:
    return None if reasoning is None else decode_effort(reasoning.effort)


def _output_schema(text: TextConfig | None) -> Json:
    form = None if text is None else text.format
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "object"}
    if form.schema is None:
        raise InvalidRequest("field is missing", path="text.format.schema")
    return form.schema


def _num_logprobs(wire: RequestBody) -> int | None:
    if wire.top_logprobs is None and LOGPROBS not in (wire.include or ()):
        return None
    return wire.top_logprobs or 0


def _decode_manner(raw: dict[str, Json], wire: RequestBody, tools: DecodedTools) -> Manner:
    reasoning = wire.reasoning or ReasoningConfig()
    summary = reasoning.summary or reasoning.generate_summary
    echoed: dict[str, Json] = {name: raw.get(name) for name in _ECHOED}
    echoed |= {
        "parallel_tool_calls": wire.parallel_tool_calls is not False,
        "reasoning": {"effort": reasoning.effort, "summary": summary},
        "text": raw.get("text") or {"format": {"type": "text"}},
        "tool_choice": raw.get("tool_choice") or "auto",
        "tools": [tool for tool in raw.get("tools") or () if _is_offered(tool)],
        "top_logprobs": wire.top_logprobs or 0,
    }
    return Manner(
        echoed,
        tools.names,
        bool(summary),
        SEALED in (wire.include or ()),
        _num_logprobs(wire) is not None,
    )


def _is_offered(tool: dict[str, Json]) -> bool:
    return tool["type"] in ("function", "custom", "namespace")
