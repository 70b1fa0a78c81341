"""A tool call as people read it: name and arguments on one row, or below each other where they are long.

Knows no terminal.
"""

from __future__ import annotations

import msgspec

from pensieve.cli.chat.drawing.code import CodeBlock
from pensieve.cli.chat.drawing.spans import Row, Span, cut, row_cells
from pensieve.cli.text import one_line, printable
from pensieve.messages import Json

MAX_CHARACTERS = 20_000
"""More of the arguments is not shown."""


class Call:
    """One call, while its arguments come."""

    def __init__(self, name: str, width: int) -> None:
        self._name = one_line(name) or "?"
        self._width = width
        self._json = ""
        self._num_characters = 0

    def feed(self, json: str) -> None:
        """Take more of the arguments."""
        self._num_characters += len(json)
        if len(self._json) < MAX_CHARACTERS:
            self._json += json

    def tail(self) -> list[Row]:
        """The call while it is written."""
        written = f" {self._num_characters:,} characters" if self._num_characters > 200 else ""
        return [(Span("  → ", "tool"), Span(self._name, "tool"), Span(f" …{written}", "dim"))]

    def end(self) -> list[Row]:
        """The call, complete."""
        head = (Span("  → ", "tool"), Span(self._name, "tool"))
        if self._num_characters > MAX_CHARACTERS:
            return [(*head, Span(f"  {self._num_characters:,} characters of arguments", "dim"))]
        arguments = _decoded(self._json)
        short = Span(f"({_short(arguments)})")
        if row_cells((*head, short)) <= self._width and "\n" not in short.text:
            return [(*head, short)]
        return [head, *self._below(arguments)]

    def _below(self, arguments: Json) -> list[Row]:
        if not isinstance(arguments, dict):
            return [(piece,) for piece in cut(Span(f"    {one_line(str(arguments))}"), self._width)]
        rows: list[Row] = []
        for name, value in arguments.items():
            label = Span(f"    {one_line(name)}: ", "dim")
            lines = printable(value).split("\n") if isinstance(value, str) else [_json(value)]
            if len(lines) == 1 and row_cells((label, Span(lines[0]))) <= self._width:
                rows.append((label, Span(lines[0])))
                continue
            block = CodeBlock(self._width, indent=6)
            rows.append((label,))
            for line in lines:
                rows += [*block.feed(line), *block.end_line()]
        return rows


def _decoded(json: str) -> Json:
    try:
        return msgspec.json.decode(json or "{}")
    except msgspec.DecodeError:
        return json


def _short(arguments: Json) -> str:
    if not isinstance(arguments, dict):
        return one_line(str(arguments))
    return ", ".join(f"{one_line(name)}={_json(value)}" for name, value in arguments.items())


def _json(value: Json) -> str:
    return printable(msgspec.json.encode(value).decode())
