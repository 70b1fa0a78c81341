"""What a command waits for, said on standard error. Knows no command."""

from __future__ import annotations

import sys

import click

from pensieve.cli.text import one_line


class Progress:
    """Says what is going on: in one changing line on a terminal, else once for each thing. Its end clears the line."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._said = ""

    def __enter__(self) -> Progress:
        """Nothing is said yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Also before an error is told, which would stand behind the line otherwise."""
        self.end()

    def tell(self, phrase: str) -> None:
        """Show the phrase, if it is a new one."""
        what = phrase if self._is_terminal else phrase.partition(",")[0]
        if what == self._said:
            return
        self._said = what
        click.echo(
            f"\r\x1b[Kpensieve: {one_line(what)}" if self._is_terminal else f"pensieve: {what}", err=True, nl=False
        )
        if not self._is_terminal:
            click.echo(err=True)

    def end(self) -> None:
        """Clear the line for whoever writes next."""
        if self._is_terminal and self._said:
            click.echo("\r\x1b[K", err=True, nl=False)
        self._said = ""

    def note(self, sentence: str) -> None:
        """Say something that should stay to be read."""
        self.end()
        if sentence:
            click.echo(f"pensieve: {one_line(sentence)}", err=True)
