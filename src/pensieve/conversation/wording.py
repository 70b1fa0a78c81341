"""How exports name people, models and things, and text without what harms a screen. Knows no form."""

from __future__ import annotations

import re

from pensieve.conversation.conversation import Conversation, Turn
from pensieve.messages import DocumentPart, ImagePart, Message

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")


def cleaned(text: str) -> str:
    """The text without control characters (newline and tab stay) and bidirectional overrides."""
    return _UNPRINTABLE.sub("", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The text on a single line."""
    return " ".join(cleaned(text).split())


def title_line(conversation: Conversation) -> str:
    """The title, or words for having none."""
    return one_line(conversation.title) or "A conversation"


def label(turn: Turn, message: Message) -> str:
    """Who speaks: You, System, or the model by name; and whether it was interrupted."""
    match message.role:
        case "user":
            return "Summary of what was said before" if turn.is_summary else "You"
        case "system":
            return "System"
        case "assistant":
            mark = " (interrupted)" if turn.is_interrupted and message is turn.messages[-1] else ""
            return (one_line(turn.model) or "Model") + mark


def size_of(part: ImagePart | DocumentPart) -> str:
    """An image or a document in words."""
    what = "image" if isinstance(part, ImagePart) else "document"
    title = f" {one_line(part.title)}" if isinstance(part, DocumentPart) and part.title else ""
    where = one_line(part.url) if part.url else f"{len(part.data):,} bytes"
    return f"{what}{title}, {one_line(part.media_type) or 'unknown type'}, {where}"
