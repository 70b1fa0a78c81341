"""Styled text, and words flowing into rows of a width. Knows no markup, no colour and no terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from copy import copy
from typing import NamedTuple, Self

_ALONE = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uff60"
_WIDE = re.compile(f"[{_ALONE}]")
_WORDS = re.compile(rf"\s+|[{_ALONE}]|[^\s{_ALONE}]+")
"""White space, a character that may stand alone at the end of a row, or a word."""
TAB = "    "


class Span(NamedTuple):
    """Text without newlines; `style` is names of a theme, separated by spaces, the last one strongest."""

    text: str
    style: str = ""


Row = tuple[Span, ...]


def cells(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import get_character_cell_size  # noqa: PLC0415 - slow to import, and most text does not need it

    return sum(map(get_character_cell_size, text))


def row_cells(row: Iterable[Span]) -> int:
    """How many columns the row takes."""
    return sum(cells(span.text) for span in row)


def merged(spans: Iterable[Span]) -> Row:
    """The same text with neighbours of one style joined."""
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].style == span.style:
            joined[-1] = Span(joined[-1].text + span.text, span.style)
        elif span.text:
            joined.append(span)
    return tuple(joined)


def cut(span: Span, width: int) -> Iterator[Span]:
    """The span in pieces that take at most `width` columns each; a character that is wider stands alone."""
    piece, used = "", 0
    for character in span.text:
        size = cells(character)
        if piece and used + size > width:
            yield Span(piece, span.style)
            piece, used = "", 0
        piece, used = piece + character, used + size
    if piece:
        yield Span(piece, span.style)


class Flow:
    """Takes spans as they come and gives each row once, when it is full; what is not full yet is `rest`."""

    def __init__(self, width: int, first: Row = (), following: Row = ()) -> None:
        """`first` and `following` are what rows begin with; the width counts them."""
        self._width = max(width, row_cells(first) + 1, row_cells(following) + 1)
        self._following = following
        self._row, self._used, self._num_margin = list(first), row_cells(first), len(first)
        self._word: list[Span] = []
        self._word_cells = 0
        self._is_fresh = True
        """Whether the row has nothing but what it began with."""
        self._is_first = True
        self._is_splitting = False
        """Whether a word that is longer than a row goes on."""

    def add(self, spans: Iterable[Span]) -> list[Row]:
        """The rows that are full now."""
        full: list[Row] = []
        for span in spans:
            for found in _WORDS.finditer(span.text):
                self._take(Span(found[0].replace("\t", TAB), span.style), full)
        return full

    def rest(self, more: Iterable[Span] = ()) -> list[Row]:
        """The rows there would be if these spans were the end; changes nothing."""
        twin = copy(self)
        return [*twin.add(more), *twin.finish()]

    def finish(self) -> list[Row]:
        """The rows that are left."""
        full: list[Row] = []
        self._place(full)
        return [*full, merged(self._row)]

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__ |= self.__dict__ | {"_row": list(self._row), "_word": list(self._word)}
        return twin

    def _take(self, piece: Span, full: list[Row]) -> None:
        if piece.text.isspace():
            self._space(piece, full)
        elif _WIDE.match(piece.text):
            self._place(full)
            self._add(piece)
            self._place(full)
        elif self._is_splitting:
            self._split([piece], full)
        else:
            self._add(piece)
            if self._word_cells > self._width - row_cells(self._following):
                self._place(full)
                self._is_splitting = True

    def _add(self, piece: Span) -> None:
        self._word.append(piece)
        self._word_cells += cells(piece.text)

    def _space(self, piece: Span, full: list[Row]) -> None:
        self._place(full)
        if self._is_fresh and not self._is_first:
            return
        size = cells(piece.text)
        if self._used + size > self._width:
            self._break(full)
        else:
            self._row.append(piece)
            self._used += size

    def _place(self, full: list[Row]) -> None:
        """Put the word into the row, or into the next one; a word ends here."""
        word, size = self._word, self._word_cells
        self._word, self._word_cells, self._is_splitting = [], 0, False
        if not word:
            return
        if self._used + size > self._width and not self._is_fresh:
            self._break(full)
        if self._used + size <= self._width:
            self._row += word
            self._used += size
            self._is_fresh = False
        else:
            self._split(word, full)

    def _split(self, word: Iterable[Span], full: list[Row]) -> None:
        for span in word:
            for character in span.text:
                size = cells(character)
                if self._used + size > self._width and not self._is_fresh:
                    self._break(full)
                self._row.append(Span(character, span.style))
                self._used += size
                self._is_fresh = False

    def _break(self, full: list[Row]) -> None:
        while len(self._row) > self._num_margin and self._row[-1].text.isspace():
            self._row.pop()
        full.append(merged(self._row))
        self._row, self._num_margin = list(self._following), len(self._following)
        self._used = row_cells(self._following)
        self._is_fresh, self._is_first = True, False
