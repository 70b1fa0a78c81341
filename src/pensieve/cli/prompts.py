"""`pensieve prompts`: the presets that are built in and the user's own. Starts no model."""

from __future__ import annotations

import shlex
import sys

import click
import msgspec

from pensieve.cli.context import load_settings
from pensieve.cli.text import one_line, printable
from pensieve.errors import UsageError
from pensieve.prompts.preset_files import Shelf, split
from pensieve.prompts.presets import Preset


@click.group()
def prompts() -> None:
    """List, show and make presets: what a model is told before a conversation."""


@prompts.command("list")
def list_presets() -> None:
    """Show every preset, built in and yours."""
    shelf = shelf_of_user()
    for line in table(shelf):
        click.echo(line)
    click.echo(f"\nyours are in {one_line(str(shelf.folder))}; `pensieve prompts new NAME` makes one")


@prompts.command()
@click.argument("words", nargs=-1, required=True)
def show(words: tuple[str, ...]) -> None:
    """Show a preset: WORDS are its name, and variable=value to see it filled in."""
    name, given = split(shlex.join(words))
    preset = shelf_of_user().find(name)
    click.echo("\n".join(described(preset)))
    if preset.system:
        click.echo(f"\n{printable(preset.render(given) if given or not preset.unset else preset.system)}")


@prompts.command()
@click.argument("name")
@click.option("--from", "origin", help="Begin with a copy of this preset.")
def new(name: str, origin: str | None) -> None:
    """Make a file for a preset of your own, and open it in your editor if there is a terminal."""
    shelf = shelf_of_user()
    path = shelf.new(name, written(shelf.find(origin))) if origin else shelf.new(name)
    click.echo(f"made {one_line(str(path))}")
    if sys.stdin.isatty() and sys.stdout.isatty():
        click.edit(filename=str(path))


def shelf_of_user() -> Shelf:
    """The presets of whoever runs this."""
    return Shelf(load_settings().folders.prompts)


def table(shelf: Shelf) -> list[str]:
    """A line for each preset; one whose file is wrong says what is wrong."""
    rows = [_row(shelf, name) for name in shelf.names()]
    width = max(len(name) for name, _, _ in rows)
    return [f"{name:<{width}}  {whose:<8}  {summary}".rstrip() for name, whose, summary in rows]


def _row(shelf: Shelf, name: str) -> tuple[str, str, str]:
    try:
        preset = shelf.find(name)
    except UsageError as error:
        return name, "yours", one_line(f"not usable: {error}")
    unset = f" (needs {', '.join(preset.unset)})" if preset.unset else ""
    return name, "yours" if preset.source else "built in", one_line(f"{preset.summary}{unset}")


def described(preset: Preset) -> list[str]:
    """What a preset sets, beside its words, a line each."""
    facts = {
        "name": preset.name,
        "summary": preset.summary,
        "from": preset.source or "built in",
        **{f"variables.{name}": value for name, value in preset.variables.items()},
        **msgspec.to_builtins(preset.sampling),
        "max_tokens": preset.max_tokens,
    }
    return [one_line(f"{key}: {value}") for key, value in facts.items() if value not in (None, "")]


def written(preset: Preset) -> str:
    """The preset as a Markdown file that reads back as the same."""
    facts = (line for line in described(preset) if not line.startswith(("name: ", "from: ")))
    return "\n".join(["---", *facts, "---", preset.system, ""])
