"""Requests of Chat Completions: bytes to a `GenerationRequest` and back.

Knows no server and no backend; what the values cannot say is refused with the path of the field.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest, Thinking
from pensieve.messages import Json
from pensieve.sampling.params import RANGES
from pensieve.wire.body import MAX_UNKNOWN_FIELDS, check, parse_object, unknown_fields
from pensieve.wire.exchange import Label, Settled
from pensieve.wire.openai.answers import Shown
from pensieve.wire.openai.encoder import PLAIN, ChunkEncoder, ChunkManner
from pensieve.wire.openai.sampling import (
    Effort,
    SamplingBody,
    TemplateBody,
    ThinkingBody,
    decode_affinity,
    decode_bias,
    decode_sampling,
    decode_stop,
    decode_thinking,
)
from pensieve.wire.openai.tools import ChoiceBody, ToolBody, decode_tools, encode_tool, encode_tool_choice
from pensieve.wire.openai.turns import Turn, decode_turns, encode_turns

ANY_OBJECT: dict[str, Json] = {"type": "object"}
_OUTPUT_PATH = "output_config.format.schema"
"""Where the engine's refusals say that a schema stands: the Messages API's words."""
_TOOL_PATH = re.compile(r"tools\.(\d+)\.input_schema")

NonEmpty = Annotated[str, Meta(min_length=1)]


class SchemaBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The JSON schema that the answer obeys."""

    name: str = "answer"
    schema: dict[str, Json] | None = None
    description: Json = None
    strict: Json = None


class ResponseFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    """The shape of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaBody | None = None


class StreamOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is told beside the text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Json = None


class ChatBody(SamplingBody, frozen=True, kw_only=True, omit_defaults=True):
    """The whole body. The fields typed `Json` are known and change nothing here."""

    model: NonEmpty
    messages: Annotated[tuple[Turn, ...], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: tuple[ToolBody, ...] | None = None
    tool_choice: ChoiceBody | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: Effort | None = None
    include_reasoning: bool | None = None
    thinking: ThinkingBody | None = None
    chat_template_kwargs: TemplateBody | None = None
    functions: tuple[Json, ...] | None = None
    modalities: tuple[str, ...] | None = None
    audio: Json = None
    function_call: Json = None
    metadata: Json = None
    prediction: Json = None
    prompt_cache_options: Json = None
    prompt_cache_retention: Json = None
    safety_identifier: Json = None
    service_tier: Json = None
    store: Json = None
    verbosity: Json = None
    web_search_options: Json = None


class ChatExchange(msgspec.Struct, frozen=True):
    """A request, how its answer is wanted, and the names of the fields that nobody knows."""

    request: GenerationRequest
    is_stream: bool
    unknown_fields: tuple[str, ...]
    manner: ChunkManner = PLAIN

    id_prefix: ClassVar[str] = "chatcmpl-"

    @property
    def positions(self) -> tuple[int, ...]:
        """See `Exchange`: each message is one of ours."""
        return tuple(range(len(self.request.messages)))

    def sent_path(self, path: str) -> str:
        """See `Exchange`."""
        if path.startswith(_OUTPUT_PATH):
            return f"response_format.json_schema.schema{path.removeprefix(_OUTPUT_PATH)}"
        return _TOOL_PATH.sub(r"tools.\1.function.parameters", path).replace(".source.url", ".image_url.url")

    def settled(self, label: Label) -> Settled | None:
        """See `Exchange`: tools that run elsewhere are left out, and can not be insisted on."""
        del label
        return None

    def encoder(self, label: Label) -> ChunkEncoder:
        """See `Exchange`."""
        return ChunkEncoder(label, self.manner)


def decode_request(body: bytes, *, request_id: str, affinity_key: str = "") -> ChatExchange:
    """The request in the body of `POST /v1/chat/completions`; raises `InvalidRequest` with the path of the mistake."""
    raw = parse_object(body)
    wire = check(raw, ChatBody)
    _refuse(wire)
    tools = decode_tools(wire.tools or (), wire.tool_choice, is_parallel_allowed=wire.parallel_tool_calls is not False)
    thinking = decode_thinking(
        wire.thinking, wire.chat_template_kwargs, wire.reasoning_effort, is_shown=wire.include_reasoning is not False
    )
    request = GenerationRequest(
        id=request_id,
        model=wire.model,
        messages=decode_turns(wire.messages),
        tools=tools.offered,
        tool_choice=tools.choice,
        sampling=decode_sampling(wire),
        max_tokens=wire.max_completion_tokens or wire.max_tokens,
        stop=decode_stop(wire.stop),
        thinking=thinking,
        output_schema=_output_schema(wire.response_format),
        logit_bias=decode_bias(wire.logit_bias),
        stop_tokens=wire.stop_token_ids or (),
        num_logprobs=(wire.top_logprobs or 0) if wire.logprobs else None,
        num_answers=wire.n or 1,
        affinity_key=decode_affinity(wire, affinity_key),
    )
    names = (*unknown_fields(raw, wire), *(f"tools.type={kind}" for kind in tools.unknown_types))
    return ChatExchange(request, bool(wire.stream), names[:MAX_UNKNOWN_FIELDS], _manner(wire))


def encode_request(request: GenerationRequest, *, is_stream: bool) -> dict[str, Json]:
    """The JSON body that `decode_request` reads back; id and deadline do not travel in it."""
    thinking = request.thinking
    schema = request.output_schema
    body = ChatBody(
        model=request.model,
        messages=encode_turns(request.messages),
        max_tokens=request.max_tokens,
        stream=is_stream or None,
        stream_options=StreamOptions(include_usage=True, continuous_usage_stats=True) if is_stream else None,
        tools=tuple(encode_tool(tool) for tool in request.tools) or None,
        tool_choice=encode_tool_choice(request.tool_choice),
        parallel_tool_calls=None if request.tool_choice.is_parallel_allowed else False,
        response_format=None if schema is None else ResponseFormat("json_schema", SchemaBody(schema=schema)),
        logprobs=None if request.num_logprobs is None else True,
        top_logprobs=request.num_logprobs or None,
        include_reasoning=False if thinking is not None and not thinking.is_shown else None,
        thinking=None if thinking is None else ThinkingBody(thinking.mode, thinking.budget_tokens),
        chat_template_kwargs=_template(thinking),
        stop=request.stop or None,
        stop_token_ids=request.stop_tokens or None,
        logit_bias={str(token): bias for token, bias in request.logit_bias.items()} or None,
        n=request.num_answers if request.num_answers > 1 else None,
        prompt_cache_key=request.affinity_key or None,
        **{name: getattr(request.sampling, name) for name in RANGES},
    )
    return msgspec.json.decode(msgspec.json.encode(body), type=dict[str, Json])


def _refuse(wire: ChatBody) -> None:
    """What the values cannot say is refused by name."""
    if wire.functions:
        raise InvalidRequest("this form is no longer supported: send `tools`", path="functions")
    if wire.modalities is not None and set(wire.modalities) - {"text"}:
        raise InvalidRequest("answers are text only", path="modalities")
    if wire.top_logprobs is not None and not wire.logprobs:
        raise InvalidRequest("is only given with logprobs: true", path="top_logprobs")


def _manner(wire: ChatBody) -> ChunkManner:
    options = wire.stream_options or StreamOptions()
    return ChunkManner(
        Shown(thinking=wire.include_reasoning is not False, logprobs=bool(wire.logprobs)),
        has_usage=bool(options.include_usage),
        has_early_usage=bool(options.continuous_usage_stats),
        num_answers=wire.n or 1,
    )


def _output_schema(asked: ResponseFormat | None) -> Json:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return ANY_OBJECT
    if asked.json_schema is None:
        raise InvalidRequest("field is missing", path="response_format.json_schema")
    return ANY_OBJECT if asked.json_schema.schema is None else asked.json_schema.schema


def _template(thinking: Thinking | None) -> TemplateBody | None:
    """For servers that know no other way."""
    if thinking is None or thinking.mode == "adaptive":
        return None
    return TemplateBody(enable_thinking=thinking.mode == "enabled")
