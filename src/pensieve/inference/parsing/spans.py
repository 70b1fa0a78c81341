"""Pieces that both kinds of parser use: markers found in unfinished text, and where a JSON value ends.

Values in, places out; makes no events.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from pensieve.messages import Json

WHITESPACE: Final = " \t\r\n"
_STRING_RUN: Final = re.compile(r'[^"\\]*')
_OPEN_RUN: Final = re.compile(r'[^"{}\[\]]*')
_SCALAR_RUN: Final = re.compile(r"[-+.\w]*")


def first_marker(text: str, markers: Sequence[str]) -> tuple[int, str]:
    """Place and text of the earliest marker, the longest where two begin together; (-1, "") if there is none."""
    found = [(place, -len(marker), marker) for marker in markers if (place := text.find(marker)) >= 0]
    if not found:
        return -1, ""
    place, _, marker = min(found)
    return place, marker


def held_length(text: str, markers: Sequence[str]) -> int:
    """How much of the text's end could be the beginning of a marker."""
    return max((_overlap(text, marker) for marker in markers), default=0)


def _overlap(text: str, marker: str) -> int:
    longest = min(len(marker) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(marker[:size])), 0)


class JsonSpan:
    """Finds the end of one JSON value in text that arrives in pieces. Whether it is JSON, `value` says in the end."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._kind = ""
        self._depth = 0
        self._is_in_string = False
        self._ends_in_escape = False
        self._num_drained = 0
        self.is_done = False

    @property
    def text(self) -> str:
        """What belongs to the value so far."""
        return "".join(self._pieces)

    @property
    def is_object(self) -> bool:
        """Whether it began as an object."""
        return self._kind == "{"

    def take(self, text: str, at: int) -> int:
        """Take what belongs to the value, from `text[at:]`; the index behind it."""
        start = at
        self._kind = self._kind or text[at]
        while at < len(text) and not self.is_done:
            at = self._in_string(text, at) if self._is_in_string else self._outside(text, at)
        self._pieces.append(text[start:at])
        return at

    def drain(self) -> str:
        """What was taken since the last time."""
        fresh = "".join(self._pieces[self._num_drained :])
        self._num_drained = len(self._pieces)
        return fresh

    def value(self) -> Json:
        """The value itself. Raises `ValueError` if it is not JSON."""
        try:
            return msgspec.json.decode(self.text)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
            raise ValueError(str(error)) from error

    def _in_string(self, text: str, at: int) -> int:
        if self._ends_in_escape:
            self._ends_in_escape = False
            return at + 1
        at = _end(_STRING_RUN, text, at)
        if at == len(text):
            return at
        if text[at] == "\\":
            self._ends_in_escape = True
        else:
            self._is_in_string = False
            self.is_done = self._depth == 0
        return at + 1

    def _outside(self, text: str, at: int) -> int:
        if self._kind not in '"{[':
            at = _end(_SCALAR_RUN, text, at)
            self.is_done = at < len(text)
            return at
        at = _end(_OPEN_RUN, text, at)
        if at == len(text):
            return at
        match text[at]:
            case '"':
                self._is_in_string = True
            case "{" | "[":
                self._depth += 1
            case _:
                self._depth -= 1
                self.is_done = self._depth <= 0
        return at + 1


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None, "these patterns match the empty string too"
    return found.end()


def is_arguments(span: JsonSpan) -> bool:
    """Whether the finished value can be a tool's arguments: a JSON object that parses."""
    try:
        return isinstance(span.value(), dict)
    except ValueError:
        return False
