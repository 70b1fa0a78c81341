"""A chat in a window, somebody who types there, and the files that whole transcripts are compared with.

`WRITE_TRANSCRIPTS=1 pytest tests/cli/chat/test_sessions.py` writes these files anew, on purpose; read the diff. Where
CI is set, nothing is ever written.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path

from window import Window

FOLDER = Path(__file__).parent / "cli" / "chat" / "transcripts"
IS_WRITING = bool(os.environ.get("WRITE_TRANSCRIPTS")) and not os.environ.get("CI")
CTRL_C, CTRL_D, ALT_ENTER = "\x03", "\x04", "\x1b\r"
CLEARED = "~~ the screen is cleared ~~"
ANSWERED = "~~ what the model says ~~"
BELOW = "~~ below the prompt: "
_COMMAND = re.compile(r"^> /([a-z]+|\?)(?: |$)", re.MULTILINE)

_VOLATILE = (
    (r"http://127\.0\.0\.1:\d{5}", "http://127.0.0.1:00000"),
    (r"\b\d+ (?:s|min) ago", "0 s ago"),
    (r"thought for \d+ s", "thought for 0 s"),
    (r"loading (\S+), \d+ s", r"loading \1, 0 s"),
    (r"^wrote (\S+) \(.*\)$", r"wrote \1 (SIZE)"),
    (r"(\d+ answer tokens), [^)]* in all\)$", r"\1, TIMES)"),
    (r"\bmemory [\d.]+ GB(?: (?:safe|warning|critical|emergency))?", "memory 0.0 GB level"),
    (r"\b\d+ tokens/s", "0 tokens/s"),
    (r"first in [\d.]+ m?s", "first in 0 ms"),
    (r"\breq_[0-9a-f]{32}", "req_ID"),
    (r'"affinity_key": "[0-9a-f-]+"', '"affinity_key": "ID"'),
    (r"^kept in( +)\S+/", r"kept in\1HOME/"),
)
_RATED = ("/stats", "/search", "/find")
"""Below these commands the width of columns goes by figures that change."""
_MEMORY = ("/memory", "/mem")
_MACHINES = ("", "swap", "stalls", "card", "last")
"""Rows about memory that are there on some machines, and at some times."""


def settled(transcript: str) -> str:
    """The transcript with addresses, times, rates, sizes, ids and this machine's memory put aside."""
    for volatile, instead in _VOLATILE:
        transcript = re.sub(volatile, instead, transcript, flags=re.MULTILINE)
    return "".join(_settled(said) for said in re.split(r"^(?=>(?: |$))", transcript, flags=re.MULTILINE))


def _settled(said: str) -> str:
    """What stands between two prompts."""
    command = said[2:]
    if command.startswith(_RATED):
        said = re.sub(r"(?<=\S) {2,}", "  ", re.sub(r"^ {2,}", "  ", said, flags=re.MULTILINE))
        return re.sub(r"^(tokens a second|size on disk)  [\d.]+", r"\1  0.0", said, flags=re.MULTILINE)
    if command.startswith(_MEMORY):
        asked, *rows = said.splitlines()
        kept = [row for row in rows if row[:9].rstrip() not in _MACHINES]
        return "\n".join([asked, *(f"{row[:11]}..." for row in kept), ""])
    return said


class Chat:
    """A window with `pensieve chat` in it, and somebody who waits until it is their turn."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._before: list[str] = []
        self._below: list[str] = []

    def say(self, *lines: str) -> None:
        """Type each line at a prompt, press Enter, and wait until it is answered and the next prompt is there."""
        for line in lines:
            self.type(line)
            self.window.type("\r")
            self.window.expect_prompt()

    def type(self, keys: str) -> None:
        """Press keys at a prompt, and wait until they stand there."""
        self.window.expect_prompt()
        self.window.type(keys)
        self._expect_typed(keys)

    def reply(self, line: str, keys: str) -> None:
        """Type a line that is answered by a question, and press these keys."""
        self.start(line, "[y/N]")
        self.press(keys)

    def say_block(self, *lines: str) -> None:
        """Type a text of several lines on a simple terminal, which reads them one by one."""
        self.type('"""')
        for line in lines:
            self.window.type("\r")
            self.window.expect_empty_line()
            self.window.type(line)
            self._expect_typed(line)
        self.window.type("\r")
        self.window.expect_empty_line()
        self.press('"""\r')

    def start(self, line: str, text: str) -> None:
        """Type a line, and wait for what it shows first."""
        self.type(line)
        times = self.window.transcript.count(text)
        self.window.type("\r")
        self.window.expect(text, times + 1)

    def press(self, keys: str) -> None:
        """Press keys that end what is going on, and wait for the next prompt."""
        self.window.type(keys)
        self.window.expect_prompt()

    def clear(self) -> None:
        """`/clear`; what stood there before is part of the transcript."""
        self.type("/clear")
        self._before += [self.window.before_cursor, CLEARED]
        self.window.forget()
        self.window.type("\r")
        self.window.expect_prompt()

    def look_below(self) -> None:
        """Put the row below the prompt at the end of the transcript."""
        self.window.expect_prompt()
        self._below.append(f"{BELOW}{self.window.seen.splitlines()[-1]}")

    def leave(self, keys: str) -> None:
        """Leave with a command or a key; the program ends well."""
        if keys == CTRL_D:
            self.window.expect_prompt()
            self.window.type(keys)
        else:
            self.type(keys)
            self.window.type("\r")
        assert self.window.end() == 0

    @property
    def transcript(self) -> str:
        """All that was drawn and stays, settled."""
        return settled("\n".join([*self._before, self.window.transcript, *self._below])) + "\n"

    def _expect_typed(self, keys: str) -> None:
        self.window.expect_before_cursor(re.sub(r"\s|\x1b(\[20[01]~)?", "", keys))


def without_answers(transcript: str, *questions: str) -> str:
    """The transcript with a mark in the place of what a model said to these questions, which cannot be nothing.

    A real model's words are those of one build of its engine on one kind of processor: another rounds otherwise.
    """
    said = re.split(r"^(?=>(?: |$))", transcript, flags=re.MULTILINE)
    for number, each in enumerate(said):
        asked, _, answer = each.partition("\n")
        if asked in questions:
            assert re.search(r"\w", answer), f"no answer to {asked}"
            said[number] = f"{asked}\n{ANSWERED}\n"
    return "".join(said)


def compare(chat: Chat, name: str, put_aside: Callable[[str], str] = str) -> None:
    """The chat's transcript is what its file says; writes that file where it was asked for."""
    path, seen = FOLDER / f"{name}.txt", put_aside(chat.transcript)
    if IS_WRITING:
        path.write_text(seen, encoding="utf-8")
    wanted = path.read_text(encoding="utf-8")
    differences = difflib.unified_diff(wanted.splitlines(), seen.splitlines(), path.name, "this window", lineterm="")
    assert seen == wanted, "\n".join(differences)


def commands_in(transcript: str) -> set[str]:
    """The names behind a slash that were typed there."""
    return set(_COMMAND.findall(transcript))
