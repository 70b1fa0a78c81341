"""What people, models and tools say to each other: immutable values, equal by content, without ids or times.

Knows no wire format, no template and no model.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["system", "user", "assistant"]
Json = Any
"""A decoded JSON value: None, bool, int, float, str, list or dict of them."""


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """Plain text."""

    text: str


class ThinkingPart(msgspec.Struct, frozen=True, tag="thinking"):
    """What the model thought before it answered; the signature is the client's to echo, ours to ignore."""

    text: str
    signature: str = ""


class RedactedThinkingPart(msgspec.Struct, frozen=True, tag="redacted_thinking"):
    """Thinking that only its producer can read; carried, never rendered."""

    data: str


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """An image: its bytes, or the URL where they are. Exactly one of `data` and `url` is set."""

    media_type: str = ""
    data: bytes = b""
    url: str = ""


class DocumentPart(msgspec.Struct, frozen=True, tag="document"):
    """A document: bytes of `media_type` (PDF, plain text), or the URL where they are."""

    media_type: str = ""
    data: bytes = b""
    url: str = ""
    title: str = ""
    context: str = ""
    """What its sender says about it."""


class ToolCallPart(msgspec.Struct, frozen=True, tag="tool_call"):
    """The model asks for a tool; `id` is unique in the conversation, `arguments` a JSON object."""

    id: str
    name: str
    arguments: dict[str, Json]


class ToolReferencePart(msgspec.Struct, frozen=True, tag="tool_reference"):
    """Inside a tool result: the named deferred tool is available from here on."""

    name: str


class ToolResultPart(msgspec.Struct, frozen=True, tag="tool_result"):
    """What the tool with that call id gave back."""

    call_id: str
    parts: tuple[TextPart | ImagePart | DocumentPart | ToolReferencePart, ...] = ()
    is_error: bool = False


Part = (
    TextPart
    | ThinkingPart
    | RedactedThinkingPart
    | ImagePart
    | DocumentPart
    | ToolCallPart
    | ToolReferencePart
    | ToolResultPart
)


class Message(msgspec.Struct, frozen=True):
    """One turn's words by one side. System text is a message too, in its place."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All plain text of the message, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool the model may call; `parameters` is a JSON schema of an object."""

    name: str
    parameters: dict[str, Json]
    description: str = ""
    is_strict: bool = False
    is_deferred: bool = False
    """Left out of the prompt until a `ToolReferencePart` names it."""


def say(role: Role, text: str) -> Message:
    """A message of one text part."""
    return Message(role, (TextPart(text),))
