"""Conversations as our own JSON: a versioned form that later versions go on reading. `docs/conversations.md` tells it.

Knows no file and no database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from pensieve.conversation import times
from pensieve.conversation.choices import checked
from pensieve.conversation.conversation import Conversation, Turn
from pensieve.conversation.rows import encoded
from pensieve.errors import ImportFailed, InvalidRequest
from pensieve.messages import Json

FORMAT: Final = "pensieve-conversations"
VERSION: Final = 1
_MOST: Final = 2**53
"""Larger numbers are not exact in every program that reads JSON."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    format: str = FORMAT
    version: int = VERSION
    conversations: tuple[Conversation, ...]


def write(conversations: Sequence[Conversation]) -> bytes:
    """The conversations, with all their branches, as indented JSON."""
    return msgspec.json.format(encoded(Document(conversations=tuple(conversations))), indent=1) + b"\n"


def read(document: Json) -> tuple[Conversation, ...]:
    """The conversations of decoded JSON; raises `ImportFailed` or `msgspec.ValidationError`."""
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ImportFailed(f"it is in version {version} of our form, which a newer Pensieve wrote: install that")
    return tuple(map(_checked, msgspec.convert(document, Document).conversations))


def _checked(conversation: Conversation) -> Conversation:
    known: set[int | None] = {None}
    for turn in conversation.turns:
        if turn.parent not in known or turn.id in known:
            raise ImportFailed(f"turn {turn.id} of {conversation.uid!r} stands before its parent, or twice")
        known.add(turn.id)
    if conversation.head not in known:
        raise ImportFailed(f"the head of {conversation.uid!r} is none of its turns")
    try:
        checked(conversation.choices)
    except InvalidRequest as error:
        raise ImportFailed(f"what was chosen for {conversation.uid!r} cannot be: {error}") from error
    return msgspec.structs.replace(
        conversation,
        created=times.settled(conversation.created),
        updated=times.settled(conversation.updated),
        turns=tuple(map(_checked_turn, conversation.turns)),
    )


def _checked_turn(turn: Turn) -> Turn:
    usage = turn.usage
    if not all(0 <= count <= _MOST for count in (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)):
        raise ImportFailed(f"turn {turn.id} counts tokens that cannot be")
    return msgspec.structs.replace(turn, created=times.settled(turn.created))
