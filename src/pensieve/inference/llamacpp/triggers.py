"""Free text watched for what begins a ruled part, as the parsers read it: a trigger inside thinking is thinking.

Text in, text out: knows no engine. What may be the beginning of a trigger is kept back until that is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from pensieve.inference.parsing.grammar import CALL, CHANNEL, END, MESSAGE, RETURN, START, OutputGrammar
from pensieve.inference.parsing.spans import first_marker, held_length

_BODY_ENDS: Final = (START, CHANNEL, END, RETURN, CALL)


class Watched(NamedTuple):
    """What becomes of a piece of text."""

    shown: str
    """This can be no part of a trigger any more."""
    num_ruled: int = 0
    """So many characters at the end belong to the trigger that was found and to what follows it."""


class TriggerWatch:
    """Reads one answer. `quiet` is where triggers do not count: thinking, and the messages behind channels' headers.

    Thinking begins at the `front` of an answer only; a message anywhere.
    """

    def __init__(self, triggers: Sequence[str], grammar: OutputGrammar, begun: str) -> None:
        """`begun`: what stands there of the answer already."""
        is_channels, thinking = grammar.style == "channels", grammar.thinking
        self._triggers = tuple(triggers)
        self._opener = MESSAGE if is_channels else thinking.opener if thinking is not None else ""
        self._closers = _BODY_ENDS if is_channels or thinking is None else (thinking.closer,)
        self._outside: Literal["front", "text"] = "text" if is_channels or not self._opener else "front"
        self._markers = (*self._triggers, MESSAGE) if is_channels else self._triggers
        """What ends a stretch of text."""
        self._place: Literal["front", "text", "quiet"] = self._outside
        self._pending = ""
        self.take(begun)
        self._pending = ""

    def take(self, text: str) -> Watched:
        """More text; after a trigger was found there is no more."""
        self._pending += text
        shown = ""
        while True:
            before = self._place
            size, is_trigger = self._step()
            shown, self._pending = shown + self._pending[:size], self._pending[size:]
            if is_trigger:
                num_ruled, self._pending = len(self._pending), ""
                return Watched(shown, num_ruled)
            if not size and self._place == before:
                return Watched(shown)

    def rest(self) -> str:
        """What was kept back, once nothing follows."""
        rest, self._pending = self._pending, ""
        return rest

    def _step(self) -> tuple[int, bool]:
        """How much of what is pending is decided, and whether a trigger follows it."""
        match self._place:
            case "front":
                return self._front(), False
            case "quiet":
                place, closer = first_marker(self._pending, self._closers)
                if place < 0:
                    return len(self._pending) - held_length(self._pending, self._closers), False
                self._place = self._outside
                return place + len(closer), False
        return self._text()

    def _front(self) -> int:
        begun = self._pending.lstrip()
        if begun.startswith(self._opener):
            self._place = "quiet"
            return len(self._pending) - len(begun) + len(self._opener)
        if self._opener.startswith(begun):
            return 0
        self._place = "text"
        return len(self._pending) - len(begun)

    def _text(self) -> tuple[int, bool]:
        place, marker = first_marker(self._pending, self._markers)
        if place < 0:
            return len(self._pending) - held_length(self._pending, self._markers), False
        if marker in self._triggers:
            return place, True
        self._place = "quiet"
        return place + len(marker), False
