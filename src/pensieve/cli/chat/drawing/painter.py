"""Puts rows on a terminal: settled ones once, into its history, and the tail below them again only where it changed.

Never goes above the tail, so that what is settled is never touched. Knows no markup.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

from pensieve.cli.chat.drawing.spans import Row, row_cells
from pensieve.cli.chat.drawing.theme import Theme

CLEAR_LINE, CLEAR_BELOW = "\x1b[K", "\x1b[J"
BEGIN_FRAME, END_FRAME = "\x1b[?2026h", "\x1b[?2026l"
"""Terminals that know these show a frame at once; the others pass them over."""


class Size(NamedTuple):
    """Of a terminal, in characters."""

    columns: int
    rows: int


def size_of(out: TextIO) -> Size:
    """The terminal's size now; 80 by 24 where it does not tell."""
    try:
        columns, rows = os.get_terminal_size(out.fileno())
    except OSError:
        return Size(80, 24)
    return Size(columns or 80, rows or 24)


class Painter:
    """One terminal; the cursor stands at the end of the tail."""

    def __init__(self, out: TextIO, size: Callable[[], Size]) -> None:
        self._out = out
        self._size = size
        self._tail: list[str] = []
        """What stands there, as it was painted."""
        self._tail_cells = 0
        """How wide its widest row is."""

    def paint(self, theme: Theme, settled: Sequence[Row], tail: Sequence[Row]) -> None:
        """Draw settled rows in the place of the tail that was, and the new tail below them."""
        columns, num_rows = self._size()
        if self._tail_cells >= columns:
            self._leave_tail()  # the window became narrower, and where the tail begins now cannot be known
        tail = tail[-max(1, num_rows - 1) :]
        rows = [theme.paint(row) for row in (*settled, *tail)]
        if text := self._change(rows):
            self._write(f"{BEGIN_FRAME}{text}{END_FRAME}" if text.count("\n") else text)
        self._tail = rows[len(settled) :]
        self._tail_cells = max((row_cells(row) for row in tail), default=0)
        if not tail and settled:
            self._write("\r\n")

    def end(self) -> None:
        """Leave what stands there, and begin a line."""
        if self._tail:
            self._leave_tail()

    def write(self, text: str) -> None:
        """Write codes that move nothing."""
        self._write(text)

    def _leave_tail(self) -> None:
        self._write("\r\n")
        self._tail, self._tail_cells = [], 0

    def _change(self, rows: Sequence[str]) -> str:
        """What makes the rows of the tail that stands there."""
        old = self._tail
        same = 0
        while same < min(len(old), len(rows)) and old[same] == rows[same]:
            same += 1
        if same == len(old) == len(rows):
            return ""
        if same == len(old):
            return ("\r\n" if old else "") + "\r\n".join(rows[same:])
        if same == len(old) - 1 and same < len(rows) and rows[same].startswith(old[same]):
            return "\r\n".join([rows[same][len(old[same]) :], *rows[same + 1 :]])
        up = len(old) - 1 - same
        if same == len(rows):  # fewer rows: go to the end of the last one that stays
            return self._shortened(rows, old)
        go = f"\x1b[{up}A\r" if up else "\r"
        return f"{go}{CLEAR_BELOW if len(old) > same + 1 else CLEAR_LINE}" + "\r\n".join(rows[same:])

    def _shortened(self, rows: Sequence[str], old: Sequence[str]) -> str:
        up = len(old) - len(rows)
        if not rows:
            return (f"\x1b[{up - 1}A" if up > 1 else "") + f"\r{CLEAR_BELOW}"
        return f"\x1b[{up}A\r{CLEAR_BELOW}{rows[-1]}"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
