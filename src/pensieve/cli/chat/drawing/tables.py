"""Tables of an answer: held back until their columns are known, then drawn row by row. Knows no terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from pensieve.cli.chat.drawing.inline import resolve
from pensieve.cli.chat.drawing.spans import Flow, Row, Span, merged, row_cells

HELD_ROWS = 12
"""After so many rows the columns stay as they are, and each further row is drawn once."""
MAX_COLUMNS = 24
MIN_CELL_COLUMNS = 4
GAP = "  "
_SEPARATOR = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*")
_BORDER = re.compile(r"(?<!\\)\|")


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table."""
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return [cell.strip().replace("\\|", "|") for cell in _BORDER.split(inner)]


class TableBlock:
    """The lines of one table."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._held: list[list[str]] = []
        self._widths: list[int] = []
        self._has_heading = False

    def feed(self, line: str) -> list[Row]:
        """Take a whole line; the rows that are drawn for good."""
        if len(self._held) == 1 and not self._has_heading and _SEPARATOR.fullmatch(line[:2_000]):
            self._has_heading = True
            return []
        if self._widths:
            return self._drawn(self._cells(line), "")
        self._held.append(self._cells(line))
        return self._settle() if len(self._held) > HELD_ROWS else []

    def end(self) -> list[Row]:
        """The rows that were held back."""
        return [] if self._widths else self._settle()

    def tail(self) -> list[Row]:
        """What is held back, as it looks with what is known so far."""
        return [] if self._widths else self._rows(self._fitted())

    def _cells(self, line: str) -> list[str]:
        """As many cells as there is room for; the last one has the rest: no row is wider than the screen."""
        cells = cells_of(line)
        most = min(MAX_COLUMNS, max(1, (self._width + len(GAP)) // (MIN_CELL_COLUMNS + len(GAP))))
        return cells if len(cells) <= most else [*cells[: most - 1], " | ".join(cells[most - 1 :])]

    def _settle(self) -> list[Row]:
        widths = self._fitted()
        rows = self._rows(widths)
        self._widths, self._held = widths, []
        return rows

    def _rows(self, widths: Sequence[int]) -> list[Row]:
        rows: list[Row] = []
        for number, cells in enumerate(self._held):
            is_heading = self._has_heading and number == 0
            rows += self._drawn(cells, "bold" if is_heading else "", widths)
            if is_heading:
                rows.append((Span(GAP.join("─" * width for width in widths), "dim"),))
        return rows

    def _drawn(self, cells: list[str], style: str, widths: Sequence[int] = ()) -> list[Row]:
        widths = widths or self._widths
        columns = [
            _wrapped(_spans(cells[place], style) if place < len(cells) else [], width)
            for place, width in enumerate(widths)
        ]
        return [_joined(row, widths) for row in zip_longest(*columns, fillvalue=())]

    def _fitted(self) -> list[int]:
        """As wide as the cells are; where that is too wide, the widest columns give."""
        num_columns = max((len(cells) for cells in self._held), default=0)
        widths = [
            max(1, *(row_cells(_spans(cells[place], "")) for cells in self._held if place < len(cells)))
            for place in range(num_columns)
        ]
        room = max(self._width - len(GAP) * (num_columns - 1), MIN_CELL_COLUMNS * num_columns)
        while sum(widths) > room:
            widest = widths.index(max(widths))
            widths[widest] -= 1
        return widths


def _spans(cell: str, style: str) -> list[Span]:
    return resolve(cell[:2_000], style, is_complete=True)[0]


def _wrapped(spans: list[Span], width: int) -> list[Row]:
    flow = Flow(width)
    return [*flow.add(spans), *flow.rest()]


def _joined(columns: Sequence[Row], widths: Sequence[int]) -> Row:
    spans: list[Span] = []
    for row, width in zip(columns, widths, strict=True):
        spans += [*row, Span(" " * (width - row_cells(row))), Span(GAP)]
    whole = merged(spans)
    last = Span(whole[-1].text.rstrip(), whole[-1].style) if whole else Span("")
    return (*whole[:-1], last)
