"""Claude's export: `conversations.json`, a list of conversations with `chat_messages`, newer ones linked as a tree.

What the export only names (files) becomes a note in its place. What tools were told and said is text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

from pensieve.conversation import times
from pensieve.conversation.conversation import Conversation
from pensieve.conversation.nodes import Node, assemble
from pensieve.messages import DocumentPart, Json, Part, TextPart, ThinkingPart

_NO_PARENT: Final = "00000000-0000-4000-8000-000000000000"


class _Attachment(msgspec.Struct, frozen=True):
    file_name: str | None = None
    extracted_content: str | None = None


class _File(msgspec.Struct, frozen=True):
    file_name: str | None = None


class _Block(msgspec.Struct, frozen=True):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    input: Json = None
    content: Json = None


class _Message(msgspec.Struct, frozen=True):
    sender: Literal["human", "assistant"]
    uuid: str | None = None
    text: str | None = None
    content: list[_Block] | None = None
    created_at: datetime | None = None
    attachments: list[_Attachment] | None = None
    files: list[_File] | None = None
    parent_message_uuid: str | None = None


class _Conversation(msgspec.Struct, frozen=True):
    chat_messages: list[_Message]
    uuid: str | None = None
    name: str | None = None
    model: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    current_leaf_message_uuid: str | None = None


def read(document: Json) -> tuple[Conversation, ...]:
    """The conversations of decoded JSON; raises `ImportFailed` or `msgspec.ValidationError`."""
    return tuple(map(_conversation, msgspec.convert(document, list[_Conversation])))


def _conversation(exported: _Conversation) -> Conversation:
    created = times.settled(exported.created_at) if exported.created_at else times.EARLIEST
    frame = Conversation(
        id=0,
        uid=f"claude:{exported.uuid}" if exported.uuid else "",
        title=exported.name or "",
        model=exported.model or "",
        created=created,
        updated=times.settled(exported.updated_at) if exported.updated_at else created,
    )
    nodes: list[Node] = []
    known: set[str] = set()
    for number, message in enumerate(exported.chat_messages):
        parent = message.parent_message_uuid or (nodes[-1].id if nodes else None)
        node_id = message.uuid if message.uuid and message.uuid not in known else f"message {number}"
        known.add(node_id)
        nodes.append(
            Node(
                id=node_id,
                parent=None if parent == _NO_PARENT else parent,
                role="user" if message.sender == "human" else "assistant",
                parts=_parts(message),
                created=times.settled(message.created_at) if message.created_at else created,
            )
        )
    return assemble(frame, nodes, exported.current_leaf_message_uuid)


def _parts(message: _Message) -> tuple[Part, ...]:
    documents = tuple(
        DocumentPart("text/plain", each.extracted_content.encode(errors="replace"), title=each.file_name or "")
        for each in message.attachments or ()
        if each.extracted_content
    )
    missing = [each.file_name for each in message.files or () if each.file_name]
    missing += [each.file_name for each in message.attachments or () if each.file_name and not each.extracted_content]
    notes = tuple(TextPart(f"[not in the export: {name}]\n\n") for name in dict.fromkeys(missing))
    said = tuple(part for block in message.content or () for part in _block(block))
    if not any(isinstance(part, TextPart) for part in said) and message.text:
        said = (*said, TextPart(message.text))
    return (*documents, *notes, *said)


def _block(block: _Block) -> tuple[Part, ...]:
    match block:
        case _Block(type="thinking", thinking=str(thinking)) if thinking:
            return (ThinkingPart(thinking),)
        case _Block(type="tool_use"):
            told = msgspec.json.encode(block.input).decode()
            return (TextPart(f"\n\n[{block.name or 'tool'}] {told}\n\n"),)
        case _Block(type="tool_result"):
            return (TextPart(f"\n\n[{block.name or 'tool'}]\n{_result(block.content)}\n\n"),)
        case _Block(text=str(text)) if text:
            return (TextPart(text),)
    return ()


def _result(content: Json) -> str:
    """The text of what a tool gave back."""
    match content:
        case str():
            return content
        case list():
            return "\n".join(filter(None, map(_result, content)))
        case {"text": str(text)}:
            return text
    return ""
