"""One scripted server for all tests of the commands, found by its run file as any server is."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from scripted_server import answering, put_run_file, saying, serving
from window import Window

COMMAND = (sys.executable, "-m", "pensieve")


SCRIPT = {
    "context_tokens": 60,
    "turns": [
        answering("capital", saying("The capital of France is Paris.")),
        answering("one line\n\nfirst piped\nlast piped", saying("Both arrived.")),
        answering("only piped", saying("The pipe arrived.")),
        answering("think", {"type": "thinking", "text": "Let me see."}, saying("Thought.")),
        answering("escape", saying("\x1b[31mred \x9b2J \x1b]0;title\x07 bell\x07 \u202ebidi \r\nend")),
        answering("slow", saying("early"), {"type": "delay", "seconds": 3600}, saying("late")),
        answering("silent", {"type": "thinking", "text": "Hm."}, {"type": "delay", "seconds": 3600}),
        answering(
            "break", saying("half"), {"type": "fail", "error": "BackendFailure", "facts": {"problem": "it broke"}}
        ),
        answering("nothing"),
        answering("many words", saying("word " * 20)),
        answering("long", saying("a " * 50 + "over"), chunk_delay_seconds=0.05),
        answering(
            "tour",
            {"type": "thinking", "text": "Let me see."},
            saying("# Heading\n\n- **bold** and `code`\n\n```python\ndef f():\n    return 1\n```\n"),
            {"type": "tool_call", "name": "weather", "arguments": {"city": "Paris"}},
            saying("the end"),
            chunk_delay_seconds=0.01,
        ),
        answering("second", saying("It went on.")),
    ],
}


@pytest.fixture(scope="session")
def server_run_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    """The content of the run file of a scripted server."""
    with serving(SCRIPT, tmp_path_factory.mktemp("server")) as run_file:
        yield run_file


@pytest.fixture
def served_home(pensieve_home: Path, server_run_file: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which the scripted server runs and is the model of choice."""
    put_run_file(pensieve_home, server_run_file)
    monkeypatch.setenv("PENSIEVE_MODEL", "scripted")
    return pensieve_home


class Terminal:
    """A command on a terminal of its own, and what was drawn there."""

    def __init__(self, *words: str, program: Sequence[str] = COMMAND) -> None:
        # Our end of theirs stays open, so that what was drawn last can be read after the command's end.
        self._screen, self._theirs = pty.openpty()
        # The shell leads a new session, so the first terminal it opens becomes the one that Ctrl-C comes from.
        onto = 'exec "$@" <"$0" >"$0" 2>"$0"'
        command = ["sh", "-c", onto, os.ttyname(self._theirs), *program, *words]
        self.process = subprocess.Popen(command, start_new_session=True, env=os.environ | {"TERM": "xterm"})
        self.drawn = ""
        self._seen = 0

    def type(self, keys: str) -> None:
        """Press keys; a line ends with a carriage return."""
        os.write(self._screen, keys.encode())

    def expect(self, text: str) -> str:
        """Wait until the text is drawn after what was expected before; gives what was drawn up to its end."""
        while text not in self.drawn[self._seen :]:
            assert self._take(patience_seconds=30.0), self.drawn
        end = self.drawn.index(text, self._seen) + len(text)
        fresh, self._seen = self.drawn[self._seen : end], end
        return fresh

    def end(self) -> int:
        """Wait for the command to end; gives its exit status."""
        status = self.process.wait(timeout=30)
        while self._take(patience_seconds=0.0):
            pass
        return status

    def close(self) -> None:
        """End the command in any case."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._theirs)
        os.close(self._screen)

    def _take(self, patience_seconds: float) -> bool:
        if not select.select([self._screen], [], [], patience_seconds)[0]:
            return False
        self.drawn += os.read(self._screen, 65536).decode(errors="replace")
        return True


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Starts commands on terminals, and ends those that still run."""
    opened: list[Terminal] = []

    def start(*words: str, program: Sequence[str] = COMMAND) -> Terminal:
        opened.append(Terminal(*words, program=program))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def window() -> Iterator[Callable[..., Window]]:
    """Opens windows with commands in them, and closes them."""
    opened: list[Window] = []

    def start(*words: str, **more: Any) -> Window:
        opened.append(Window(*words, **more))
        return opened[-1]

    yield start
    for each in opened:
        each.close()
