"""The plain chat: one line in, one answer out, in a terminal or a pipe. Knows no backend.

On a terminal Ctrl-C stops the answer or clears the line, and never ends the program; in a pipe it does end it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import aclosing

import click

from pensieve.cli.chat.loop import LoopThread
from pensieve.cli.chat.screen import Screen
from pensieve.cli.chat.session import ChatSession, Forgot
from pensieve.cli.failures import INTERRUPTED_STATUS
from pensieve.errors import PensieveError

PROMPT = "> "
HELP = (
    "/clear  forget the conversation and begin a new one",
    "/retry  send the last question again, if it was not answered",
    "/help   show this",
    "/exit   leave; /quit and Ctrl-D do too",
    "Ctrl-C  stop the answer, or clear the line",
)
_COMMAND = re.compile(r"/[A-Za-z]+")


class Repl:
    """Reads lines until the end of input; `run` returns the exit status."""

    def __init__(self, session: ChatSession, loop: LoopThread, screen: Screen) -> None:
        self._session = session
        self._loop = loop
        self._screen = screen
        self._is_interactive = sys.stdin.isatty()
        self._has_failed = False
        self._has_left = False
        self._commands: Mapping[str, Callable[[], None]] = {
            "/help": self._help,
            "/clear": self._clear,
            "/retry": self._retry,
            "/exit": self._leave,
            "/quit": self._leave,
        }

    def run(self) -> int:
        """Talk until the person leaves. In a pipe, a question that failed makes the status 1."""
        while not self._has_left:
            try:
                self._take(self._next_line())
            except EOFError:
                self._leave()
            except KeyboardInterrupt:
                if not self._is_interactive:
                    return INTERRUPTED_STATUS
                self._hint()
        return 1 if self._has_failed and not self._is_interactive else 0

    def _next_line(self) -> str:
        if not self._is_interactive:
            return input()
        try:
            return input(self._prompt())
        except (EOFError, KeyboardInterrupt):
            click.echo(err=True)  # what comes next begins below the prompt
            raise

    def _prompt(self) -> str:
        if sys.stdout.isatty():
            return PROMPT
        click.echo(PROMPT, nl=False, err=True)  # the answers go somewhere else, and nothing but answers
        return ""

    def _hint(self) -> None:
        self._screen.say("(Ctrl-D or /exit leaves)")

    def _take(self, line: str) -> None:
        text = line.strip()
        if text in self._commands:
            self._commands[text]()
        elif _COMMAND.fullmatch(text):
            self._screen.say(f"there is no command {text}: /help shows them")
        elif text:
            self._ask(text)

    def _ask(self, text: str) -> None:
        self._session.unanswered = text  # also if Ctrl-C comes before it was sent
        try:
            self._loop.run(self._answer(text))
        except KeyboardInterrupt:
            if not self._is_interactive:
                raise
            self._screen.say("(stopped)" if not self._session.unanswered else "(stopped; /retry asks again)")
        except PensieveError as error:
            self._fail(str(error))
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - the top of the chat: a bug costs one answer, not the conversation
            self._fail(f"{type(error).__name__}: {error} (a bug in Pensieve: please report it)")

    async def _answer(self, text: str) -> None:
        try:
            async with aclosing(self._session.submit(text)) as events:
                async for event in events:
                    match event:
                        case Forgot(num_turns):
                            self._screen.say(f"the context is full: the {_turns(num_turns)} left it")
                        case _:
                            self._screen.draw(event)
        finally:
            self._screen.end()

    def _fail(self, problem: str) -> None:
        self._has_failed = True
        retry = " (/retry asks again)" if self._is_interactive else ""
        self._screen.fail(f"{problem}{retry}")

    def _help(self) -> None:
        for line in HELP:
            self._screen.say(line)

    def _clear(self) -> None:
        self._session.clear()
        self._screen.say("a new conversation")

    def _retry(self) -> None:
        if self._session.unanswered:
            self._ask(self._session.unanswered)
        else:
            self._screen.say("there is no unanswered question")

    def _leave(self) -> None:
        self._has_left = True


def _turns(num_turns: int) -> str:
    return "oldest turn has" if num_turns == 1 else f"{num_turns} oldest turns have"
