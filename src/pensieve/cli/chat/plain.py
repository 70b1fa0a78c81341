"""A screen that never moves the cursor: for pipes, files and dumb terminals.

Answers go to standard output as they come, everything else to standard error. Knows no session and no backend.
"""

from __future__ import annotations

import os
import textwrap
from itertools import zip_longest
from typing import TextIO

import click

from pensieve.cli.chat.clipboard import put_on_clipboard
from pensieve.cli.chat.screen import Markdown, Shown, Table
from pensieve.cli.text import one_line, printable
from pensieve.errors import UsageError
from pensieve.generation import (
    Finished,
    GenerationEvent,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from pensieve.messages import Message

MIN_CELL_COLUMNS = 12
DIM, PLAIN = "\x1b[2m", "\x1b[0m"
ENDINGS = {
    "length": "cut off after {tokens} tokens, the limit asked for: --max-tokens raises it, in the chat /set max_tokens",
    "context_full": "cut off after {tokens} tokens: the context is full",
    "repetition": "stopped after {tokens} tokens: the model only repeated itself",
    "refusal": "the model refused to go on",
}


def edited(text: str) -> str | None:
    """The text as it came out of the person's editor; None: it was left as it was."""
    try:
        return click.edit(text)
    except click.ClickException as error:
        raise UsageError(f"the editor could not be used ({error.format_message()}): EDITOR says which one") from error


def ending(finished: Finished) -> str:
    """Why the answer is not whole; empty if it is."""
    return ENDINGS.get(finished.reason, "").format(tokens=finished.usage.completion_tokens)


class PlainScreen:
    """See `Screen`. Thinking is shown on a terminal, left out of a pipe; nobody is asked unless somebody is there."""

    def __init__(self, out: TextIO, notes: TextIO, *, is_interactive: bool = False) -> None:
        self._out = out
        self._notes = notes
        self._is_terminal = out.isatty()
        self._is_styled = self._is_terminal and has_colour()
        self._is_interactive = is_interactive
        self._is_at_line_start = True
        self._is_thinking = False

    def begin(self) -> None:
        """See `Screen.begin`."""
        self.end()

    def refresh(self) -> None:
        """See `Screen.refresh`; nothing moves here."""

    def draw(self, event: GenerationEvent) -> None:
        """See `Screen.draw`."""
        match event:
            case TextDelta(text):
                self._stop_thinking()
                self._write(printable(text))
            case ThinkingDelta(text) if self._is_terminal:
                self._think(printable(text))
            case ThinkingFinished():
                self._stop_thinking()
            case ToolCallStarted() | ToolCallDelta() | ToolCallFinished():
                self._call(event)
            case Finished():
                self.end()
                self.tell_ending(event)

    def end(self, *, is_interrupted: bool = False) -> None:
        """See `Screen.end`."""
        if self._is_thinking and self._is_styled:
            self._out.write(PLAIN)
        self._is_thinking = False
        if not self._is_at_line_start:
            self._write("\n")
        if is_interrupted:
            self.say("(stopped)")

    def write(self, text: str) -> None:
        """Draw a whole answer at once."""
        self._write(printable(text))
        self.end()

    def tell_ending(self, finished: Finished) -> None:
        """Say why the answer is not whole, if it is not."""
        if problem := ending(finished):
            self.say(problem)

    def say(self, text: str) -> None:
        """See `Screen.say`."""
        self._tell(printable(text))

    def warn(self, text: str) -> None:
        """See `Screen.warn`."""
        self._tell(f"warning: {one_line(text)}")

    def fail(self, problem: str) -> None:
        """See `Screen.fail`."""
        self._tell(f"error: {one_line(problem)}")

    def show(self, shown: Shown) -> None:
        """See `Screen.show`."""
        match shown:
            case Table():
                self._tell("\n".join(line for line, _ in table_lines(shown)))
            case Markdown(text):
                self._tell(printable(text))
            case Message(role):
                self._tell(f"{'> ' if role == 'user' else ''}{printable(shown.text)}")

    def page(self, text: str) -> None:
        """See `Screen.page`."""
        if self._is_interactive and self._is_terminal:
            click.echo_via_pager(printable(text))
        else:
            self._tell(printable(text))

    def confirm(self, question: str, *, default: bool = False) -> bool:
        """See `Screen.confirm`."""
        if not self._is_interactive:
            return default
        choices = "[Y/n]" if default else "[y/N]"
        answer = self._read(f"{one_line(question)} {choices}: ")
        if answer is None:
            return False
        return default if not answer.strip() else answer.strip().lower() in {"y", "yes"}

    def ask(self, question: str, default: str = "") -> str | None:
        """See `Screen.ask`."""
        if not self._is_interactive:
            return None
        shown_default = f" [{one_line(default)}]" if default else ""
        answer = self._read(f"{one_line(question)}{shown_default}: ")
        return answer if answer is None else answer.strip() or default

    def edit(self, text: str) -> str | None:
        """See `Screen.edit`."""
        return edited(text) if self._is_interactive else None

    def copy(self, text: str) -> bool:
        """See `Screen.copy`."""
        return put_on_clipboard(text)

    def clear(self) -> None:
        """See `Screen.clear`; what is printed stays where nothing can be erased."""

    def _call(self, event: ToolCallStarted | ToolCallDelta | ToolCallFinished) -> None:
        match event:
            case ToolCallStarted(_, name):
                self.end()
                self._write(f"[calls {one_line(name)} ")
            case ToolCallDelta(_, json):
                self._write(one_line(json) if json.strip() else "")
            case ToolCallFinished():
                self._write("]\n")

    def _read(self, question: str) -> str | None:
        self.end()
        self._notes.write(question)
        self._notes.flush()
        try:
            return input()
        except (EOFError, KeyboardInterrupt):
            self._notes.write("\n")
            return None

    def _tell(self, lines: str) -> None:
        self.end()
        self._notes.write(f"{lines}\n")
        self._notes.flush()

    def _think(self, text: str) -> None:
        if not self._is_thinking and self._is_styled:
            self._out.write(DIM)
        self._is_thinking = True
        self._write(text)

    def _stop_thinking(self) -> None:
        if self._is_thinking:
            self.end()

    def _write(self, text: str) -> None:
        if not text:
            return
        self._out.write(text)
        self._out.flush()
        self._is_at_line_start = text.endswith("\n")


def has_colour() -> bool:
    """Whether the person's environment lets a terminal be more than text."""
    return os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")


def table_lines(table: Table, width: int = 0) -> list[tuple[str, bool]]:
    """The table in columns of plain text, each line with whether it is a heading.

    The columns are as wide as what stands in them. Where all of it is wider than `width` (0: never), the widest give.
    """
    all_rows = (table.headings, *table.rows) if table.headings else table.rows
    rows = [tuple(one_line(cell) for cell in row) for row in all_rows]
    num_columns = max((len(row) for row in rows), default=0)
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(num_columns)]
    if width:
        widths = _fitting(widths, width - 2 * (num_columns - 1))
    lines = [(one_line(table.title), True)] if table.title else []
    for number, row in enumerate(rows):
        is_heading = number == 0 and bool(table.headings)
        columns = [_wrapped(cell, size) for cell, size in zip(row, widths, strict=False)]
        for cells in zip_longest(*columns, fillvalue=""):
            line = "  ".join(f"{cell:<{size}}" for cell, size in zip(cells, widths, strict=False))
            lines.append((line.rstrip(), is_heading))
    return lines


def _fitting(widths: list[int], room: int) -> list[int]:
    """The widths in so much room, if that can be: the widest gives first, as far as the next one goes on."""
    fitting = [*widths]
    while sum(fitting) > room and max(fitting) > MIN_CELL_COLUMNS:
        fitting[fitting.index(max(fitting))] -= 1
    return fitting


def _wrapped(cell: str, width: int) -> list[str]:
    return textwrap.wrap(cell, width) if len(cell) > width else [cell]
