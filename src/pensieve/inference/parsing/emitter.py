"""What a parser found, turned into events: ids given, stop strings applied, neighbouring text joined.

Stop strings are looked for in the visible answer only: not in thinking, not inside a call, not across either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pensieve.generation import (
    GenerationEvent,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from pensieve.inference.parsing.stops import StopMatcher
from pensieve.messages import ToolSpec


class Emitter:
    """Collects events until they are taken. After a stop string nothing more is said."""

    def __init__(self, new_call_id: Callable[[], str], stop: tuple[str, ...], tools: Sequence[ToolSpec] = ()) -> None:
        self.tools = tools
        """What can be called; empty: anything."""
        self._new_call_id = new_call_id
        self._stops = StopMatcher(stop)
        self._events: list[GenerationEvent] = []
        self._call_id = ""
        self._is_thinking = False
        self.num_calls = 0
        """Complete calls."""

    @property
    def matched_stop(self) -> str | None:
        """The stop string that ended the answer."""
        return self._stops.matched

    def take(self) -> list[GenerationEvent]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events

    def say(self, text: str) -> None:
        """Visible text."""
        self._show(self._stops.feed(text))

    def think(self, text: str) -> None:
        """Thinking text."""
        self._interrupt()
        if text and self.matched_stop is None:
            self._is_thinking = True
            last = self._events[-1] if self._events else None
            if isinstance(last, ThinkingDelta):
                self._events[-1] = ThinkingDelta(last.text + text)
            else:
                self._events.append(ThinkingDelta(text))

    def finish_thinking(self) -> None:
        """The thinking block is closed; an empty one never was."""
        if self._is_thinking:
            self._events.append(ThinkingFinished())
        self._is_thinking = False

    def known_name(self, name: str) -> str:
        """The name of the tool that is meant; "" if there is none. Case and punctuation may differ, if one is meant."""
        if not self.tools or any(tool.name == name for tool in self.tools):
            return name
        similar = [tool.name for tool in self.tools if _plain(tool.name) == _plain(name)]
        return similar[0] if len(similar) == 1 else ""

    def start_call(self, name: str) -> None:
        """A call of this tool begins."""
        self._interrupt()
        if self.matched_stop is None:
            self._call_id = self._new_call_id()
            self._events.append(ToolCallStarted(self._call_id, name))

    def add_arguments(self, json: str) -> None:
        """More of the open call's arguments."""
        if json and self._call_id:
            self._events.append(ToolCallDelta(self._call_id, json))

    def finish_call(self) -> None:
        """The open call is complete."""
        if self._call_id:
            self._events.append(ToolCallFinished(self._call_id))
            self.num_calls += 1
        self._call_id = ""

    def drop_call(self, written: str) -> None:
        """The open call came to nothing: it stays unfinished, and what was written of it is text."""
        self._call_id = ""
        self.say(written)

    def cut_call(self) -> None:
        """The answer was cut in the open call: it stays unfinished, and nothing more is said."""
        self._call_id = ""

    def flush(self) -> None:
        """The text is over: what might have become a stop string did not."""
        self._interrupt()

    def _interrupt(self) -> None:
        if self.matched_stop is None:
            self._show(self._stops.flush())

    def _show(self, text: str) -> None:
        if not text:
            return
        last = self._events[-1] if self._events else None
        if isinstance(last, TextDelta):
            self._events[-1] = TextDelta(last.text + text)
        else:
            self._events.append(TextDelta(text))


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()
