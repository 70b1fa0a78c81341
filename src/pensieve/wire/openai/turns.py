"""The messages of Chat Completions, as they stand in JSON, and their translation to ours and back.

Ids of messages and names of speakers are left out: they would spoil the prefix cache and tell the model nothing.
"""

from __future__ import annotations

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.messages import (
    DocumentPart,
    ImagePart,
    Json,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from pensieve.wire.body import parse_object
from pensieve.wire.openai.content import (
    NonEmpty,
    RefusalContent,
    SpokenContent,
    TextContent,
    UserContent,
    decode_content,
    encode_content,
)


class CalledFunction(msgspec.Struct, frozen=True):
    """What a model called, and with which arguments: the text of a JSON object."""

    name: NonEmpty
    arguments: str = ""


class ToolCallBody(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a tool."""

    id: NonEmpty
    type: str = "function"
    function: CalledFunction


class SystemTurn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="role", tag="system"):
    """Instructions."""

    content: str | tuple[TextContent, ...]
    name: Json = None


class DeveloperTurn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="role", tag="developer"):
    """Instructions, as newer models call them."""

    content: str | tuple[TextContent, ...]
    name: Json = None


class UserTurn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="role", tag="user"):
    """What the user says."""

    content: str | tuple[UserContent, ...]
    name: Json = None


class AssistantTurn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="role", tag="assistant"):
    """What the model said. Two names for its thinking are in use; both are read."""

    content: str | tuple[SpokenContent, ...] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[ToolCallBody, ...] | None = None
    name: Json = None
    audio: Json = None
    annotations: Json = None
    function_call: Json = None
    reasoning_details: Json = None


class ToolTurn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="role", tag="tool"):
    """What a tool gave back."""

    tool_call_id: NonEmpty
    content: str | tuple[UserContent, ...] | None
    name: Json = None


Turn = SystemTurn | DeveloperTurn | UserTurn | AssistantTurn | ToolTurn


def decode_turns(turns: tuple[Turn, ...]) -> tuple[Message, ...]:
    """One message for each; raises `InvalidRequest` with the path of what is wrong."""
    newest = max((at for at, turn in enumerate(turns) if not isinstance(turn, SystemTurn | DeveloperTurn)), default=-1)
    if newest < 0:
        raise InvalidRequest("there is nothing to answer: add a user message", path="messages")
    return tuple(_message(turn, f"messages.{at}", is_newest=at == newest) for at, turn in enumerate(turns))


def encode_turns(messages: tuple[Message, ...]) -> tuple[Turn, ...]:
    """The messages as they stand in JSON: each result of a tool is a message of its own."""
    return tuple(turn for message in messages for turn in _turns(message))


def decode_calls(calls: tuple[ToolCallBody, ...]) -> tuple[ToolCallPart, ...]:
    """Calls of a whole message."""
    return tuple(ToolCallPart(call.id, call.function.name, _arguments(call.function.arguments)) for call in calls)


def encode_call(call: ToolCallPart) -> ToolCallBody:
    """A call as it stands in JSON."""
    arguments = msgspec.json.encode(call.arguments).decode()
    return ToolCallBody(id=call.id, function=CalledFunction(call.name, arguments))


def _message(turn: Turn, path: str, *, is_newest: bool) -> Message:
    match turn:
        case SystemTurn(content=content) | DeveloperTurn(content=content):
            return Message("system", _spoken(content))
        case UserTurn(content=content):
            parts = decode_content(content, f"{path}.content", is_newest=is_newest)
            if all(part == TextPart("") for part in parts):
                raise InvalidRequest("must not be empty", path=f"{path}.content")
            return Message("user", parts)
        case AssistantTurn():
            return Message("assistant", _said(turn))
        case ToolTurn(tool_call_id=call_id, content=content):
            results = decode_content(content, f"{path}.content", is_newest=is_newest) if content else ()
            return Message("user", (ToolResultPart(call_id, _of_a_result(results)),))


def _of_a_result(parts: tuple[Part, ...]) -> tuple[TextPart | ImagePart | DocumentPart, ...]:
    return tuple(part for part in parts if isinstance(part, TextPart | ImagePart | DocumentPart))


def _said(turn: AssistantTurn) -> tuple[Part, ...]:
    """In the order in which models say it."""
    thinking = turn.reasoning_content or turn.reasoning
    parts: list[Part] = [ThinkingPart(thinking)] if thinking else []
    parts += _spoken(turn.content or ())
    parts += [TextPart(turn.refusal)] if turn.refusal else []
    return (*parts, *decode_calls(turn.tool_calls or ()))


def _spoken(content: str | tuple[SpokenContent, ...]) -> tuple[TextPart, ...]:
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    return tuple(TextPart(item.refusal if isinstance(item, RefusalContent) else item.text) for item in content)


def _arguments(text: str) -> dict[str, Json]:
    """Models write arguments that are no JSON object, or none that can travel; what they wrote is kept as text."""
    try:
        return parse_object(text.encode("utf-8", "replace") or b"{}")
    except InvalidRequest:
        return {"arguments": text}


def _turns(message: Message) -> list[Turn]:
    match message.role:
        case "system":
            return [SystemTurn(content=_texts(message.parts))]
        case "assistant":
            return [_assistant(message)]
        case "user":
            results = [part for part in message.parts if isinstance(part, ToolResultPart)]
            others = tuple(p for p in message.parts if not isinstance(p, ToolResultPart) and p != TextPart(""))
            turns: list[Turn] = [
                ToolTurn(tool_call_id=part.call_id, content=encode_content(part.parts)) for part in results
            ]
            return [*turns, UserTurn(content=encode_content(others))] if others or not results else turns


def _assistant(message: Message) -> AssistantTurn:
    thinking = "".join(part.text for part in message.parts if isinstance(part, ThinkingPart))
    spoken = tuple(part for part in message.parts if isinstance(part, TextPart))
    calls = tuple(encode_call(part) for part in message.parts if isinstance(part, ToolCallPart))
    content = _texts(spoken) if spoken else None
    return AssistantTurn(content=content, reasoning_content=thinking or None, tool_calls=calls or None)


def _texts(parts: tuple[Part, ...]) -> str | tuple[TextContent, ...]:
    texts = tuple(TextContent(part.text) for part in parts if isinstance(part, TextPart))
    return texts[0].text if len(texts) == 1 else texts
