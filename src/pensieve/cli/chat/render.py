"""Draws an answer as it comes: text on standard output, everything else on standard error.

Whatever a model says is made printable here. Knows no session and no backend.
"""

from __future__ import annotations

import os
from typing import TextIO

from pensieve.cli.text import one_line, printable
from pensieve.generation import Finished, GenerationEvent, TextDelta, ThinkingDelta, ThinkingFinished

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
ENDINGS = {
    "length": "cut off after {tokens} tokens, the limit asked for: --max-tokens raises it",
    "context_full": "cut off after {tokens} tokens: the context is full",
    "repetition": "stopped after {tokens} tokens: the model only repeated itself",
    "refusal": "the model refused to go on",
}


class Screen:
    """Where an answer goes; thinking is dimmed on a terminal and left out of a pipe."""

    def __init__(self, out: TextIO, notes: TextIO) -> None:
        self._out = out
        self._notes = notes
        self._is_terminal = out.isatty()
        self._is_styled = self._is_terminal and os.environ.get("TERM") != "dumb"
        self._is_at_line_start = True
        self._is_thinking = False

    def show(self, event: GenerationEvent) -> None:
        """Draw one event."""
        match event:
            case TextDelta(text):
                self._stop_thinking()
                self._write(printable(text))
            case ThinkingDelta(text) if self._is_terminal:
                self._think(printable(text))
            case ThinkingFinished():
                self._stop_thinking()
            case Finished():
                self.end_line()
                self.tell_ending(event)

    def show_text(self, text: str) -> None:
        """Draw a whole answer at once."""
        self._write(printable(text))
        self.end_line()

    def tell_ending(self, finished: Finished) -> None:
        """Say why the answer is not whole, if it is not."""
        if finished.reason in ENDINGS:
            self.note(ENDINGS[finished.reason].format(tokens=finished.usage.completion_tokens))

    def note(self, text: str) -> None:
        """Say something beside the answer, on a line of its own."""
        is_dimmed = self._is_styled and self._notes.isatty()
        self._tell(f"{DIM}{one_line(text)}{PLAIN}" if is_dimmed else one_line(text))

    def fail(self, problem: str) -> None:
        """Say what went wrong, on a line of its own."""
        self._tell(f"error: {one_line(problem)}")

    def end_line(self) -> None:
        """Make sure that what comes next begins a line."""
        self._stop_thinking()
        if not self._is_at_line_start:
            self._write("\n")

    def _tell(self, line: str) -> None:
        self.end_line()
        self._notes.write(f"{line}\n")
        self._notes.flush()

    def _think(self, text: str) -> None:
        if not self._is_thinking and self._is_styled:
            self._out.write(DIM)
        self._is_thinking = True
        self._write(text)

    def _stop_thinking(self) -> None:
        if not self._is_thinking:
            return
        self._is_thinking = False
        if self._is_styled:
            self._out.write(PLAIN)
        self.end_line()

    def _write(self, text: str) -> None:
        if not text:
            return
        self._out.write(text)
        self._out.flush()
        self._is_at_line_start = text.endswith("\n")
