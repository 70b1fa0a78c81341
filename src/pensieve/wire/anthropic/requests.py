"""Requests of the Messages API: bytes to a `GenerationRequest` and back.

Client quirks die here: volatile blocks are dropped, string content and a one-block list become equal.
Knows no server and no backend; what the values cannot say is refused with the path of the field.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest, Thinking, ToolChoice
from pensieve.messages import Json, Message, Part, TextPart, ToolSpec
from pensieve.sampling.params import RANGES, SamplingParams, validate
from pensieve.wire.anthropic.blocks import (
    AnyBlock,
    AssistantBlock,
    NonEmpty,
    TextBlock,
    UserBlock,
    decode_part,
    encode_part,
)
from pensieve.wire.anthropic.body import check, parse_object, unknown_fields

StopString = Annotated[str, Meta(min_length=1, max_length=1_000)]
"""Every stop string is looked for in every piece of text, so that their number and length are bounded."""

_VOLATILE = re.compile(
    r"x-anthropic-billing-header:.*|\s*<total_tokens>[^<]*</total_tokens>\s*",
    re.DOTALL,
)
"""System blocks that change from turn to turn and tell the model nothing: they would spoil the prefix cache."""


class UserMessage(msgspec.Struct, frozen=True, tag_field="role", tag="user"):
    """What the user says, or a tool gave back."""

    content: str | tuple[UserBlock, ...]


class AssistantMessage(msgspec.Struct, frozen=True, tag_field="role", tag="assistant"):
    """What the model said."""

    content: str | tuple[AssistantBlock, ...]


class SystemMessage(msgspec.Struct, frozen=True, tag_field="role", tag="system"):
    """Instructions in the middle of a conversation."""

    content: str | tuple[TextBlock, ...]


WireMessage = UserMessage | AssistantMessage | SystemMessage


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool; one with another `type` than `custom` would run on the server."""

    name: NonEmpty
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Json] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    allowed_callers: Json = None
    cache_control: Json = None
    eager_input_streaming: Json = None
    input_examples: Json = None


class ToolChoiceBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which tools may or must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class ThinkingBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to think; `display` is an open set, of which only `omitted` hides."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    display: str | None = None


class OutputFormat(msgspec.Struct, frozen=True):
    """The JSON schema that the answer obeys."""

    type: Literal["json_schema"]
    schema: dict[str, Json]


class OutputConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The shape of the answer; `effort` has no meaning for a local model."""

    format: OutputFormat | None = None
    effort: str | None = None


class RequestBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole body. The fields typed `Json` are known and change nothing here."""

    model: NonEmpty
    messages: Annotated[tuple[WireMessage, ...], Meta(min_length=1)]
    system: str | tuple[TextBlock, ...] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET
    """An explicit null, which is our own, means as many as the context allows."""
    tools: tuple[Tool, ...] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    stop_sequences: Annotated[tuple[StopString, ...], Meta(max_length=64)] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    mcp_servers: tuple[Json, ...] | None = None
    betas: Json = None
    cache_control: Json = None
    container: Json = None
    context_management: Json = None
    diagnostics: Json = None
    inference_geo: Json = None
    metadata: Json = None
    service_tier: Json = None
    speed: Json = None
    thread: Json = None
    user_profile_id: Json = None


class DecodedRequest(msgspec.Struct, frozen=True):
    """A request, how its answer is wanted, and the names of the fields that nobody knows."""

    request: GenerationRequest
    is_stream: bool
    unknown_fields: tuple[str, ...]


def decode_request(body: bytes, *, request_id: str, affinity_key: str = "") -> DecodedRequest:
    """The request in the body of `POST /v1/messages`; raises `InvalidRequest` with the path of what is wrong."""
    return _decode(body, request_id, affinity_key, needs_max_tokens=True)


def decode_count_request(body: bytes, *, request_id: str) -> DecodedRequest:
    """The request in the body of `POST /v1/messages/count_tokens`, where `max_tokens` is not needed."""
    return _decode(body, request_id, "", needs_max_tokens=False)


def encode_request(request: GenerationRequest, *, is_stream: bool) -> dict[str, Json]:
    """The JSON body that `decode_request` reads back; id, affinity key and deadline do not travel in it."""
    system, messages = _split_system(request.messages)
    sampling = {name: getattr(request.sampling, name) for name in RANGES}
    choice = request.tool_choice
    body = RequestBody(
        model=request.model,
        messages=tuple(_encode_message(message) for message in messages),
        system=tuple(TextBlock(text=text) for text in system) or None,
        max_tokens=request.max_tokens,
        tools=tuple(_encode_tool(tool) for tool in request.tools) or None,
        tool_choice=ToolChoiceBody(choice.mode, choice.name or None, not choice.is_parallel_allowed)
        if choice != ToolChoice()
        else None,
        thinking=_encode_thinking(request.thinking),
        output_config=OutputConfig(OutputFormat("json_schema", request.output_schema))
        if request.output_schema is not None
        else None,
        stop_sequences=request.stop or None,
        stream=is_stream or None,
        **sampling,
    )
    return msgspec.json.decode(msgspec.json.encode(body), type=dict[str, Json])


def _decode(body: bytes, request_id: str, affinity_key: str, *, needs_max_tokens: bool) -> DecodedRequest:
    raw = parse_object(body)
    if raw.get("thread") is not None:
        # Ignoring it would lose the conversation: with this reason the SDKs send the whole history instead.
        problem = "message threads are not supported: send the whole conversation"
        raise InvalidRequest(problem, path="thread", reason="thread_unsupported_request")
    wire = check(raw, RequestBody)
    if needs_max_tokens and wire.max_tokens is UNSET:
        raise InvalidRequest("field is missing", path="max_tokens")
    if wire.mcp_servers:
        raise InvalidRequest("MCP servers are not supported: connect them in the client", path="mcp_servers")
    tools = _decode_tools(wire.tools or ())
    request = GenerationRequest(
        id=request_id,
        model=wire.model,
        messages=_decode_messages(wire),
        tools=tools,
        tool_choice=_decode_tool_choice(wire.tool_choice, tools),
        sampling=validate(SamplingParams(**{name: getattr(wire, name) for name in RANGES})),
        max_tokens=wire.max_tokens or None,
        stop=wire.stop_sequences or (),
        thinking=_decode_thinking(wire.thinking),
        output_schema=_output_schema(wire),
        affinity_key=affinity_key,
    )
    return DecodedRequest(request, bool(wire.stream), unknown_fields(raw, wire))


def _decode_messages(wire: RequestBody) -> tuple[Message, ...]:
    messages = [_decode_message(message, f"messages.{at}") for at, message in enumerate(wire.messages)]
    kept = tuple(message for message in messages if message is not None)
    if all(message.role == "system" for message in kept):
        raise InvalidRequest("there is nothing to answer: add a user message", path="messages")
    top = _decode_system(wire.system, is_empty_dropped=True) if wire.system is not None else None
    return kept if top is None else (top, *kept)


def _decode_message(message: WireMessage, path: str) -> Message | None:
    match message:
        case SystemMessage(content):
            return _decode_system(content, is_empty_dropped=False)
        case UserMessage(content):
            parts = _decode_content(content, path)
            if all(part == TextPart("") for part in parts):
                raise InvalidRequest("must not be empty", path=f"{path}.content")
            return Message("user", parts)
        case AssistantMessage(content):
            return Message("assistant", _decode_content(content, path))


def _decode_content(content: str | tuple[AnyBlock, ...], path: str) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(decode_part(block, f"{path}.content.{at}") for at, block in enumerate(content))


def _decode_system(content: str | tuple[TextBlock, ...], *, is_empty_dropped: bool) -> Message | None:
    texts = [content] if isinstance(content, str) else [block.text for block in content]
    kept = tuple(TextPart(text) for text in texts if not _VOLATILE.fullmatch(text))
    is_only_volatile = bool(texts) and not kept
    is_empty = is_empty_dropped and not any(part.text for part in kept)
    return None if is_only_volatile or is_empty else Message("system", kept)


def _decode_tools(tools: tuple[Tool, ...]) -> tuple[ToolSpec, ...]:
    names: set[str] = set()
    for at, tool in enumerate(tools):
        if tool.type not in (None, "custom"):
            raise InvalidRequest(f"tool kind {tool.type[:100]!r} is not supported here", path=f"tools.{at}.type")
        if tool.input_schema is None:
            raise InvalidRequest("field is missing", path=f"tools.{at}.input_schema")
        if tool.name in names:
            raise InvalidRequest("tool names must be unique", path=f"tools.{at}.name")
        names.add(tool.name)
    return tuple(
        ToolSpec(
            tool.name, tool.input_schema or {}, tool.description or "", bool(tool.strict), bool(tool.defer_loading)
        )
        for tool in tools
    )


def _decode_tool_choice(choice: ToolChoiceBody | None, tools: tuple[ToolSpec, ...]) -> ToolChoice:
    if choice is None:
        return ToolChoice()
    if choice.type in ("any", "tool") and not tools:
        raise InvalidRequest("there are no tools to choose from", path="tool_choice")
    name = choice.name or ""
    if choice.type == "tool" and name not in {tool.name for tool in tools}:
        raise InvalidRequest("it names none of the tools", path="tool_choice.name")
    return ToolChoice(choice.type, name, not choice.disable_parallel_tool_use)


def _decode_thinking(thinking: ThinkingBody | None) -> Thinking | None:
    if thinking is None:
        return None
    return Thinking(thinking.type, thinking.budget_tokens, is_shown=thinking.display != "omitted")


def _output_schema(wire: RequestBody) -> Json:
    current = None if wire.output_config is None else wire.output_config.format
    if current is not None and wire.output_format is not None:
        raise InvalidRequest("output_config.format is given too: send one of them", path="output_format")
    chosen = current or wire.output_format
    return None if chosen is None else chosen.schema


def _split_system(messages: tuple[Message, ...]) -> tuple[tuple[str, ...], tuple[Message, ...]]:
    first = messages[0] if messages else None
    if first is None or first.role != "system" or not first.text:
        return (), messages
    return tuple(part.text for part in first.parts if isinstance(part, TextPart)), messages[1:]


def _encode_message(message: Message) -> WireMessage:
    # Which blocks a role may hold is checked on the way in.
    blocks: Any = tuple(encode_part(part) for part in message.parts)
    match message.role:
        case "user":
            return UserMessage(blocks)
        case "assistant":
            return AssistantMessage(blocks)
        case "system":
            return SystemMessage(blocks)


def _encode_tool(tool: ToolSpec) -> Tool:
    return Tool(
        name=tool.name,
        description=tool.description or None,
        input_schema=tool.parameters,
        strict=tool.is_strict or None,
        defer_loading=tool.is_deferred or None,
    )


def _encode_thinking(thinking: Thinking | None) -> ThinkingBody | None:
    if thinking is None:
        return None
    return ThinkingBody(thinking.mode, thinking.budget_tokens, None if thinking.is_shown else "omitted")
