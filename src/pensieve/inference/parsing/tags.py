"""Output with tags: thinking between two markers first, then text, tool calls behind an opener.

Thinking only begins before any visible text, so that an answer about the tags is an answer. White space around
thinking and in front of calls belongs to the markup.
"""

from __future__ import annotations

from typing import Final, Literal

from pensieve.inference.parsing.calls import BodyReader
from pensieve.inference.parsing.elements import ElementsReader
from pensieve.inference.parsing.emitter import Emitter
from pensieve.inference.parsing.grammar import CallSyntax, OutputGrammar
from pensieve.inference.parsing.spans import first_marker, held_length
from pensieve.inference.parsing.terms import TermsReader

_Reader = BodyReader | ElementsReader | TermsReader
_READERS: Final[dict[str, type[BodyReader] | type[ElementsReader] | type[TermsReader]]] = {
    "json": BodyReader,
    "elements": ElementsReader,
    "pairs": ElementsReader,
    "terms": TermsReader,
}


class TagParser:
    """Text in, findings to the emitter. `front` is where an answer, or what follows a block of markup, begins."""

    def __init__(self, grammar: OutputGrammar, emitter: Emitter) -> None:
        self._emitter = emitter
        self._thinking = grammar.thinking
        self._calls = {syntax.opener: syntax for syntax in grammar.calls if syntax.opener}
        self._bare = next((syntax for syntax in grammar.calls if not syntax.opener), None)
        self._place: Literal["front", "text", "thinking", "call"] = "front"
        self._pending = ""
        self._entered: tuple[CallSyntax, str] | None = None
        """Of the call that was begun: its syntax, and the white space in front."""
        self._follows_markup = False
        self._has_thought = False
        self._body: _Reader | None = None

    def feed(self, text: str) -> None:
        """Take more text."""
        self._pending += text
        while self._pending and self._step():
            pass

    def flush(self, *, is_cut: bool) -> None:
        """The text is over; `is_cut`: not by itself."""
        pending, self._pending = self._pending, ""
        match self._place:
            case "thinking":
                self._think_aloud(pending.rstrip())
            case "call":
                body = self._body or self._reader(pending)
                body.flush(pending[body.take(pending, 0) :], is_cut=is_cut)
            case "front" if self._follows_markup and not pending.strip():
                pass
            case _:
                self._emitter.say(pending)

    def _step(self) -> bool:
        """Take the next thing out of what is pending; False if more text is needed."""
        match self._place:
            case "front":
                return self._front()
            case "text":
                return self._text()
            case "thinking":
                return self._think()
        return self._call()

    def _call(self) -> bool:
        if self._body is None:
            if not self._pending.strip():
                return False
            self._body = self._reader(self._pending)
        self._pending = self._pending[self._body.take(self._pending, 0) :]
        if self._body.is_over:
            self._place = "text" if self._body.is_text else "front"
            self._follows_markup = True
        return self._body.is_over

    def _front(self) -> bool:
        begun = self._pending.lstrip()
        space = self._pending[: len(self._pending) - len(begun)]
        openers = [*self._calls, *([self._thinking.opener] if self._thinking else [])]
        opener = next((opener for opener in openers if begun.startswith(opener)), None)
        if opener is not None:
            self._enter(opener, space, begun[len(opener) :])
        elif self._bare is not None and begun.startswith("{"):
            self._enter_call(self._bare, space, begun)
        elif any(opener.startswith(begun) for opener in openers) or (self._bare is not None and not begun):
            return False
        else:
            self._place = "text"
            self._pending = begun if self._follows_markup else self._pending
        return True

    def _text(self) -> bool:
        place, opener = first_marker(self._pending, tuple(self._calls))
        if place < 0:
            keep = self._held()
            ready, self._pending = (
                self._pending[: len(self._pending) - keep],
                self._pending[len(self._pending) - keep :],
            )
            self._emitter.say(ready)
            return False
        said = self._pending[:place].rstrip()
        self._emitter.say(said)
        self._enter(opener, self._pending[len(said) : place], self._pending[place + len(opener) :])
        return True

    def _held(self) -> int:
        """Characters at the end that could belong to a call's opener, the white space before it included."""
        if not self._calls:
            return 0
        marker = held_length(self._pending, tuple(self._calls))
        before = self._pending[: len(self._pending) - marker]
        return marker + len(before) - len(before.rstrip())

    def _think(self) -> bool:
        assert self._thinking is not None, "a thinking block has markers"
        place, _ = first_marker(self._pending, (self._thinking.closer,))
        if place >= 0:
            self._think_aloud(self._pending[:place].rstrip())
            self._pending = self._pending[place + len(self._thinking.closer) :]
            self._emitter.finish_thinking()
            self._place, self._follows_markup = "front", True
            return True
        marker = held_length(self._pending, (self._thinking.closer,))
        ready = self._pending[: len(self._pending) - marker].rstrip()
        self._pending = self._pending[len(ready) :]
        self._think_aloud(ready)
        return False

    def _think_aloud(self, text: str) -> None:
        text = text if self._has_thought else text.lstrip()
        self._has_thought = self._has_thought or bool(text)
        self._emitter.think(text)

    def _enter(self, opener: str, space: str, rest: str) -> None:
        if opener in self._calls:
            self._enter_call(self._calls[opener], space, rest)
        else:
            self._place, self._pending, self._has_thought = "thinking", rest, False

    def _enter_call(self, syntax: CallSyntax, space: str, rest: str) -> None:
        self._place, self._pending = "call", rest
        self._body, self._entered = None, (syntax, space)

    def _reader(self, begun: str) -> _Reader:
        """JSON is understood in every family: some models fall back to it, and forced calls are written in it."""
        assert self._entered is not None, "a call was begun"
        syntax, space = self._entered
        is_json = syntax.form == "json" or begun.lstrip()[:1] in {"{", "["}
        return _READERS["json" if is_json else syntax.form](self._emitter, syntax, before=space)
