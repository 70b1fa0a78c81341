"""The shape of slash commands, and the table that reads a line, suggests the nearest name, completes and lists.

Knows no single command, no session and no terminal.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import msgspec

from pensieve.errors import PensieveError

Desk = TypeVar("Desk")
"""What commands work with: the chat's own is `desk.Desk`."""
_FIRST_WORD = re.compile(r"/([A-Za-z]+|\?)(?:\s+|\Z)")
"""A path such as `/etc/hosts` is no command."""


class Leave(msgspec.Struct, frozen=True):
    """The chat ends."""


class Answer(msgspec.Struct, frozen=True):
    """A question waits in the session: draw the events of `session.answer()`; for a summary, of `session.compact()`."""

    is_summary: bool = False


Outcome = Leave | Answer | None
"""What the chat does after a command; None: it reads the next line."""


class Candidate(NamedTuple):
    """One way to go on with what was typed: the whole word that takes the last word's place, and a note beside it."""

    text: str
    note: str = ""


def nothing(desk: object, typed: str) -> Iterable[Candidate]:
    """The candidates of a command whose argument cannot be guessed."""
    del desk, typed
    return ()


@dataclass(frozen=True)
class Command(Generic[Desk]):
    """A command: how it is written, what it does, and what may follow its name."""

    name: str
    """Without the slash."""
    run: Callable[[Desk, str], Outcome]
    """Called in the main thread with what stands behind the name, stripped; `PensieveError` is told to the person."""
    summary: str
    usage: str = ""
    """What follows the name, as help shows it: `[FILE]`."""
    aliases: tuple[str, ...] = ()
    complete: Callable[[Desk, str], Iterable[Candidate]] = nothing
    """Candidates for what stands behind the name so far; must not block for long."""
    group: str = ""
    """Under which heading help shows it."""


class Invocation(NamedTuple, Generic[Desk]):
    """A line that calls a command."""

    command: Command[Desk]
    argument: str


class Unknown(NamedTuple):
    """A line that looks like a command and is none; `nearest` is what may have been meant, or empty."""

    name: str
    nearest: str

    def __str__(self) -> str:
        meant = f"did you mean /{self.nearest}? " if self.nearest else ""
        return f"there is no command /{self.name}: {meant}/help shows them all; //{self.name} sends it as text"


class Text(NamedTuple):
    """A line for the model."""

    text: str


class Table(Generic[Desk]):
    """All commands, by name and alias."""

    def __init__(self, commands: Iterable[Command[Desk]]) -> None:
        self.commands: tuple[Command[Desk], ...] = tuple(commands)
        self._by_name = {name: command for command in self.commands for name in (command.name, *command.aliases)}
        assert len(self._by_name) == sum(1 + len(command.aliases) for command in self.commands), "a name stands twice"

    def find(self, name: str) -> Command[Desk] | Unknown:
        """The command of that name or alias, with or without its slash, in any case."""
        word = name.removeprefix("/").lower()
        return self._by_name.get(word) or Unknown(word, self._nearest(word))

    def read(self, line: str) -> Invocation[Desk] | Unknown | Text:
        """What a line is; two slashes at its beginning stand for one in a text."""
        text = line.strip()
        first = _FIRST_WORD.match(text)
        if first is None:
            return Text(text[1:] if text.startswith("//") else text)
        found = self.find(first[1])
        return found if isinstance(found, Unknown) else Invocation(found, text[first.end() :])

    def complete(self, desk: Desk, line: str) -> Sequence[Candidate]:
        """Candidates for the last word of a line so far: names of commands first, then what each one knows."""
        if not line.startswith("/") or line.startswith("//"):
            return ()
        word, separator, argument = line.partition(" ")
        if not separator:
            return tuple(self._names(word.removeprefix("/").lower()))
        command = self._by_name.get(word.removeprefix("/").lower())
        if command is None:
            return ()
        try:
            return tuple(command.complete(desk, argument.lstrip()))
        except PensieveError:  # whoever runs the command is told
            return ()

    def _names(self, beginning: str) -> Iterator[Candidate]:
        for command in self.commands:
            for name in (command.name, *command.aliases):
                if name.startswith(beginning):
                    yield Candidate(f"/{name}", command.summary)
                    break

    def _nearest(self, word: str) -> str:
        begun = [name for name in self._by_name if word and name.startswith(word)]
        return next(iter(begun or difflib.get_close_matches(word, self._by_name, n=1, cutoff=0.5)), "")
