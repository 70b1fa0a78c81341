"""Calls whose arguments are elements, not JSON: `<parameter=KEY>VALUE</parameter>` and `<arg_key>KEY</arg_key>...`.

Values go out as JSON while they are written. A closer only ends a value where what must follow it does follow, so a
value may hold one. One reader per body; no engine, no template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from pensieve.inference.parsing.argument_types import Types, escaped, quoted, to_json, types_of
from pensieve.inference.parsing.emitter import Emitter
from pensieve.inference.parsing.grammar import CallSyntax
from pensieve.inference.parsing.spans import WHITESPACE, held_length

_NAME: Final = re.compile(r"[\w.:/-]{1,128}")
_BARE_NAME: Final = re.compile(r"([\w.:/-]{1,128})(?=[\s<])")
_MOST_KEY_CHARACTERS: Final = 256
_WAIT: Final = -1
_BROKEN: Final = -2

_Place = Literal["head", "next", "value opener", "value", "closed", "tail"]


class _Marks(msgspec.Struct, frozen=True):
    """What stands around name, keys and values."""

    head: str
    """Before the name; empty: the name stands bare."""
    head_end: str
    key: str
    key_end: str
    value: str
    value_end: str
    call_end: str
    """Empty: the call ends with the body's closer."""
    has_line_breaks: bool
    """One line break on either side of a value is markup."""


_MARKS: Final = {
    "elements": _Marks("<function=", ">", "<parameter=", ">", "", "</parameter>", "</function>", True),
    "pairs": _Marks("", "", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "", False),
}


class ElementsReader:
    """Everything behind a call's opener, its closer included. What it cannot decide yet it leaves for the next time."""

    def __init__(self, emitter: Emitter, syntax: CallSyntax, *, before: str) -> None:
        """`before`: white space in front of the opener, which only matters if this ends up as text."""
        self._emitter = emitter
        self._marks = _MARKS[syntax.form]
        self._closer = syntax.closer
        ends = filter(None, (self._marks.call_end, syntax.closer))
        self._follow = (self._marks.key, *ends)
        self._place: _Place = "head"
        self._name = ""
        self._keys: list[str] = []
        self._types: Types = frozenset()
        self._is_verbatim = False
        self._raw: list[str] = []
        self._is_begun = False
        """Whether the open value has said something."""
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
        """The text is over; `rest` was not taken. A call without its last closers counts."""
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
            case "next":
                return self._next(text, at)
            case "value opener":
                return self._expect(text, at, self._marks.value, "value")
            case "value":
                return self._value(text, at)
            case "closed":
                return self._close_value(text, at)
        end = self._expect(text, at, self._closer, "tail")
        self.is_over = end not in {_WAIT, _BROKEN}
        if end == _BROKEN:  # the call is whole; what follows is not part of it
            self.is_over = True
            return at
        return end

    def _head(self, text: str, at: int) -> int:
        marks, start = self._marks, _skip_space(text, at)
        if marks.head:
            name, end = _enclosed(text, start, marks.head, marks.head_end)
        else:
            found = _BARE_NAME.match(text, start)
            is_possible = _NAME.fullmatch(text, start) is not None or start == len(text)
            name, end = (found[1], found.end()) if found else ("", _WAIT if is_possible else _BROKEN)
        if end < 0:
            return end
        self._name = self._emitter.known_name(name.strip())
        if not _NAME.fullmatch(self._name):
            return _BROKEN
        self._emitter.start_call(self._name)
        self._emitter.add_arguments("{")
        self._place = "next"
        return end

    def _next(self, text: str, at: int) -> int:
        start = _skip_space(text, at)
        which = _begins(text, start, self._follow)
        if which in {_WAIT, _BROKEN}:
            return which
        if which > 0:
            return self._end_call(start, self._follow[which])
        key, end = _enclosed(text, start, self._marks.key, self._marks.key_end)
        if end < 0:
            return end
        if not key or key in self._keys:
            return _BROKEN
        self._begin_value(key)
        return end

    def _begin_value(self, key: str) -> None:
        types = types_of(self._emitter.tools, self._name, key)
        self._is_verbatim, self._types = types == {"string"}, types
        opening = '"' if self._is_verbatim else ""
        self._emitter.add_arguments(f"{', ' if self._keys else ''}{quoted(key)}: {opening}")
        self._keys.append(key)
        self._raw.clear()
        self._is_begun = False
        self._place = "value opener" if self._marks.value else "value"

    def _value(self, text: str, at: int) -> int:
        """Hand on what surely belongs to the value."""
        if not self._is_begun:
            if at == len(text):
                return _WAIT
            self._is_begun = True
            if self._marks.has_line_breaks and text[at] == "\n":
                return at + 1
        closer = self._marks.value_end
        place = text.find(closer, at)
        if place < 0:
            lines = (f"\n{closer}", closer) if self._marks.has_line_breaks else (closer,)
            end = len(text) - held_length(text[at:], lines)
            self._say(text[at:end])
            return end if end > at else _WAIT
        has_break = self._marks.has_line_breaks and place > at and text[place - 1] == "\n"
        end = place - has_break
        self._say(text[at:end])
        self._place = "closed"
        return end

    def _close_value(self, text: str, at: int) -> int:
        """Behind the value a closer stands: is it the value's?"""
        closer = self._marks.value_end
        start = text.index(closer, at) + len(closer)
        follows = _begins(text, _skip_space(text, start), self._follow)
        if follows == _WAIT:
            return _WAIT
        if follows == _BROKEN:
            self._say(text[at:start])
            self._place = "value"
            return start
        self._emitter.add_arguments('"' if self._is_verbatim else to_json("".join(self._raw), self._types))
        self._place = "next"
        return start

    def _end_call(self, start: int, marker: str) -> int:
        self._emitter.add_arguments("}")
        self._emitter.finish_call()
        self._place = "tail"
        return start if marker == self._closer else start + len(marker)

    def _expect(self, text: str, at: int, marker: str, then: _Place) -> int:
        start = _skip_space(text, at)
        which = _begins(text, start, (marker,))
        if which in {_WAIT, _BROKEN}:
            return which
        self._place = then
        return start + len(marker)

    def _say(self, text: str) -> None:
        if self._is_verbatim:
            self._emitter.add_arguments(escaped(text))
        else:
            self._raw.append(text)

    def _break(self, rest: str) -> None:
        self._emitter.drop_call("".join(self._written) + rest)
        self.is_over = self.is_text = True


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in WHITESPACE:
        at += 1
    return at


def _begins(text: str, at: int, markers: Sequence[str]) -> int:
    """Which of the markers stands there; `_WAIT` if one still may, else `_BROKEN`."""
    which = next((number for number, marker in enumerate(markers) if text.startswith(marker, at)), _BROKEN)
    rest = text[at : at + max(map(len, markers))]
    return _WAIT if which == _BROKEN and any(marker.startswith(rest) for marker in markers) else which


def _enclosed(text: str, at: int, opener: str, closer: str) -> tuple[str, int]:
    """What stands between the two, and the index behind; `_WAIT` or `_BROKEN` instead of the index."""
    which = _begins(text, at, (opener,))
    if which in {_WAIT, _BROKEN}:
        return "", which
    start = at + len(opener)
    end = text.find(closer, start, start + _MOST_KEY_CHARACTERS)
    if end < 0:
        return "", _WAIT if len(text) - start < _MOST_KEY_CHARACTERS else _BROKEN
    return text[start:end], end + len(closer)
