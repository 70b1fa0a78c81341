"""Where questions come from: lines of a pipe or of a simple terminal, or an editor with completion and history.

Knows no session and no command.
"""

from __future__ import annotations

import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TextIO

QUOTES = '"""'
PROMPT = "> "


class Keyboard(Protocol):
    """Gives one question after the other."""

    def read(self, typed: str = "") -> str:
        """The next question, which may have several lines; `typed` stands there already where that can be.

        Raises `EOFError` at the end and `KeyboardInterrupt` for Ctrl-C.
        """
        ...


class LineKeyboard:
    """Lines of standard input; a line that begins with three quotes begins a text that such a line ends."""

    def __init__(self, prompt: str = "", notes: TextIO | None = None) -> None:
        """The prompt goes to `notes` where it is given, since standard output then has nothing but answers."""
        self._prompt = prompt
        self._notes = notes

    def read(self, typed: str = "") -> str:
        """See `Keyboard.read`."""
        del typed
        line = self._line(self._prompt)
        if not is_open_block(line):
            return unquoted(line)
        lines = [line]
        while is_open_block("\n".join(lines)):
            try:
                lines.append(self._line("  " if self._prompt else ""))
            except EOFError:
                break
        return unquoted("\n".join(lines))

    def _line(self, prompt: str) -> str:
        try:
            if self._notes is None:
                return input(prompt)
            self._notes.write(prompt)
            self._notes.flush()
            return input()
        except (EOFError, KeyboardInterrupt):
            if prompt:
                print(file=sys.stderr)  # what comes next begins below the prompt
            raise


def is_open_block(text: str) -> bool:
    """Whether the text begins with three quotes and lacks those that end it."""
    return text.lstrip().startswith(QUOTES) and not (
        text.rstrip().endswith(QUOTES) and len(text.strip()) >= 2 * len(QUOTES)
    )


def unquoted(text: str) -> str:
    """The text without the quotes around a block."""
    block = text.strip()
    if not block.startswith(QUOTES):
        return text
    inner = block.removeprefix(QUOTES)
    return inner.removesuffix(QUOTES).removeprefix("\n").removesuffix("\n")


@contextmanager
def quiet_terminal(source: TextIO | None = None) -> Iterator[None]:
    """Keys are not shown and wait for the next prompt, while an answer is drawn; Ctrl-C still interrupts."""
    source = source or sys.stdin
    try:
        before = termios.tcgetattr(source.fileno())
    except (OSError, ValueError, termios.error):
        yield
        return
    quiet = [*before]
    quiet[3] = (before[3] & ~(termios.ECHO | termios.ICANON)) | termios.ISIG | termios.NOFLSH
    try:
        termios.tcsetattr(source.fileno(), termios.TCSANOW, quiet)
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(source.fileno(), termios.TCSANOW, before)
