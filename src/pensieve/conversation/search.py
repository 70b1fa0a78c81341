"""What people type into a search, as a query that SQLite's full-text search always understands; and what it finds.

Chinese, Japanese, Thai and the like are written without spaces, so their characters are indexed one by one.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

MIN_PREFIX_CHARACTERS = 3
"""Shorter beginnings of words match too much to be of use."""

_WORDS = re.compile(r'"([^"]*)"|(\S+)')
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])"
)
_GAP = "\u200b"
"""Separates what is indexed one by one: no width, and no part of a word."""

START_MARK, END_MARK = "\ue000", "\ue001"
"""Around what was found, in a snippet as the database gives it."""


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A turn, or a title, in which the words were found."""

    conversation: int
    turn: int | None
    """None: the words are in the title."""
    title: str
    model: str
    created: datetime
    snippet: tuple[tuple[str, bool], ...]
    """The words around, in pieces; True: this piece is what was looked for."""

    @property
    def text(self) -> str:
        """The snippet as it reads."""
        return "".join(piece for piece, _ in self.snippet)


def query_of(typed: str) -> str:
    """All the words, in any order, the last as a beginning; words in quotes together. Empty: nothing to look for."""
    found = [quoted or word for quoted, word in _WORDS.findall(typed.replace("\0", " "))]
    words = [word for word in found if any(character.isalnum() for character in word)]
    if not words:
        return ""
    last = words[-1]
    is_beginning = len(last) >= MIN_PREFIX_CHARACTERS and last.isalnum() and not typed.rstrip().endswith('"')
    return " ".join(map(_phrase, words)) + (" *" if is_beginning else "")


def indexed(text: str) -> str:
    """The text as it goes into the index."""
    cleaned = text.translate({ord(mark): None for mark in (START_MARK, END_MARK, "\0")})
    return _UNSPACED.sub(rf"\1{_GAP}", cleaned)


def snippet_of(marked: str) -> tuple[tuple[str, bool], ...]:
    """The pieces of a snippet between the marks, on one line."""
    shown = " ".join(marked.replace(_GAP, "").split())
    pieces: list[tuple[str, bool]] = []
    for place, part in enumerate(re.split(f"[{START_MARK}{END_MARK}]", shown)):
        if part:
            pieces.append((part, place % 2 == 1))
    return tuple(pieces)


def _phrase(word: str) -> str:
    spaced = indexed(word).replace('"', " ")
    return f'"{spaced.strip()}"'
