"""ChatGPT's export: `conversations.json`, a list of conversations that each map node ids to messages of a tree.

What the export only points to (images, files) becomes a note in its place. What tools were told and said is text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from pensieve.conversation import times
from pensieve.conversation.conversation import Conversation
from pensieve.conversation.nodes import Node, assemble
from pensieve.messages import Json, Part, TextPart, ThinkingPart


class _Author(msgspec.Struct, frozen=True):
    role: str = ""
    name: str | None = None


class _Content(msgspec.Struct, frozen=True):
    content_type: str = ""
    parts: list[Json] | None = None
    text: str | None = None
    result: str | None = None
    content: str | None = None
    thoughts: list[dict[str, Json]] | None = None
    user_profile: str | None = None
    user_instructions: str | None = None


class _Metadata(msgspec.Struct, frozen=True):
    model_slug: str | None = None
    is_visually_hidden_from_conversation: bool | None = None


class _Message(msgspec.Struct, frozen=True):
    author: _Author = _Author()
    content: _Content | None = None
    create_time: float | None = None
    metadata: _Metadata | None = None


class _MappedNode(msgspec.Struct, frozen=True):
    message: _Message | None = None
    parent: str | None = None


class _Conversation(msgspec.Struct, frozen=True):
    mapping: dict[str, _MappedNode]
    title: str | None = None
    create_time: float | None = None
    update_time: float | None = None
    current_node: str | None = None
    conversation_id: str | None = None
    id: str | None = None


_SYSTEM_TYPES: Final = ("user_editable_context", "model_editable_context")


def read(document: Json) -> tuple[Conversation, ...]:
    """The conversations of decoded JSON; raises `ImportFailed` or `msgspec.ValidationError`."""
    return tuple(map(_conversation, msgspec.convert(document, list[_Conversation])))


def _conversation(exported: _Conversation) -> Conversation:
    created = times.of_seconds(exported.create_time) or times.EARLIEST
    known = exported.conversation_id or exported.id
    frame = Conversation(
        id=0,
        uid=f"chatgpt:{known}" if known else "",
        title=exported.title or "",
        system=_system(exported),
        created=created,
        updated=times.of_seconds(exported.update_time) or created,
    )
    nodes = [_node(node_id, mapped, created) for node_id, mapped in exported.mapping.items()]
    return assemble(frame, nodes, exported.current_node)


def _node(node_id: str, mapped: _MappedNode, fallback: datetime) -> Node:
    message = mapped.message or _Message()
    said = message.content is not None and not _is_system(message)
    return Node(
        id=node_id,
        parent=mapped.parent,
        role="user" if message.author.role == "user" else "assistant",
        parts=_parts(message, message.content) if said and message.content is not None else (),
        created=times.of_seconds(message.create_time) or fallback,
        model=(message.metadata.model_slug if message.metadata else None) or "",
    )


def _is_system(message: _Message) -> bool:
    kind = message.content.content_type if message.content else ""
    return message.author.role == "system" or kind in _SYSTEM_TYPES


def _system(exported: _Conversation) -> str:
    """The user's standing instructions and other system text, each once."""
    said: dict[str, None] = {}
    for node in exported.mapping.values():
        if node.message is not None and node.message.content is not None and _is_system(node.message):
            content = node.message.content
            texts = (*map(_piece, content.parts or ()), content.text, content.user_profile, content.user_instructions)
            said.update(dict.fromkeys(text.strip() for text in texts if text and text.strip()))
    return "\n\n".join(said)


def _parts(message: _Message, content: _Content) -> tuple[Part, ...]:
    if content.content_type == "thoughts":
        thoughts = "\n\n".join(str(thought.get("content") or "") for thought in content.thoughts or ()).strip()
        return (ThinkingPart(thoughts),) if thoughts else ()
    if content.content_type == "reasoning_recap":  # "Thought for 12 seconds"
        return ()
    pieces = filter(None, (*map(_piece, content.parts or ()), content.text, content.result, content.content))
    text = "\n\n".join(piece for piece in pieces if piece.strip())
    if not text:
        return ()
    if message.author.role == "tool":
        return (TextPart(f"\n\n[{message.author.name or 'tool'}]\n{text}\n\n"),)
    if content.content_type == "code":
        return (TextPart(f"\n\n```\n{text}\n```\n\n"),)
    return (TextPart(text),)


def _piece(piece: Json) -> str:
    """The text of one of a message's parts; what is not text is named."""
    match piece:
        case str():
            return piece
        case {"text": str(text)}:
            return text
        case {"asset_pointer": str(pointer)}:
            return f"[not in the export: {pointer}]"
        case {"content_type": str(kind)}:
            return f"[not in the export: {kind}]"
    return ""
