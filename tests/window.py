"""A terminal window: a command on a pseudo-terminal, and what a person would see there, in colour and scrolled away."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pyte

COMMAND = (sys.executable, "-m", "pensieve")
PATIENCE_SECONDS = 30.0


class _Screen(pyte.Screen):
    """Keeps what scrolls away, and answers what programs ask a terminal, such as where its cursor is."""

    def __init__(self, columns: int, rows: int, descriptor: int) -> None:
        self.gone: deque[Any] = deque(maxlen=5_000)
        self.descriptor = descriptor
        super().__init__(columns, rows)

    def index(self) -> None:
        """As pyte's own screen with history does, which asks before and after each event whether a page was turned."""
        top, bottom = self.margins or (0, self.lines - 1)
        if self.cursor.y == bottom:
            self.gone.append(self.buffer[top])
        super().index()

    def write_process_input(self, data: str) -> None:
        os.write(self.descriptor, data.encode())


class Window:
    """A running command and its screen."""

    def __init__(
        self,
        *words: str,
        columns: int = 80,
        rows: int = 24,
        environ: dict[str, str] | None = None,
        program: Sequence[str] = COMMAND,
    ) -> None:
        self._ours, theirs = pty.openpty()
        self.screen = _Screen(columns, rows, self._ours)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        """All that came."""
        self._tell_size(columns, rows)
        # The shell leads a new session, so the first terminal it opens becomes the one that Ctrl-C comes from.
        command = ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>"$0"', os.ttyname(theirs), *program, *words]
        variables = os.environ | {"TERM": "xterm-256color"} | (environ or {})
        self._has_status = variables["TERM"] != "dumb"
        self.process = subprocess.Popen(command, start_new_session=True, env=variables)
        self.terminal = theirs
        """Stays open, so that what was drawn last can be read after the command's end."""

    def type(self, keys: str) -> None:
        """Press keys; Enter is a carriage return."""
        os.write(self._ours, keys.encode())

    def paste(self, text: str) -> None:
        """Paste, as terminals tell programs that asked to be told."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size."""
        self._take(0.05)
        self.screen.resize(rows, columns)
        self._tell_size(columns, rows)

    @property
    def seen(self) -> str:
        """What can be seen now, without the spaces at the end of lines."""
        return "\n".join(map(self._row, range(self.screen.lines))).rstrip()

    @property
    def transcript(self) -> str:
        """All that was drawn and stays, with what has left the screen at its top."""
        return "\n".join([*self._gone, *map(self._row, range(self.screen.lines))]).rstrip()

    @property
    def before_cursor(self) -> str:
        """The transcript up to the cursor."""
        return "\n".join([*self._gone, *self._shown_before_cursor])

    def forget(self) -> None:
        """Let the transcript begin with what can be seen now."""
        self.screen.gone.clear()

    @property
    def _shown_before_cursor(self) -> list[str]:
        cursor = self.screen.cursor
        return [*map(self._row, range(cursor.y)), self._text(self.screen.buffer[cursor.y], cursor.x)]

    @property
    def _gone(self) -> list[str]:
        return [self._text(line, self.screen.columns) for line in self.screen.gone]

    def _row(self, number: int) -> str:
        """A row that can be seen; one at a time, since pyte's `display` makes all of them, which takes long."""
        return self._text(self.screen.buffer[number], self.screen.columns)

    @staticmethod
    def _text(line: dict[int, Any], columns: int) -> str:
        return "".join(line[column].data for column in range(columns)).rstrip() if line else ""

    def expect(self, text: str, times: int = 1) -> str:
        """Wait until the transcript has the text, so often; gives the transcript."""
        self._wait(lambda: self.transcript.count(text) >= times, text)
        return self.transcript

    def expect_prompt(self) -> str:
        """Wait until the cursor stands behind an empty prompt, and the line below it is there; gives the transcript."""
        self._wait(self._is_at_prompt, "a prompt")
        return self.transcript

    def expect_before_cursor(self, letters: str) -> None:
        """Wait until these letters stand before the cursor, whatever blanks and ends of lines are between them."""
        self._wait(lambda: "".join("".join(self._shown_before_cursor).split()).endswith(letters), letters)

    def expect_empty_line(self) -> None:
        """Wait until the cursor stands where a simple terminal reads another line of a text."""
        self._wait(lambda: self.screen.cursor.x == 2 and not self._row(self.screen.cursor.y), "a line")

    def _wait(self, has_come: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not has_come():
            assert time.monotonic() < deadline, f"{what!r} never came:\n{self.transcript}"
            self._take(0.2)

    def style_at(self, text: str) -> Any:
        """How the first character of the text is drawn."""
        for number, line in enumerate(self.screen.display):
            if text in line:
                return self.screen.buffer[number][line.index(text)]
        raise AssertionError(f"{text!r} is not on the screen:\n{self.seen}")

    def end(self) -> int:
        """Wait for the command to end; gives its exit status."""
        while self.process.poll() is None:
            self._take(0.05)
        while self._take(0.0):
            pass
        return self.process.returncode

    def close(self) -> None:
        """End the command in any case."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.terminal)
        os.close(self._ours)

    def _is_at_prompt(self) -> bool:
        cursor = self.screen.cursor
        is_empty = cursor.x == 2 and self._row(cursor.y) == ">"
        below = range(cursor.y + 1, self.screen.lines)
        return is_empty and (any(map(self._row, below)) or not self._has_status)

    def _tell_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _take(self, patience_seconds: float) -> bool:
        if not select.select([self._ours], [], [], patience_seconds)[0]:
            return False
        content = os.read(self._ours, 65536)
        self.raw += content
        self._stream.feed(content)
        return True
