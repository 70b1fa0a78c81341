"""Calls as terms (Gemma 4): `call:NAME{key:<|"|>text<|"|>,n:3,list:[true]}`, handed on as JSON while it is written.

Strings stand between marks of the vocabulary, so nothing in them is escaped. One reader per body; no engine.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from pensieve.inference.parsing.argument_types import escaped, quoted, to_json
from pensieve.inference.parsing.emitter import Emitter
from pensieve.inference.parsing.grammar import CallSyntax
from pensieve.inference.parsing.spans import WHITESPACE, held_length

QUOTE: Final = '<|"|>'
_HEAD: Final = re.compile(r"\s*call:([\w.:/-]{1,128})\{")
_HEAD_BEGUN: Final = re.compile(r"\s*(?:c|ca|cal|call|call:[\w.:/-]{0,128})?")
_KEY: Final = re.compile(r"\s*([^\s:{}\[\],<]{1,256})\s*:")
_KEY_BEGUN: Final = re.compile(r"\s*[^\s:{}\[\],<]{0,256}\s*")
_SCALAR: Final = re.compile(r"[^,{}\[\]<]*")
_MOST_NESTED: Final = 64
_WAIT: Final = -1
_BROKEN: Final = -2

_Place = Literal["head", "key", "value", "string", "colon", "behind", "tail"]


class TermsReader:
    """Everything behind a call's opener, its closer included. What it cannot decide yet it leaves for the next time."""

    def __init__(self, emitter: Emitter, syntax: CallSyntax, *, before: str) -> None:
        """`before`: white space in front of the opener, which only matters if this ends up as text."""
        self._emitter = emitter
        self._closer = syntax.closer
        self._place: _Place = "head"
        self._open: list[str] = []
        """The brackets that are open."""
        self._is_first = True
        self._is_key = False
        """Whether the open string is a key."""
        self._written = [before, syntax.opener]
        self.is_over = False
        self.is_text = False
        """Whether it ended as text."""

    def take(self, text: str, at: int) -> int:
        """Take what is decided; the index behind it."""
        while not self.is_over:
            end = self._step(text, at)
            if end == _WAIT:
                break
            if end == _BROKEN:
                self._break("")
                break
            self._written.append(text[at:end])
            at = end
        return at

    def flush(self, rest: str, *, is_cut: bool) -> None:
        """The text is over; `rest` was not taken. A call without its closer counts."""
        if self._place == "tail":
            return
        if is_cut:
            self._emitter.cut_call()
        else:
            self._break(rest)

    def _step(self, text: str, at: int) -> int:
        match self._place:
            case "head":
                return self._head(text, at)
            case "string":
                return self._string(text, at)
            case "tail":
                return self._tail(text, at)
        if at == len(text):
            return _WAIT
        if text[at] in WHITESPACE:
            return at + 1
        match self._place:
            case "key":
                return self._key(text, at)
            case "value":
                return self._value(text, at)
            case "colon":
                self._place = "value"
                return at + 1 if text[at] == ":" else _BROKEN
        return self._behind(text[at], at)

    def _head(self, text: str, at: int) -> int:
        found = _HEAD.match(text, at)
        if found is None:
            return _WAIT if _HEAD_BEGUN.fullmatch(text, at) else _BROKEN
        name = self._emitter.known_name(found[1])
        if not name:
            return _BROKEN
        self._emitter.start_call(name)
        self._enter("{")
        return found.end()

    def _key(self, text: str, at: int) -> int:
        if text[at] == "}" and self._is_first:
            return self._leave("}", at)
        if text.startswith(QUOTE, at):
            return self._begin_string(at, is_key=True)
        if QUOTE.startswith(text[at : at + len(QUOTE)]):
            return _WAIT
        found = _KEY.match(text, at)
        if found is None:
            return _WAIT if _KEY_BEGUN.fullmatch(text, at) else _BROKEN
        self._say(f"{self._comma()}{quoted(found[1])}: ")
        self._place = "value"
        return found.end()

    def _value(self, text: str, at: int) -> int:
        if text[at] == "]" and self._is_first and self._open[-1] == "[":
            return self._leave("]", at)
        if text[at] in "{[":
            if len(self._open) >= _MOST_NESTED:
                return _BROKEN
            self._say(self._comma() if self._open[-1] == "[" else "")
            self._enter(text[at])
            return at + 1
        if text.startswith(QUOTE, at):
            return self._begin_string(at, is_key=False)
        if QUOTE.startswith(text[at : at + len(QUOTE)]):
            return _WAIT
        found = _SCALAR.match(text, at)
        assert found is not None, "this pattern matches the empty string too"
        if found.end() == len(text):
            return _WAIT
        if not found[0].strip():
            return _BROKEN
        self._say((self._comma() if self._open[-1] == "[" else "") + to_json(found[0].strip(), frozenset()))
        self._place = "behind"
        return found.end()

    def _begin_string(self, at: int, *, is_key: bool) -> int:
        needs_comma = is_key or self._open[-1] == "["
        self._say((self._comma() if needs_comma else "") + '"')
        self._place, self._is_key = "string", is_key
        return at + len(QUOTE)

    def _string(self, text: str, at: int) -> int:
        place = text.find(QUOTE, at)
        end = place if place >= 0 else len(text) - held_length(text[at:], (QUOTE,))
        self._say(escaped(text[at:end]))
        if place < 0:
            return end if end > at else _WAIT
        self._say('": ' if self._is_key else '"')
        self._place = "colon" if self._is_key else "behind"
        return place + len(QUOTE)

    def _behind(self, character: str, at: int) -> int:
        if character == ",":
            self._place = "key" if self._open[-1] == "{" else "value"
            self._is_first = False
            return at + 1
        closer = "}" if self._open[-1] == "{" else "]"
        return self._leave(closer, at) if character == closer else _BROKEN

    def _tail(self, text: str, at: int) -> int:
        rest = text[at:].lstrip()
        if rest.startswith(self._closer):
            self.is_over = True
            return len(text) - len(rest) + len(self._closer)
        if self._closer.startswith(rest):
            return _WAIT
        self.is_over = True  # the call is whole; what follows is not part of it
        return at

    def _enter(self, bracket: str) -> None:
        self._open.append(bracket)
        self._say(bracket)
        self._is_first = True
        self._place = "key" if bracket == "{" else "value"

    def _leave(self, bracket: str, at: int) -> int:
        self._open.pop()
        self._say(bracket)
        self._is_first = False
        self._place = "behind" if self._open else "tail"
        if not self._open:
            self._emitter.finish_call()
        return at + 1

    def _comma(self) -> str:
        return "" if self._is_first else ", "

    def _say(self, json: str) -> None:
        self._emitter.add_arguments(json)

    def _break(self, rest: str) -> None:
        self._emitter.drop_call("".join(self._written) + rest)
        self.is_over = self.is_text = True
