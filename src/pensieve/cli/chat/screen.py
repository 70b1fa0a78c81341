"""What the chat and its commands may do with a terminal, as a protocol; `plain.py` and `live.py` are the two.

Every method belongs to the main thread, which has the keyboard. Knows no session and no backend.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from pensieve.generation import GenerationEvent
from pensieve.messages import Message


class Table(msgspec.Struct, frozen=True):
    """Rows under headings; no headings: the first column is what the second one explains."""

    rows: tuple[tuple[str, ...], ...]
    headings: tuple[str, ...] = ()
    title: str = ""


class Markdown(msgspec.Struct, frozen=True):
    """Text to be drawn as an answer is."""

    text: str


Shown = Table | Markdown | Message
"""A message is drawn as it was in the chat: a question behind its prompt, an answer with its thinking folded."""


class Screen(Protocol):
    """A terminal, or a pipe. All text may be hostile: it is made printable here, not by the caller."""

    def begin(self) -> None:
        """A question was sent: from now on an answer is waited for."""
        ...

    def refresh(self) -> None:
        """Draw what has come in and what moves; called some ten times a second while an answer comes."""
        ...

    def draw(self, event: GenerationEvent) -> None:
        """Draw the next event of an answer; what may come any time after is drawn below it."""
        ...

    def end(self, *, is_interrupted: bool = False) -> None:
        """End the answer that is being drawn, also one that broke off; safe to call without one."""
        ...

    def say(self, text: str) -> None:
        """Say something beside the answers, on lines of its own."""
        ...

    def warn(self, text: str) -> None:
        """Say something that should not be overlooked."""
        ...

    def fail(self, problem: str) -> None:
        """Say what went wrong."""
        ...

    def show(self, shown: Shown) -> None:
        """Draw a table, Markdown, or a message of the conversation; beside the answers, as `say` does."""
        ...

    def page(self, text: str) -> None:
        """Show a long text with the person's pager; where nobody can page, it is printed."""
        ...

    def confirm(self, question: str, *, default: bool = False) -> bool:
        """Whether the person says yes; the default in a pipe, and for Ctrl-C and Ctrl-D no."""
        ...

    def ask(self, question: str, default: str = "") -> str | None:
        """A line from the person; None for Ctrl-C, Ctrl-D and in a pipe."""
        ...

    def edit(self, text: str) -> str | None:
        """The text after the person changed it; None if it was left as it was, and in a pipe."""
        ...

    def copy(self, text: str) -> bool:
        """Put the text on the clipboard; whether there was a way."""
        ...

    def clear(self) -> None:
        """Clear what can be seen."""
        ...
