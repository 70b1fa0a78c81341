"""Other programs' trees of single messages, as conversations of turns. Knows none of their formats.

A turn is a question and everything up to the next one. Where an answer was given anew, its question is in both turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Final, Literal

import msgspec

from pensieve.conversation.conversation import Conversation, Turn, title_of
from pensieve.errors import ImportFailed
from pensieve.messages import Message, Part

_MIN_SAID: Final = 10_000
_MAX_GROWTH: Final = 20
"""So many times as many messages may be in the turns as in the tree; more is a file that was made to do harm."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the tree; one without parts is only a link."""

    id: str
    parent: str | None
    role: Literal["user", "assistant"]
    created: datetime
    parts: tuple[Part, ...] = ()
    model: str = ""


def assemble(frame: Conversation, nodes: Sequence[Node], head: str | None) -> Conversation:
    """The conversation `frame` with the turns of these messages; `head` is the message that is spoken now."""
    above = _links(nodes)
    kept = {
        node.id: msgspec.structs.replace(node, parent=above.get(node.parent))
        for node in sorted(nodes, key=lambda node: node.created)
        if node.parts
    }
    numbers = {node_id: number for number, node_id in enumerate(_ends(kept), 1)}
    left = max(_MIN_SAID, _MAX_GROWTH * len(nodes))
    turns: list[Turn] = []
    for end in numbers:
        segment = _segment(kept, end, numbers)
        left -= len(segment)
        if left < 0:
            raise ImportFailed(f"{frame.uid} branches more than any conversation does")
        turns.append(_turn(segment, numbers))
    return msgspec.structs.replace(
        frame,
        turns=tuple(turns),
        head=numbers.get(above.get(head) or "", len(turns) or None),
        title=frame.title or (title_of(turns[0].messages) if turns else ""),
        model=frame.model or next((turn.model for turn in reversed(turns) if turn.model), ""),
    )


def _links(nodes: Sequence[Node]) -> dict[str | None, str | None]:
    """For each message the nearest one with parts, itself or above it."""
    by_id = {node.id: node for node in nodes}
    found: dict[str | None, str | None] = {None: None}
    for node in nodes:
        passed: list[str] = []
        place: str | None = node.id
        while place is not None and place not in found:
            found[place] = None  # a circle of messages without parts ends here, and a parent that is not there
            if place not in by_id:
                break
            if by_id[place].parts:
                found[place] = place
                break
            passed.append(place)
            place = by_id[place].parent
        found.update(dict.fromkeys(passed, found[place]))
    return found


def _ends(nodes: dict[str, Node]) -> list[str]:
    """The messages with which turns end: those that a question follows, or nothing."""
    parents = {node.parent for node in nodes.values()}
    asked = {node.parent for node in nodes.values() if node.role == "user"}
    return [node_id for node_id in nodes if node_id in asked or node_id not in parents]


def _segment(nodes: dict[str, Node], end: str, ends: dict[str, int]) -> list[Node]:
    """The messages of one turn, its question first, if it has one."""
    segment = [nodes[end]]
    seen = {end}
    while segment[-1].role != "user":
        parent = segment[-1].parent
        if parent is None or parent in ends or parent in seen:
            break
        seen.add(parent)
        segment.append(nodes[parent])
    return segment[::-1]


def _turn(segment: Sequence[Node], numbers: dict[str, int]) -> Turn:
    messages = tuple(
        Message(role, tuple(part for node in said for part in node.parts))
        for role, said in groupby(segment, key=lambda node: node.role)
    )
    before = segment[0].parent
    return Turn(
        id=numbers[segment[-1].id],
        parent=None if before is None else numbers.get(before),
        messages=messages,
        created=segment[0].created,
        model=next((node.model for node in reversed(segment) if node.model), ""),
        is_interrupted=messages[-1].role == "user",
    )
