"""A screen that draws: answers as they come, in colour, with what is going on below them.

Draws some times a second at most, so that a quick model costs no more than a slow one. Knows no session.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from typing import TextIO

import click

from pensieve.cli.chat.clipboard import put_on_clipboard
from pensieve.cli.chat.drawing.answer import AnswerView, activity_row
from pensieve.cli.chat.drawing.markdown import Markdown as MarkdownText
from pensieve.cli.chat.drawing.painter import Painter, Size, size_of
from pensieve.cli.chat.drawing.spans import Flow, Row, Span
from pensieve.cli.chat.drawing.theme import THEMES, Theme
from pensieve.cli.chat.drawing.thinking import unfolded
from pensieve.cli.chat.plain import edited, ending, table_lines
from pensieve.cli.chat.screen import Markdown, Shown, Table
from pensieve.cli.text import one_line, printable
from pensieve.generation import Finished, GenerationEvent
from pensieve.messages import Message, TextPart, ThinkingPart, ToolCallPart

MAX_COLUMNS = 120
"""Lines of text are not longer, however wide the window is."""
MAX_OSC_BYTES = 74_000
"""Terminals take no more through a control sequence."""


class LiveScreen:
    """See `Screen`."""

    def __init__(self, out: TextIO, theme: Theme, size: Callable[[], Size] | None = None) -> None:
        self._out = out
        self._theme = theme
        self._size = size or (lambda: size_of(out))
        self._painter = Painter(out, self._size)
        self._answer: AnswerView | None = None
        self._columns = 0
        self._last_thinking = ""
        self.is_thinking_folded = True
        self.waiting_for: Callable[[], str] = lambda: ""
        """What an answer that has not begun is waiting for, in words."""

    # Answers.

    def begin(self) -> None:
        """See `Screen.begin`."""
        self.end()
        self._columns = self._size().columns
        self._answer = AnswerView(self._width, time.monotonic, is_folded=self.is_thinking_folded)
        self.refresh()

    def draw(self, event: GenerationEvent) -> None:
        """See `Screen.draw`."""
        if self._answer is None:
            self.begin()
        assert self._answer is not None
        self._answer.add(event)
        if isinstance(event, Finished):
            self.end()
            if problem := ending(event):
                self.say(problem)

    def refresh(self) -> None:
        """See `Screen.refresh`."""
        answer = self._answer
        if answer is None:
            return
        columns = self._size().columns
        if columns != self._columns:
            self._columns = columns
            answer.resize(self._width)
        footer = activity_row(answer.activity(self.waiting_for()), self._columns - 1)
        self._paint(answer.take(), [*answer.tail(), footer])

    def end(self, *, is_interrupted: bool = False) -> None:
        """See `Screen.end`."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.finish()
            self._last_thinking = answer.thinking or self._last_thinking
            self._paint(answer.take(), [])
            self._painter.end()
        if is_interrupted:
            self.say("(stopped)")

    # Everything else.

    def say(self, text: str) -> None:
        """See `Screen.say`."""
        self._tell(text, "dim")

    def warn(self, text: str) -> None:
        """See `Screen.warn`."""
        self._tell(f"warning: {text}", "warning")

    def fail(self, problem: str) -> None:
        """See `Screen.fail`."""
        self._tell(f"error: {problem}", "error")

    def show(self, shown: Shown) -> None:
        """See `Screen.show`."""
        match shown:
            case Table():
                lines = table_lines(shown, self._size().columns - 1)
                self._print([(Span(line, "bold" if is_heading else ""),) for line, is_heading in lines])
            case Markdown(text):
                self._print(self._drawn(text))
            case Message():
                self._print(self._message(shown))

    def page(self, text: str) -> None:
        """See `Screen.page`."""
        self.end()
        click.echo_via_pager(printable(text))

    def confirm(self, question: str, *, default: bool = False) -> bool:
        """See `Screen.confirm`."""
        answer = self._read(f"{one_line(question)} {'[Y/n]' if default else '[y/N]'} ")
        if answer is None:
            return False
        return answer.lower() in {"y", "yes"} if answer else default

    def ask(self, question: str, default: str = "") -> str | None:
        """See `Screen.ask`."""
        shown_default = f" [{one_line(default)}]" if default else ""
        answer = self._read(f"{one_line(question)}{shown_default}: ")
        return answer if answer is None else answer or default

    def edit(self, text: str) -> str | None:
        """See `Screen.edit`."""
        self.end()
        return edited(text)

    def copy(self, text: str) -> bool:
        """See `Screen.copy`: by a program, else through the terminal, which cannot tell whether it did."""
        if put_on_clipboard(text):
            return True
        content = base64.b64encode(text.encode(errors="replace")).decode()
        if len(content) > MAX_OSC_BYTES:
            return False
        self._painter.write(f"\x1b]52;c;{content}\x07")
        return True

    def clear(self) -> None:
        """See `Screen.clear`."""
        self.end()
        self._painter.write("\x1b[H\x1b[2J")

    @property
    def theme(self) -> str:
        """The theme's name; setting one that is not in `THEMES` is a `KeyError`."""
        return self._theme.name

    @theme.setter
    def theme(self, name: str) -> None:
        self._theme = THEMES[name]

    def unfold(self) -> None:
        """Show thinking from now on, the last one too, or fold it again."""
        self.is_thinking_folded = not self.is_thinking_folded
        if self.is_thinking_folded:
            self.say("thinking is folded")
        else:
            self._print(unfolded(self._last_thinking, self._width) if self._last_thinking else [])
            self.say("thinking is shown")

    @property
    def themes(self) -> Sequence[str]:
        """The names of all themes."""
        return tuple(THEMES)

    @property
    def _width(self) -> int:
        """Columns for text; the last one stays free, since terminals differ in what they do there."""
        return max(8, min(self._size().columns - 1, MAX_COLUMNS))

    def _read(self, question: str) -> str | None:
        self.end()
        self._painter.write(question)
        try:
            return input().strip()
        except (EOFError, KeyboardInterrupt):
            self._painter.write("\r\n")
            return None

    def _tell(self, text: str, style: str) -> None:
        rows: list[Row] = []
        for line in printable(text).split("\n"):
            flow = Flow(self._width)
            rows += [*flow.add([Span(line, style)]), *flow.rest()]
        self._print(rows)

    def _print(self, rows: list[Row]) -> None:
        """Put rows above the answer that is being drawn, or where there is none, below all."""
        if self._answer is None:
            self._paint(rows, [])
            return
        self._paint([*self._answer.take(), *rows], [])
        self.refresh()

    def _paint(self, settled: list[Row], tail: list[Row]) -> None:
        self._painter.paint(self._theme, settled, tail)

    def _drawn(self, text: str) -> list[Row]:
        markdown = MarkdownText(self._width)
        markdown.feed(text)
        markdown.finish()
        return markdown.take()

    def _message(self, message: Message) -> list[Row]:
        if message.role == "user":
            first, *more = printable(message.text).split("\n")
            return [(Span("> ", "prompt"), Span(first)), *((Span("  "), Span(line)) for line in more)]
        rows: list[Row] = []
        for part in message.parts:
            match part:
                case TextPart(text):
                    rows += self._drawn(text)
                case ThinkingPart(text) if text:
                    folded = [(Span(f"  thought, {len(text.split()):,} words", "thinking"),)]
                    rows += folded if self.is_thinking_folded else unfolded(text, self._width)
                case ToolCallPart(_, name):
                    rows.append((Span("  → ", "tool"), Span(one_line(name), "tool")))
                case _:
                    pass
        return rows
