"""Whether what a file holds is in a kept conversation already, which may have gone on since. Knows no database."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Literal

import msgspec

from pensieve.conversation.conversation import Conversation, Turn
from pensieve.conversation.rows import encoded, plain


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a conversation of a file."""

    id: int
    """Its number in the store."""
    outcome: Literal["new", "known", "changed"]
    """Known: all of it was here, nothing was taken; changed: another state of it is here, it was taken beside that."""
    head: int | None
    """The last turn of the path that is spoken in the file, by its number in the store."""


def places(kept: Conversation, other: Conversation) -> dict[int, int] | None:
    """For each turn of the other the kept turn that says the same in the same place; None: the kept one lacks some.

    Titles, choices and what was said since make no difference; what the model is told first does.
    """
    if plain(kept.system) != plain(other.system):
        return None
    waiting: dict[tuple[int | None, bytes], list[int]] = defaultdict(list)
    for turn in reversed(kept.turns):
        waiting[turn.parent, _said(turn)].append(turn.id)
    found: dict[int, int] = {}
    for turn in other.turns:
        parent = None if turn.parent is None else found.get(turn.parent)
        if (turn.parent is None) != (parent is None) or not (same := waiting[parent, _said(turn)]):
            return None
        found[turn.id] = same.pop()
    return found


def uid_of_state(conversation: Conversation) -> str:
    """The same for the same state of a conversation, however often it is loaded, and for no other one."""
    places = {turn.id: place for place, turn in enumerate(conversation.turns)}  # numbers differ from store to store
    said = [
        (None if turn.parent is None else places.get(turn.parent), turn.messages, turn.is_summary)
        for turn in conversation.turns
    ]
    digest = hashlib.sha256(encoded((conversation.system, said))).hexdigest()
    return f"{plain(conversation.uid)}~{digest[:16]}"


def _said(turn: Turn) -> bytes:
    return encoded((turn.messages, turn.is_summary))
