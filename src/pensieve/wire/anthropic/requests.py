"""Requests of the Messages API: bytes to a `GenerationRequest` and back.

Client quirks die here: volatile blocks are dropped, string content and a one-block list become equal.
Knows no server and no backend; what the values cannot say is refused with the path of the field.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pensieve.errors import InvalidRequest
from pensieve.generation import GenerationRequest, Thinking, ToolChoice
from pensieve.messages import Json, Message, Part, TextPart
from pensieve.sampling.params import RANGES, SamplingParams, validate
from pensieve.wire.anthropic.blocks import (
    AnyBlock,
    AssistantBlock,
    NonEmpty,
    TextBlock,
    UserBlock,
    decode_parts,
    encode_part,
)
from pensieve.wire.anthropic.encoder import EventEncoder
from pensieve.wire.anthropic.foreign import settle
from pensieve.wire.anthropic.manner import PLAIN, Manner
from pensieve.wire.anthropic.server_tools import ServerTool, encode_as_stream, encode_unavailable
from pensieve.wire.anthropic.signature import Unsealer
from pensieve.wire.anthropic.tools import (
    DecodedTools,
    Tool,
    ToolChoiceBody,
    decode_tool_choice,
    decode_tools,
    encode_tool,
    encode_tool_choice,
)
from pensieve.wire.body import MAX_UNKNOWN_FIELDS, check, parse_object, unknown_fields
from pensieve.wire.exchange import Label, Settled

StopString = Annotated[str, Meta(min_length=1, max_length=1_000)]
"""Every stop string is looked for in every piece of text, so that their number and length are bounded."""

_VOLATILE = re.compile(
    r"\A\s*x-anthropic-billing-header:[^\n]*(?:\n|\Z)"
    r"|^[ \t]*<total_tokens>[^<\n]*</total_tokens>[ \t]*(?:\n|\Z)",
    re.MULTILINE,
)
"""Lines of system text that change from turn to turn and tell the model nothing: they would spoil the prefix cache."""

_MESSAGE_PATH = re.compile(r"messages\.(\d+)")


class UserMessage(msgspec.Struct, frozen=True, tag_field="role", tag="user"):
    """What the user says, or a tool gave back."""

    content: str | tuple[UserBlock, ...]


class AssistantMessage(msgspec.Struct, frozen=True, tag_field="role", tag="assistant"):
    """What the model said."""

    content: str | tuple[AssistantBlock, ...]


class SystemMessage(msgspec.Struct, frozen=True, tag_field="role", tag="system"):
    """Instructions in the middle of a conversation."""

    content: str | tuple[TextBlock, ...] = ()
    clear_at: Json = None
    output_config: Json = None


WireMessage = UserMessage | AssistantMessage | SystemMessage


class ThinkingBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to think; `display` is an open set, of which only `omitted` hides."""

    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    display: str | None = None
    block_binding: Json = None


class OutputFormat(msgspec.Struct, frozen=True):
    """The JSON schema that the answer obeys."""

    type: Literal["json_schema"]
    schema: dict[str, Json]


class OutputConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The shape of the answer; `effort` has no meaning for a local model."""

    format: OutputFormat | None = None
    effort: Json = None
    task_budget: Json = None


class DiagnosticsBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """Asks why the prefix cache missed; null, or the id of an earlier answer to compare with."""

    previous_message_id: str | None = None


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
    diagnostics: DiagnosticsBody | None = None
    context_management: Json = None
    betas: Json = None
    billing_policy: Json = None
    cache_control: Json = None
    compaction: Json = None
    container: Json = None
    fallback_credit_token: Json = None
    fallbacks: Json = None
    inference_geo: Json = None
    metadata: Json = None
    service_tier: Json = None
    speed: Json = None
    thread: Json = None
    user_profile_id: Json = None
    workspace_id: Json = None


class DecodedRequest(msgspec.Struct, frozen=True):
    """A request, how its answer is wanted, and the names of the fields that nobody knows."""

    request: GenerationRequest
    is_stream: bool
    unknown_fields: tuple[str, ...]
    manner: Manner = PLAIN
    positions: tuple[int, ...] = ()
    """For each message of the request, its index among those sent; -1 for the top-level system text."""
    forced: ServerTool | None = None
    """A tool that the request insists on and that cannot run here: no model is asked."""

    id_prefix: ClassVar[str] = "msg_"

    def settled(self, label: Label) -> Settled | None:
        """See `Exchange`."""
        if self.forced is None:
            return None
        answer = encode_unavailable(self.forced, message_id=label.answer_id, model=label.model)
        return Settled(answer, encode_as_stream(answer))

    def encoder(self, label: Label) -> EventEncoder:
        """See `Exchange`."""
        previous = self.manner.previous_message_id
        return EventEncoder(
            label.answer_id,
            label.model,
            request_id=label.request_id,
            manner=self.manner,
            diagnose=lambda _started: label.diagnose(previous),
        )

    def sent_path(self, path: str) -> str:
        """Where the client sent what stands at `path` in the request (`messages.1.content.0`)."""
        found = _MESSAGE_PATH.match(path)
        at = int(found[1]) if found else len(self.positions)
        if found is None or at >= len(self.positions):
            return path
        position = self.positions[at]
        return f"messages.{position}{path[found.end() :]}" if position >= 0 else "system"


def decode_request(body: bytes, *, request_id: str, affinity_key: str = "") -> DecodedRequest:
    """The request in the body of `POST /v1/messages`; raises `InvalidRequest` with the path of what is wrong."""
    return _decode(body, request_id, affinity_key, needs_max_tokens=True)


def decode_count_request(body: bytes, *, request_id: str, affinity_key: str = "") -> DecodedRequest:
    """The request in the body of `POST /v1/messages/count_tokens`, where `max_tokens` is not needed."""
    return _decode(body, request_id, affinity_key, needs_max_tokens=False)


def encode_request(request: GenerationRequest, *, is_stream: bool) -> dict[str, Json]:
    """The JSON body that `decode_request` reads back; id, affinity key and deadline do not travel in it."""
    system, messages = _split_system(request.messages)
    sampling = {name: getattr(request.sampling, name) for name in RANGES}
    body = RequestBody(
        model=request.model,
        messages=tuple(_encode_message(message) for message in messages),
        system=tuple(TextBlock(text=text) for text in system) or None,
        max_tokens=request.max_tokens,
        tools=tuple(encode_tool(tool) for tool in request.tools) or None,
        tool_choice=encode_tool_choice(request.tool_choice),
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
    unknown_blocks = settle(raw)
    wire = check(raw, RequestBody)
    if needs_max_tokens and wire.max_tokens is UNSET:
        raise InvalidRequest("field is missing", path="max_tokens")
    if wire.mcp_servers:
        raise InvalidRequest("MCP servers are not supported: connect them in the client", path="mcp_servers")
    tools = decode_tools(wire.tools or ())
    choice = decode_tool_choice(wire.tool_choice, tools)
    placed = _decode_messages(wire)
    request = GenerationRequest(
        id=request_id,
        model=wire.model,
        messages=tuple(message for _, message in placed),
        tools=tools.offered,
        tool_choice=choice if isinstance(choice, ToolChoice) else ToolChoice(),
        sampling=validate(SamplingParams(**{name: getattr(wire, name) for name in RANGES})),
        max_tokens=wire.max_tokens or None,
        stop=wire.stop_sequences or (),
        thinking=_decode_thinking(wire.thinking),
        output_schema=_output_schema(wire),
        affinity_key=affinity_key,
    )
    return DecodedRequest(
        request,
        bool(wire.stream),
        (*unknown_fields(raw, wire), *_unknown_kinds(unknown_blocks, tools))[:MAX_UNKNOWN_FIELDS],
        _decode_manner(wire),
        tuple(at for at, _ in placed),
        choice if isinstance(choice, ServerTool) else None,
    )


def _unknown_kinds(blocks: tuple[str, ...], tools: DecodedTools) -> tuple[str, ...]:
    return (*(f"messages.content.type={kind}" for kind in blocks), *(f"tools.type={k}" for k in tools.unknown_kinds))


def _decode_manner(wire: RequestBody) -> Manner:
    asked = wire.diagnostics
    return Manner(
        is_thinking_shown=wire.thinking is None or wire.thinking.display != "omitted",
        is_context_managed=wire.context_management is not None,
        is_diagnosed=asked is not None,
        previous_message_id="" if asked is None else asked.previous_message_id or "",
    )


def _decode_messages(wire: RequestBody) -> tuple[tuple[int, Message], ...]:
    """The messages, each with its index among those sent."""
    unsealer = Unsealer()
    messages = [(at, _decode_message(message, f"messages.{at}", unsealer)) for at, message in enumerate(wire.messages)]
    kept = tuple((at, message) for at, message in messages if message is not None)
    if all(message.role == "system" for _, message in kept):
        raise InvalidRequest("there is nothing to answer: add a user message", path="messages")
    top = _decode_system(wire.system) if wire.system is not None else None
    return kept if top is None else ((-1, top), *kept)


def _decode_message(message: WireMessage, path: str, unsealer: Unsealer) -> Message | None:
    match message:
        case SystemMessage(content):
            return _decode_system(content)
        case UserMessage(content):
            parts = _decode_content(content, path, unsealer)
            if content and not parts:
                return None  # nothing but what was passed over
            if all(part == TextPart("") for part in parts):
                raise InvalidRequest("must not be empty", path=f"{path}.content")
            return Message("user", parts)
        case AssistantMessage(content):
            return Message("assistant", _decode_content(content, path, unsealer))


def _decode_content(content: str | tuple[AnyBlock, ...], path: str, unsealer: Unsealer) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return decode_parts(content, f"{path}.content", unsealer)


def _decode_system(content: str | tuple[TextBlock, ...]) -> Message | None:
    """What is left of system text without its volatile lines and empty blocks; None if that is nothing."""
    texts = [content] if isinstance(content, str) else [block.text for block in content]
    kept = [(text, _VOLATILE.sub("", text)) for text in texts]
    parts = tuple(TextPart(now) for text, now in kept if now.strip() or (now and now == text))
    return Message("system", parts) if parts else None


def _decode_thinking(thinking: ThinkingBody | None) -> Thinking | None:
    if thinking is None:
        return None
    # Where a model thinks is its template's business, as with `adaptive`.
    mode = "adaptive" if thinking.type == "between_tools" else thinking.type
    return Thinking(mode, thinking.budget_tokens, is_shown=thinking.display != "omitted")


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


def _encode_thinking(thinking: Thinking | None) -> ThinkingBody | None:
    if thinking is None:
        return None
    return ThinkingBody(thinking.mode, thinking.budget_tokens, None if thinking.is_shown else "omitted")
