"""The flat list of items as our messages, and back.

What the model said in a row is one message; so are the results of calls in a row. Each part remembers where it stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import msgspec

from pensieve.errors import InvalidRequest
from pensieve.messages import (
    Message,
    Part,
    RedactedThinkingPart,
    Role,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolResultPart,
)
from pensieve.wire.anthropic.signature import MARK, Unsealer
from pensieve.wire.openai.responses.contents import decode_content, encode_piece
from pensieve.wire.openai.responses.items import (
    AnyItem,
    CallItem,
    Content,
    CustomCallItem,
    CustomOutputItem,
    MessageItem,
    OutputItem,
    PassedOverItem,
    ReasoningItem,
    Thought,
)
from pensieve.wire.openai.responses.names import INPUT, qualified, read_arguments


class Placed(NamedTuple):
    """A message, and for each of its parts where it stood in the body."""

    message: Message
    paths: tuple[str, ...]

    @property
    def position(self) -> int:
        """The index of its first item; -1 where it is no item."""
        _, _, rest = self.paths[0].partition("input.")
        return int(rest.partition(".")[0]) if rest else -1


class _Said(NamedTuple):
    """One item, read: items of one group in a row make one message."""

    role: Role
    group: object
    parts: tuple[tuple[Part, str], ...]


def decode_items(items: Iterable[AnyItem]) -> tuple[Placed, ...]:
    """The messages of a conversation; raises `InvalidRequest` with the path of what is wrong."""
    unsealer = Unsealer()
    said = [_read(item, at, unsealer) for at, item in enumerate(items) if not isinstance(item, PassedOverItem)]
    placed: list[Placed] = []
    for (role, _), group in groupby(said, key=lambda each: (each.role, each.group)):
        parts = [part for each in group for part in each.parts]
        if parts:
            placed.append(Placed(Message(role, tuple(part for part, _ in parts)), tuple(path for _, path in parts)))
    return tuple(placed)


def encode_messages(messages: Iterable[Message]) -> tuple[AnyItem, ...]:
    """The items that `decode_items` reads back."""
    return tuple(item for message in messages for item in _encode_message(message))


def encode_thinking(part: ThinkingPart | RedactedThinkingPart) -> ReasoningItem:
    """Thinking as an item with all that is known of it."""
    if isinstance(part, RedactedThinkingPart):
        return ReasoningItem(summary=(), encrypted_content=part.data)
    thought = (Thought("reasoning_text", part.text),)
    return ReasoningItem(summary=(), content=thought, encrypted_content=part.signature or None)


def decode_thinking(item: ReasoningItem, unsealer: Unsealer) -> ThinkingPart | RedactedThinkingPart:
    """Thinking from an item: as it was, else as the summary tells it, else what its sealed form carries."""
    shown = item.content or item.summary or ()
    text = "\n\n".join(thought.text for thought in shown)
    sealed = item.encrypted_content or ""
    if sealed.startswith(MARK):
        return ThinkingPart(text) if text else unsealer.read("", sealed)
    return RedactedThinkingPart(sealed) if sealed and not shown else ThinkingPart(text, sealed)


def _read(item: AnyItem, at: int, unsealer: Unsealer) -> _Said:
    path = f"input.{at}"
    match item:
        case MessageItem(role="assistant", content=content):
            return _Said("assistant", None, _located(decode_content(content, f"{path}.content"), f"{path}.content"))
        case MessageItem(role=role, content=content):
            return _heard("user" if role == "user" else "system", content, path)
        case ReasoningItem():
            return _Said("assistant", None, ((decode_thinking(item, unsealer), path),))
        case CallItem(call_id=call_id, name=name, arguments=arguments, namespace=space):
            part = ToolCallPart(call_id, qualified(space, name), read_arguments(arguments))
            return _Said("assistant", None, ((part, path),))
        case CustomCallItem(call_id=call_id, name=name, input=given, namespace=space):
            return _Said("assistant", None, ((ToolCallPart(call_id, qualified(space, name), {INPUT: given}), path),))
        case OutputItem(call_id=call_id, output=output) | CustomOutputItem(call_id=call_id, output=output):
            result = ToolResultPart(call_id, decode_content(output, f"{path}.output"))
            return _Said("user", "results", ((result, path),))
    raise AssertionError(f"{type(item).__name__} was passed over before")


def _heard(role: Role, content: str | tuple[Content, ...], path: str) -> _Said:
    """What a user or a developer says: each item is a message of its own."""
    parts = decode_content(content, f"{path}.content")
    if role == "user" and all(part == TextPart("") for part in parts):
        raise InvalidRequest("must not be empty", path=f"{path}.content")
    if role == "system":
        for at, part in enumerate(parts):
            if not isinstance(part, TextPart):
                raise InvalidRequest("only text can stand here", path=f"{path}.content.{at}")
        parts = tuple(part for part in parts if isinstance(part, TextPart) and part.text)
    return _Said(role, path, _located(parts, f"{path}.content"))


def _located(parts: Iterable[Part], path: str) -> tuple[tuple[Part, str], ...]:
    return tuple((part, f"{path}.{at}") for at, part in enumerate(parts))


def _encode_message(message: Message) -> Iterator[AnyItem]:
    is_assistant = message.role == "assistant"
    for is_content, parts in groupby(message.parts, key=_is_content):
        if is_content:
            content = tuple(encode_piece(part, is_said=is_assistant) for part in parts)
            yield MessageItem(role="developer" if message.role == "system" else message.role, content=content)
        else:
            yield from map(_encode_part, parts)


def _is_content(part: Part) -> bool:
    return not isinstance(part, ThinkingPart | RedactedThinkingPart | ToolCallPart | ToolResultPart)


def _encode_part(part: Part) -> AnyItem:
    match part:
        case ThinkingPart() | RedactedThinkingPart():
            return encode_thinking(part)
        case ToolCallPart(call_id, name, arguments):
            return CallItem(call_id=call_id, name=name, arguments=msgspec.json.encode(arguments).decode())
        case ToolResultPart(call_id, (TextPart(text),)):
            return OutputItem(call_id=call_id, output=text)
        case ToolResultPart(call_id, parts):
            return OutputItem(call_id=call_id, output=tuple(encode_piece(each) for each in parts))
    raise AssertionError(f"{type(part).__name__} cannot stand here")
