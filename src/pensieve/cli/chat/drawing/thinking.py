"""Thinking as it is shown: dimmed, its last rows while it comes, and one row once it is over. Knows no terminal."""

from __future__ import annotations

from pensieve.cli.chat.drawing.spans import Flow, Row, Span
from pensieve.cli.text import printable

STYLE = "thinking"
MARGIN: Row = (Span("  "),)
SEEN_ROWS = 3
"""Of thinking that will be folded, so much is seen while it comes."""
KEPT_CHARACTERS = 100_000
"""So much of the last thinking can still be unfolded."""


class Thinking:
    """One block of thinking; tokens are counted by its events."""

    def __init__(self, width: int, *, is_folded: bool) -> None:
        self._width = width
        self._is_folded = is_folded
        self._flow = Flow(width, MARGIN, MARGIN)
        self._seen: list[Row] = []
        self._kept: list[str] = []
        self._kept_characters = 0
        self.num_tokens = 0

    @property
    def text(self) -> str:
        """Its words, as far as they were kept."""
        return "".join(self._kept)

    def feed(self, text: str) -> list[Row]:
        """Take the next piece; the rows to draw for good, none where it is folded."""
        self.num_tokens += 1
        text = printable(text)
        if self._kept_characters < KEPT_CHARACTERS:
            self._kept.append(text)
            self._kept_characters += len(text)
        rows = self._flowed(text)
        if not self._is_folded:
            return rows
        self._seen = [*self._seen, *rows][-SEEN_ROWS:]
        return []

    def tail(self) -> list[Row]:
        """The rows that are seen meanwhile."""
        return [*self._seen, *self._flow.rest()][-SEEN_ROWS:] if self._is_folded else self._flow.rest()

    def end(self, seconds: float) -> list[Row]:
        """What stands there once it is over."""
        tokens = "1 token" if self.num_tokens == 1 else f"{self.num_tokens:,} tokens"
        fold = (Span(f"  thought for {seconds:.0f} s, about {tokens}", STYLE),)
        rest = [] if self._is_folded else [row for row in self._flow.rest() if row != MARGIN]
        return [*rest, fold]

    def _flowed(self, text: str) -> list[Row]:
        first, *more = text.split("\n")
        rows = self._flow.add([Span(first, STYLE)])
        for line in more:
            rows += self._flow.rest()
            self._flow = Flow(self._width, MARGIN, MARGIN)
            rows += self._flow.add([Span(line, STYLE)])
        return rows


def unfolded(text: str, width: int) -> list[Row]:
    """Thinking of before, whole."""
    thinking = Thinking(width, is_folded=False)
    return [*thinking.feed(text), *thinking.tail()]
