"""One answer as rows: thinking, text and calls in their order, and a last row that says what is going on.

Events in, rows out; knows no terminal and no clock but the one it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pensieve.cli.chat.drawing.calls import Call
from pensieve.cli.chat.drawing.markdown import Markdown
from pensieve.cli.chat.drawing.spans import Row, Span
from pensieve.cli.chat.drawing.thinking import Thinking
from pensieve.generation import (
    Finished,
    GenerationEvent,
    PromptProgress,
    Started,
    TextDelta,
    ThinkingDelta,
    ThinkingFinished,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)


class AnswerView:
    """The answer that is being drawn."""

    def __init__(self, width: int, clock: Callable[[], float], *, is_folded: bool = True) -> None:
        self._width = width
        self._clock = clock
        self._is_folded = is_folded
        self._begun = clock()
        self._thinking_begun = 0.0
        self._first: float | None = None
        self._prefill = ""
        self._num_tokens = 0
        self._rows: list[Row] = []
        self._open: Markdown | Thinking | Call | None = None
        self.thinking = ""
        """The last thinking, as far as it was kept."""

    def add(self, event: GenerationEvent) -> None:
        """Take the next event."""
        match event:
            case Started(prompt_tokens, cached_tokens):
                self._prefill = _prefill(cached_tokens, prompt_tokens)
            case PromptProgress(processed_tokens, total_tokens):
                self._prefill = _prefill(processed_tokens, total_tokens)
            case TextDelta(text):
                self._count()
                self._markdown().feed(text)
            case ThinkingDelta(text):
                self._count()
                self._rows += self._thought().feed(text)
            case ToolCallStarted(_, name):
                self._count()
                self._close()
                self._open = Call(name, self._width)
            case ToolCallDelta(_, json) if isinstance(self._open, Call):
                self._open.feed(json)
            case ToolCallFinished() | ThinkingFinished() | Finished():
                self._close()
            case _:
                pass

    def finish(self) -> None:
        """Nothing more comes."""
        self._close()

    def resize(self, width: int) -> None:
        """What begins from now on is drawn for another width."""
        self._width = width
        if isinstance(self._open, Markdown):
            self._open.resize(width)

    def take(self) -> list[Row]:
        """The rows that are settled since the last time."""
        if isinstance(self._open, Markdown):
            self._append(self._open.take())
        rows, self._rows = self._rows, []
        return rows

    def tail(self) -> list[Row]:
        """The rows that may change."""
        return [] if self._open is None else self._open.tail()

    def activity(self, waiting_for: str = "") -> str:
        """What is going on, in a few words."""
        seconds = self._clock() - self._begun
        if self._first is None:
            what = self._prefill or waiting_for or "waiting"
            return f"{what} · {seconds:.0f} s"
        spent = self._clock() - self._first
        speed = f" · {(self._num_tokens - 1) / spent:.0f} tokens/s" if spent > 0.5 and self._num_tokens > 1 else ""
        what = "thinking" if isinstance(self._open, Thinking) else f"{self._num_tokens:,} tokens"
        return f"{what} · {seconds:.0f} s{speed}"

    def _count(self) -> None:
        self._num_tokens += 1
        if self._first is None:
            self._first = self._clock()

    def _markdown(self) -> Markdown:
        if not isinstance(self._open, Markdown):
            self._close()
            self._open = Markdown(self._width)
        return self._open

    def _thought(self) -> Thinking:
        if not isinstance(self._open, Thinking):
            self._close()
            self._thinking_begun = self._clock()
            self._open = Thinking(self._width, is_folded=self._is_folded)
        return self._open

    def _close(self) -> None:
        part, self._open = self._open, None
        match part:
            case Markdown():
                part.finish()
                self._append(part.take())
            case Thinking():
                self.thinking = part.text
                self._append(part.end(self._clock() - self._thinking_begun))
            case Call():
                self._append(part.end())
            case None:
                pass

    def _append(self, rows: list[Row]) -> None:
        self._rows += rows


def _prefill(processed_tokens: int, total_tokens: int) -> str:
    if total_tokens <= 0:
        return "reading the prompt"
    percent = math.floor(100 * min(1.0, processed_tokens / total_tokens))
    return f"reading the prompt: {percent} % of {total_tokens:,} tokens"


def activity_row(activity: str, columns: int) -> Row:
    """The last row below an answer that is coming; how to stop it is left out where there is no room."""
    text = f"{activity} · Ctrl-C stops"
    text = text if len(text) <= columns else activity
    return (Span(text[: max(1, columns)], "dim"),)
