"""Chooses how this run draws and reads keys: a real terminal, a simple one, or a pipe. Knows no session."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pensieve.cli.chat.input_history import InputHistory
from pensieve.cli.chat.keyboard import PROMPT, Keyboard, LineKeyboard
from pensieve.cli.chat.plain import PlainScreen
from pensieve.cli.chat.screen import Screen
from pensieve.cli.chat.status import Status
from pensieve.errors import UsageError

HISTORY_FILE = "input-history.jsonl"


class Terminal(NamedTuple):
    """What a chat draws on and reads from."""

    screen: Screen
    keyboard: Keyboard
    is_interactive: bool
    """Whether a person types."""


class Views(NamedTuple):
    """What a terminal shows that others know; asked for when it is drawn."""

    candidates: Callable[[str], Sequence[tuple[str, str]]]
    """Words that may end a line that begins with a slash, each with a note."""
    status: Callable[[], Status]
    loading: Callable[[], str]


def open_terminal(views: Views, state_folder: Path, *, is_printed: bool = False, is_private: bool = False) -> Terminal:
    """The best that standard input and output allow.

    `is_printed`: one answer is wanted, and no talk; `is_private`: what is typed is not kept for later chats.
    """
    is_typed, is_seen = _is_typed() and not is_printed, sys.stdout.isatty()
    if is_typed and is_seen and os.environ.get("TERM", "dumb") != "dumb":
        return _full(views, InputHistory(state_folder / HISTORY_FILE, is_kept=not is_private))
    if is_typed:
        with suppress(ImportError):  # not every Python has it
            import readline  # noqa: F401, PLC0415 - gives input() its line editing
    prompt = PROMPT if is_typed else ""
    keyboard = LineKeyboard(prompt, None if is_seen else sys.stderr)
    return Terminal(PlainScreen(sys.stdout, sys.stderr, is_interactive=is_typed), keyboard, is_typed)


def _is_typed() -> bool:
    if sys.stdin is None:
        raise UsageError("there is no standard input to read questions from")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text must not end a conversation
    return sys.stdin.isatty()


def _full(views: Views, history: InputHistory) -> Terminal:
    # Slow to import, and nothing for a pipe.
    from pensieve.cli.chat.drawing.theme import THEMES  # noqa: PLC0415
    from pensieve.cli.chat.editor import EditorKeyboard  # noqa: PLC0415
    from pensieve.cli.chat.live import LiveScreen  # noqa: PLC0415
    from pensieve.cli.chat.status import status_row  # noqa: PLC0415

    has_colour = not os.environ.get("NO_COLOR")
    screen = LiveScreen(sys.stdout, THEMES["terminal" if has_colour else "mono"])
    screen.waiting_for = views.loading
    keyboard = EditorKeyboard(
        views.candidates,
        lambda columns: status_row(views.status(), columns),
        history,
        has_colour=has_colour,
        unfold=screen.unfold,
    )
    return Terminal(screen, keyboard, is_interactive=True)
