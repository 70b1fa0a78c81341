"""A conversation as a value: a tree of turns, and the one path through it that is spoken now.

Knows no database, no file format and no model.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from pensieve.conversation.choices import Choices
from pensieve.generation import FinishReason, Timings, Usage
from pensieve.messages import Message, RedactedThinkingPart, ThinkingPart

TITLE_CHARACTERS = 60


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange: the question, and what was answered to it, wholly or until it was interrupted."""

    id: int
    parent: int | None
    """The turn before it; None: it begins the conversation. Two turns with one parent are a fork."""
    messages: tuple[Message, ...]
    """The question first, then the answer, with tool calls and results between."""
    created: datetime
    model: str = ""
    usage: Usage = Usage()
    timings: Timings | None = None
    reason: FinishReason | None = None
    is_interrupted: bool = False
    """The answer was stopped, failed, or its program ended; what had come of it is in `messages`."""
    is_summary: bool = False
    """It stands for everything before it: a prompt begins with it."""

    @property
    def question(self) -> Message | None:
        """What the user said; None in a summary that has only the model's words."""
        return next((message for message in self.messages if message.role == "user"), None)

    @property
    def answer(self) -> Message | None:
        """The model's last words; None: there was no answer, or thinking alone."""
        return next((message for message in reversed(self.messages) if _is_answer(message)), None)

    @property
    def asked(self) -> tuple[Message, ...]:
        """The messages up to the last that is not the model's."""
        num_said = next((back for back, each in enumerate(reversed(self.messages)) if each.role != "assistant"), 0)
        return self.messages[: len(self.messages) - num_said]

    @property
    def text(self) -> str:
        """All plain text of the turn, its messages apart by an empty line."""
        return "\n\n".join(filter(None, (message.text for message in self.messages)))


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was said in one conversation, all branches, oldest turn first."""

    id: int
    """Its number in the store; 0: it is in none."""
    uid: str
    """The same wherever it is copied to, so that it is not imported twice."""
    created: datetime
    updated: datetime
    title: str = ""
    system: str = ""
    choices: Choices = Choices()
    model: str = ""
    head: int | None = None
    """The last turn of the path that is spoken now; None: the next turn begins anew."""
    turns: tuple[Turn, ...] = ()

    def turn(self, turn_id: int) -> Turn | None:
        """The turn of that id."""
        return next((turn for turn in self.turns if turn.id == turn_id), None)

    def path(self) -> tuple[Turn, ...]:
        """The turns from the first to the head: what a reader of the conversation sees."""
        return self.path_to(self.head)

    def path_to(self, turn_id: int | None) -> tuple[Turn, ...]:
        """The turns from the first to this one; nothing if there is no such turn."""
        by_id = {turn.id: turn for turn in self.turns}
        found: list[Turn] = []
        while turn_id is not None and (turn := by_id.pop(turn_id, None)):  # popped: a circle ends too
            found.append(turn)
            turn_id = turn.parent
        return tuple(reversed(found))

    def children(self, parent: int | None) -> tuple[Turn, ...]:
        """The turns that follow this one, oldest first; those of None begin the conversation."""
        return tuple(turn for turn in self.turns if turn.parent == parent)

    def leaves(self) -> tuple[Turn, ...]:
        """The last turn of each branch, oldest first."""
        parents = {turn.parent for turn in self.turns}
        return tuple(turn for turn in self.turns if turn.id not in parents)

    def spoken(self) -> tuple[Turn, ...]:
        """The turns of the path that a prompt may hold: from its last summary on, and those that were answered."""
        path = self.path()
        start = max((place for place, turn in enumerate(path) if turn.is_summary), default=0)
        return tuple(turn for turn in path[start:] if turn.answer or turn.is_summary)

    def with_turn(self, turn: Turn) -> Conversation:
        """The conversation with this turn in the place of its id, or added, as its head."""
        others = tuple(other for other in self.turns if other.id != turn.id)
        turns = tuple(sorted((*others, turn), key=lambda each: each.id))
        return msgspec.structs.replace(self, turns=turns, head=turn.id, updated=turn.created)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the list of conversations."""

    id: int
    title: str
    model: str
    created: datetime
    updated: datetime
    num_turns: int


def _is_answer(message: Message) -> bool:
    thinking = ThinkingPart | RedactedThinkingPart
    return message.role == "assistant" and not (
        message.parts and all(isinstance(part, thinking) for part in message.parts)
    )


def title_of(messages: tuple[Message, ...]) -> str:
    """A title out of the first words that were said, on one line, at most `TITLE_CHARACTERS` long."""
    words = " ".join(next((message.text for message in messages if message.text.strip()), "").split())
    return shortened(words, TITLE_CHARACTERS)


def shortened(text: str, num_characters: int) -> str:
    """The text if it is that short, else its beginning, to the end of a word where there is one, and three dots."""
    if len(text) <= num_characters:
        return text
    cut = text[: num_characters - 3]
    return f"{cut.rsplit(' ', 1)[0] if ' ' in cut[20:] else cut}..."
