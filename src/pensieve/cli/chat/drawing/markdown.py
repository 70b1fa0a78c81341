"""Markdown, drawn while it comes: each piece of text is looked at once, each row given out once. Knows no terminal.

A line of the source is a line on the screen, as in a chat; what a line is (heading, item, code) shows at its beginning.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pensieve.cli.chat.drawing.code import CodeBlock
from pensieve.cli.chat.drawing.inline import preview, resolve
from pensieve.cli.chat.drawing.spans import Flow, Row, Span, row_cells
from pensieve.cli.chat.drawing.tables import TableBlock
from pensieve.cli.text import printable

UNDECIDED_CHARACTERS = 200
"""A line is held back whole until it is this long; what it is can be told by then."""
MAX_INDENT = 12
NARROWEST_TEXT = 8

_FENCE = re.compile(r"(\s{0,12})(`{3,}|~{3,})\s*([^\s`]*)[^`]*")
_HEADING = re.compile(r" {0,3}(#{1,6})\s+")
_RULE = re.compile(r" {0,3}([-*_])\s*(?:\1\s*){2,}")
_QUOTE = re.compile(r" {0,3}>\s?")
_ITEM = re.compile(r"(\s*)([-*+]|\d{1,9}[.)])\s+(\[[ xX]\]\s+)?")
_MARKUP_ONLY = re.compile(r"\s*([-*+_`~#>]{1,6}|\d{1,9}[.)]?)?\s*")
_BEGINS_TABLE = re.compile(r"\s*\|")


class Beginning(NamedTuple):
    """What stands before the text of a line, on its first row and on the following ones, and the text's style."""

    first: Row = ()
    following: Row = ()
    style: str = ""


def beginning_of(line: str) -> tuple[Beginning, str]:
    """How the line begins, and the text that is left."""
    first: list[Span] = []
    while (quote := _QUOTE.match(line)) and len(first) < 4:
        first.append(Span("│ ", "dim"))
        line = line[quote.end() :]
    style = "quote" if first else ""
    if heading := _HEADING.match(line):
        return Beginning(tuple(first), tuple(first), "heading1" if len(heading[1]) < 3 else "heading"), line[
            heading.end() :
        ].rstrip("# ")
    if item := _ITEM.match(line):
        indent = min(len(item[1].expandtabs(4)), MAX_INDENT)
        bullet = "•" if item[2] in "-*+" else item[2]
        box = "" if item[3] is None else ("☐ " if item[3][1] == " " else "☑ ")
        marker = Span(f"{' ' * indent}{bullet} {box}", "bullet")
        following = Span(" " * row_cells((marker,)))
        return Beginning((*first, marker), (*first, following), style), line[item.end() :]
    text = line.lstrip()
    indent = min(len(line[: len(line) - len(text)].expandtabs(4)), MAX_INDENT)
    margin = (Span(" " * indent),) if indent else ()
    return Beginning((*first, *margin), (*first, *margin), style), text


class TextLine:
    """One line of text, which may be very long."""

    def __init__(self, line: str, width: int) -> None:
        """`line` may be only the beginning; it is not fed yet."""
        beginning, self._pending = beginning_of(line)
        first, following, self._style = beginning
        room = max(width, row_cells(first) + NARROWEST_TEXT)
        self._flow = Flow(room, first, following)
        self._before = " "

    def feed(self, text: str = "", *, is_complete: bool = False) -> list[Row]:
        """Take more of the line; the rows that are full and certain."""
        source = self._pending + text
        spans, end = resolve(source, self._style, before=self._before, is_complete=is_complete)
        self._before = source[end - 1] if end else self._before
        self._pending = source[end:]
        return self._flow.add(spans)

    def tail(self) -> list[Row]:
        """The rest, as it looks with what is known so far."""
        return self._flow.rest(preview(self._pending, self._style) if self._pending else ())


class Markdown:
    """Takes text in any pieces; `take` gives rows for good, `tail` those that may still change."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._settled: list[Row] = []
        self._line = ""
        """The current line, until it is decided what it is."""
        self._text: TextLine | None = None
        self._code: CodeBlock | None = None
        self._is_in_code_line = False
        """Whether the current line of code has begun: it is not the fence that ends the block."""
        self._fence = ""
        self._indent = 0
        self._table: TableBlock | None = None
        self._is_blank_due = False
        self._has_begun = False

    def feed(self, text: str) -> None:
        """Take more text, of any origin."""
        *lines, rest = printable(text).replace("\r", "").split("\n")
        for line in lines:
            self._more(line)
            self._end_line()
        self._more(rest)

    def finish(self) -> None:
        """The text is over."""
        if self._line or self._text or self._is_in_code_line:
            self._end_line()
        self._end_table()
        if self._code is not None:
            self._end_code()

    def resize(self, width: int) -> None:
        """Draw what begins from now on for another width."""
        self._width = width

    def take(self) -> list[Row]:
        """The rows that are settled since the last time."""
        rows, self._settled = self._settled, []
        return rows

    def tail(self) -> list[Row]:
        """The rows of what is not settled."""
        blank: list[Row] = [()] if self._is_blank_due else []
        if self._code is not None:
            return self._code.tail() if self._is_in_code_line else []
        if self._text is not None:
            return self._text.tail()
        table = self._table.tail() if self._table else []
        if _MARKUP_ONLY.fullmatch(self._line) or _FENCE.fullmatch(self._line) or _BEGINS_TABLE.match(self._line):
            return table
        line = TextLine(self._line, self._width)
        return [*table, *blank, *line.feed(is_complete=False), *line.tail()]

    # Lines.

    def _more(self, text: str) -> None:
        if not text:
            return
        if self._text is not None:
            self._settle(self._text.feed(text))
        elif self._code is not None and self._is_in_code_line:
            self._settle(self._code.feed(text))
        else:
            self._line += text
            self._decide()

    def _decide(self) -> None:
        """Begin the line as what it is, if that can be told."""
        if self._code is not None:
            if not self._may_end_code(self._line):
                self._begin_line_of_code()
        elif len(self._line) > UNDECIDED_CHARACTERS and not self._is_table_row():
            self._open_text()

    def _end_line(self) -> None:
        if self._text is not None:
            self._close_text()
        elif self._code is not None:
            self._end_line_of_code()
        else:
            self._end_short_line()
        self._line = ""

    def _end_short_line(self) -> None:
        line = self._line
        if self._is_table_row():
            self._add_to_table(line)
            return
        self._end_table()
        if fence := _FENCE.fullmatch(line):
            self._begin_code(fence)
        elif not line.strip():
            self._is_blank_due = self._has_begun
        elif _RULE.fullmatch(line):
            self._settle([(Span("─" * min(self._width, 40), "dim"),)])
        else:
            self._open_text()
            self._close_text()

    def _open_text(self) -> None:
        self._end_table()
        self._text, self._line = TextLine(self._line, self._width), ""
        self._settle(self._text.feed())

    def _close_text(self) -> None:
        assert self._text is not None
        self._settle([*self._text.feed(is_complete=True), *self._text.tail()])
        self._text = None

    def _settle(self, rows: list[Row]) -> None:
        if rows and self._is_blank_due:
            self._settled.append(())
            self._is_blank_due = False
        self._has_begun = self._has_begun or bool(rows)
        self._settled += rows

    # Code.

    def _begin_code(self, fence: re.Match[str]) -> None:
        self._indent = min(len(fence[1].expandtabs(4)), MAX_INDENT)
        self._fence = fence[2]
        self._code = CodeBlock(self._width, fence[3], self._indent)
        self._settle([(Span(f"{' ' * self._indent}── {fence[3]}".rstrip(), "dim"),)])

    def _may_end_code(self, line: str) -> bool:
        """Whether the line, so far, may be the fence that ends the block."""
        text = line.strip()
        return len(line) < 80 and set(text) <= {self._fence[0]}

    def _begin_line_of_code(self) -> None:
        assert self._code is not None
        margin = len(self._line) - len(self._line.lstrip(" "))
        line, self._line = self._line[min(margin, self._indent) :], ""
        self._is_in_code_line = True
        self._settle(self._code.feed(line))

    def _end_line_of_code(self) -> None:
        assert self._code is not None
        text = self._line.strip()
        if not self._is_in_code_line and len(text) >= len(self._fence) and set(text) == {self._fence[0]}:
            self._end_code()
            return
        if not self._is_in_code_line:
            self._begin_line_of_code()
        self._settle(self._code.end_line())
        self._is_in_code_line = False

    def _end_code(self) -> None:
        self._code = None
        self._settle([(Span(f"{' ' * self._indent}──", "dim"),)])

    # Tables.

    def _is_table_row(self) -> bool:
        return len(self._line) < 4_000 and _BEGINS_TABLE.match(self._line) is not None

    def _add_to_table(self, line: str) -> None:
        if self._table is None:
            self._table = TableBlock(self._width)
        self._settle(self._table.feed(line))

    def _end_table(self) -> None:
        if self._table is not None:
            table, self._table = self._table, None
            self._settle(table.end())
